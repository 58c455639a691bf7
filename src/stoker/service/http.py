"""The protocol over HTTP: ``POST /v1/step`` as a bare ASGI application, and the small routes.

A refusal is a problem of RFC 9457, whatever the route. A body is JSON or MessagePack, and so is its answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stoker.errors import MissingDependency
from stoker.protocol import (
    EpisodeMessage,
    ProtocolError,
    decode,
    decode_step,
    encode_json,
    encode_msgpack,
)
from stoker.protocol.documents import DOCUMENTS, document
from stoker.protocol.encoding import Format
from stoker.service.asgi import Event, Headers, Receive, Scope, Send, respond
from stoker.service.auth import Gate, check_steps
from stoker.service.holders import Holder
from stoker.service.hosting import Hosted
from stoker.service.policy_files import policy_endpoint
from stoker.service.refusals import problem_headers, problem_json, refusal_of
from stoker.service.specs import spec_of
from stoker.service.tokens import Principal

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

STEP = "/v1/step"
_EPISODES = "/v1/episodes"

_FORMATS: dict[bytes, Format] = {
    b"application/json": "json",
    b"application/msgpack": "msgpack",
    b"application/vnd.msgpack": "msgpack",
    b"application/x-msgpack": "msgpack",
}
_TYPES: dict[Format, tuple[bytes, bytes]] = {
    "json": (b"content-type", b"application/json"),
    "msgpack": (b"content-type", b"application/msgpack"),
}


_NO_SPAN = contextlib.nullcontext()


class _Closed(Exception):
    """The client closed the connection before its request was complete."""


class Requests:
    """The HTTP side of a service.

    Args:
        hosted: the session.
        gate: who is let in.
    """

    def __init__(self, hosted: Hosted, gate: Gate) -> None:
        self._hosted = hosted
        self._gate = gate
        self._holders: dict[str, Holder] = {}
        self.step: _Endpoint = _Endpoint(STEP, self._step, hosted)
        """``POST /v1/step``, an ASGI application."""

    def routes(self) -> list[Route]:
        """All but the stream and the documents."""
        actor, hosted = "/v1/actors/{actor}", self._hosted
        return [
            Route(STEP, self.step, methods=["POST"]),
            Route(_EPISODES, _Endpoint(_EPISODES, self._episode, hosted), methods=["POST"]),
            self._route("/v1/spec", self._spec),
            self._route(
                "/v1/policy", policy_endpoint(hosted.policies_now, self._reader, hosted.limits.max_wait_s)
            ),
            self._route(actor, self._actor, DELETE=self._end_actor),
            self._route("/healthz", self._healthz),
            self._route("/readyz", self._readyz),
            self._route("/metrics", self._metrics),
            *(self._document(name) for name in DOCUMENTS),
        ]

    def _route(self, path: str, handler: Handler, **others: Handler) -> Route:
        """A route for GET, and for other methods; an actor's name may have slashes."""
        handlers = {"GET": handler, "HEAD": handler, **others}
        counts = self._hosted.counts.requests

        async def endpoint(request: Request) -> Response:
            try:
                response = await handlers[request.method](request)
            except Exception as error:  # noqa: BLE001 - answered, and logged if nobody expects it
                response = refused(refusal_of(error))
            counts[path, response.status_code] += 1
            return response

        return Route(path.replace("{actor}", "{actor:path}"), endpoint, methods=["GET", *others])

    # Records --------------------------------------------------------------------------------------

    async def _step(self, scope: Scope, receive: Receive) -> tuple[Any, Format]:
        principal = self._gate.admit(scope, "act", "observe")
        service = self._hosted.now()
        body, form = await self._body(scope, receive)
        message = decode_step(body, form, self._hosted.limits.depth)
        if not principal.is_unlimited:
            check_steps(self._gate, principal, message)
        return await service.step(message, self._holder(principal)), form

    async def _episode(self, scope: Scope, receive: Receive) -> tuple[Any, Format]:
        principal = self._gate.admit(scope, "observe")
        service = self._hosted.now()
        body, form = await self._body(scope, receive)
        message = decode(body, form, EpisodeMessage, self._hosted.limits.depth)
        self._gate.spend(principal, len(message.rewards))
        return await service.episode(message, self._holder(principal)), form

    def _holder(self, principal: Principal) -> Holder:
        """Whose requests these are: all of a token's are one client's."""
        holder = self._holders.get(principal.name)
        if holder is None:
            holder = self._holders[principal.name] = Holder(principal.name, prefix=principal.actors)
        return holder

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, Format]:
        """The body of a request, whole.

        Raises:
            ProtocolError: It is of another type, too large, or too slow.
            _Closed: It ends before its end.
        """
        limits = self._hosted.limits
        kind, coding, length = b"", b"identity", 0
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-encoding":
                coding = value.strip().lower()
            elif name == b"content-length":
                length = int(value)  # which the server has checked
        form = _FORMATS.get(kind)
        if form is None:
            given = kind.decode("latin-1") or "none"
            how = "`content-type: application/json` or application/msgpack"
            raise ProtocolError("unsupported-media-type", f"the content-type is {given!r}: send {how}")
        if coding != b"identity":
            given = coding.decode("latin-1")
            how = "send the body uncompressed, without this header"
            raise ProtocolError("unsupported-media-type", f"the content-encoding is {given!r}: {how}")
        if length > limits.message_bytes:
            raise _too_large(limits.message_bytes)
        event = await receive()
        if event["type"] == "http.request" and not event.get("more_body"):
            body = event.get("body", b"")
        else:
            try:
                with anyio.fail_after(limits.body_s):
                    body = await _rest_of(event, receive, limits.message_bytes)
            except TimeoutError:
                late = f"the body took longer than {limits.body_s:g} s"
                raise ProtocolError("slow-request", late) from None
        if len(body) > limits.message_bytes:
            raise _too_large(limits.message_bytes)
        return body, form

    # Readings -------------------------------------------------------------------------------------

    def _reader(self, request: Request) -> Principal:
        return self._gate.admit(request.scope, "read", "act", "observe")

    async def _spec(self, request: Request) -> Response:
        self._reader(request)
        return _json(spec_of(self._hosted))

    async def _actor(self, request: Request) -> Response:
        self._reader(request).require_actor(request.path_params["actor"])
        return _json(await self._hosted.now().actor(request.path_params["actor"]))

    async def _end_actor(self, request: Request) -> Response:
        principal = self._gate.admit(request.scope, "observe")
        principal.require_actor(request.path_params["actor"])
        await self._hosted.now().end(request.path_params["actor"], self._holder(principal))
        return Response(status_code=204)

    async def _healthz(self, _: Request) -> Response:
        """Whether this process works: its event loop turns, and its session has not failed."""
        if self._hosted.failure is not None:
            raise self._hosted.refusal()
        return _json({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        """Whether steps are taken now; else who waits for whom."""
        waits = self._hosted.waits()
        if self._hosted.service is None:
            raise self._hosted.refusal()
        if waits:
            raise ProtocolError("not-ready", "; ".join(waits), retry_after=5)
        return _json({"status": "ok", "training": spec_of(self._hosted).training})

    async def _metrics(self, request: Request) -> Response:
        self._gate.admit(request.scope, "read")
        try:
            exposition = self._hosted.exposition()
        except MissingDependency as error:
            raise ProtocolError("not-found", str(error)) from error
        body, kind = await to_thread.run_sync(exposition, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    def _document(self, name: str) -> Route:
        content = document(name)

        async def send(_: Request) -> Response:
            return Response(content, media_type="application/json")

        return self._route(DOCUMENTS[name], send)


_Answer: TypeAlias = Callable[[Scope, Receive], Awaitable[tuple[Any, Format]]]


class _Endpoint:
    """A route that is answered with as little around it as possible."""

    def __init__(self, path: str, answer: _Answer, hosted: Hosted) -> None:
        self._path = path
        self._answer = answer
        self._hosted = hosted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            with self._span(scope):
                answer, form = await self._answer(scope, receive)
            body = encode_json(answer) if form == "json" else encode_msgpack(answer)
            headers: Headers = [_TYPES[form], (b"content-length", b"%d" % len(body))]
        except _Closed:
            return
        except Exception as error:  # noqa: BLE001 - answered, and logged if nobody expects it
            refusal = refusal_of(error)
            status, body = refusal.status, problem_json(refusal)
            headers = problem_headers(refusal, body)
        self._hosted.counts.requests[self._path, status] += 1
        await respond(send, status, headers, body)

    def _span(self, scope: Scope) -> contextlib.AbstractContextManager[Any]:
        """The span of a request that brings a trace, where the program collects spans."""
        spans = self._hosted.spans
        return _NO_SPAN if spans is None else spans.request(self._path, scope["headers"])


async def _rest_of(event: Event, receive: Receive, most: int) -> bytes:
    parts = bytearray()
    while True:
        if event["type"] != "http.request":
            raise _Closed
        parts += event.get("body", b"")
        if len(parts) > most or not event.get("more_body"):
            return bytes(parts)
        event = await receive()


def _too_large(most: int) -> ProtocolError:
    return ProtocolError("too-large", f"a message has at most {most:,} bytes: send fewer records at once")


def _json(value: Any) -> Response:
    return Response(encode_json(value), media_type="application/json")


def refused(refusal: ProtocolError) -> Response:
    """The response that a refusal is."""
    body = problem_json(refusal)
    response = Response(body, refusal.status)
    response.raw_headers = problem_headers(refusal, body)
    return response
