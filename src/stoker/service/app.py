"""``make_app``: the service as an ASGI application, to be served by itself or mounted in another one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stoker.protocol import ProtocolError, Spaces
from stoker.service.asgi import (
    ASGIApp,
    Headers,
    Receive,
    Scope,
    Send,
    path_of,
    respond,
    running,
    with_headers,
)
from stoker.service.auth import Gate
from stoker.service.hosting import GymSpaces, Hosted, SessionFactory
from stoker.service.http import STEP, Requests, refused
from stoker.service.limits import Limits
from stoker.service.refusals import problem_headers, problem_json
from stoker.service.websocket import Connection

STREAM = "/v1/stream"


def make_app(
    session_factory: SessionFactory,
    *,
    spaces: GymSpaces | Spaces | None = None,
    gate: Gate | None = None,
    limits: Limits | None = None,
    on_end: Callable[[], object] | None = None,
) -> Starlette:
    """The service of one session, as an ASGI application.

    The session is opened in the background, so that ``/readyz`` can say how its run rolls forward; it is
    closed, and its run saved, when the application's lifespan ends. A framework that mounts the application
    does not run that lifespan: enter ``service_lifespan(app)`` in its own.

    Args:
        session_factory: makes an async context manager of the session, for example a ``TrainingSession``;
            called once. Without ``spaces`` it is called with the spaces of observations and actions.
        spaces: of observations and actions, Gymnasium's or described; None: those of the first client whose
            hello says some that the session can play.
        gate: who is let in; None: requests to this machine's loopback names, without tokens.
        limits: what clients may do.
        on_end: called when the session cannot be opened, or has failed. The application goes on answering
            with the cause, which is in ``app.state.stoker.failure``.
    """
    hosted = Hosted(session_factory, spaces, limits or Limits(), on_end=on_end)
    gate = gate or Gate()
    requests = Requests(hosted, gate)
    app = Starlette(
        routes=requests.routes(),
        exception_handlers={HTTPException: _http_problem},
        lifespan=service_lifespan,
    )
    app.state.stoker = hosted
    app.add_middleware(_Entrance, hosted=hosted, gate=gate, step=requests.step)
    return app


@asynccontextmanager
async def service_lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Open and close the session of ``make_app``'s application around a block.

        @asynccontextmanager
        async def lifespan(host):
            async with service_lifespan(service):
                yield

        host = FastAPI(lifespan=lifespan)
        host.mount("/rl", service)

    Leaving it drains what was accepted, writes a final checkpoint, and returns when all is on disk. A session
    that has failed is in ``app.state.stoker.failure``.
    """
    async with running(app.state.stoker):
        yield


class _Entrance:
    """Checks ``Host`` and ``Origin``, and hands streams and records straight to their endpoints.

    What Starlette does around an endpoint costs as much as a record.
    """

    def __init__(self, app: ASGIApp, hosted: Hosted, gate: Gate, step: ASGIApp) -> None:
        self._app, self._hosted, self._gate, self._step = app, hosted, gate, step

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            origin = self._gate.check_address(scope)
        except ProtocolError as refusal:
            await _deny(refusal, scope, receive, send)
            return
        if origin is not None and kind == "http":
            if scope["method"] == "OPTIONS":
                await respond(send, 204, [*_shared_with(origin), *_PREFLIGHT])
                return
            readable = [*_shared_with(origin), (b"access-control-expose-headers", b"etag, retry-after")]
            send = with_headers(send, lambda _: readable)
        path = path_of(scope)
        if kind == "http" and path == STEP and scope["method"] == "POST":
            await self._step(scope, receive, send)
        elif kind == "websocket" and path == STREAM:
            code = await Connection(self._hosted, self._gate, scope, receive, send).run()
            self._hosted.counts.requests[STREAM, code] += 1
        elif kind == "websocket":
            refusal = ProtocolError("not-found", f"{path}: a WebSocket is at {STREAM}")
            await _deny(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)


_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, if-none-match, traceparent"),
    (b"access-control-max-age", b"600"),
]
"""What a page that may use the service may send: its browser asks before."""


def _shared_with(origin: str) -> Headers:
    """A browser lets a page of another site read an answer only if the answer says so."""
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]


async def _deny(refusal: ProtocolError, scope: Scope, receive: Receive, send: Send) -> None:
    body = problem_json(refusal)
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": refusal.close or 1008})
            return
    await respond(send, refusal.status, problem_headers(refusal, body), body, kind)


async def _http_problem(request: Request, error: Any) -> Response:
    """The problem for a ``HTTPException`` of Starlette."""
    if error.status_code == 405:
        headers: dict[str, str] = error.headers or {}
        allowed = headers.get("Allow", "")
        detail = f"{request.method} {request.url.path}: it takes {allowed or 'other methods'}"
        response = refused(ProtocolError("method-not-allowed", detail))
        response.headers["Allow"] = allowed
        return response
    if error.status_code == 404:
        is_stream = request.url.path.endswith(STREAM)
        way_out = "connect with a WebSocket" if is_stream else "GET /openapi.json lists what there is"
        return refused(ProtocolError("not-found", f"{request.url.path}: {way_out}"))
    return refused(ProtocolError("malformed", str(error.detail)))
