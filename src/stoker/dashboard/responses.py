"""What all addresses of the dashboard share: their queries, tags, JSON and refusals."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from stoker.dashboard.entrance import send_refusal
from stoker.dashboard.queries import Query, refused_value
from stoker.errors import ConfigError
from stoker.protocol import ProtocolError
from stoker.runs.smoothing import Smoothing
from stoker.service.asgi import Receive, Scope, Send
from stoker.service.refusals import refusal_of

_LONG_BYTES = 1 << 20

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def answered(handler: Handler) -> Handler:
    """The handler, with an answer to what it raises."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - answered, and logged if nobody expects it
            return Refused(refusal_of(error))

    return answer


class Refused(Response):
    """A refusal, as a response."""

    def __init__(self, refusal: ProtocolError) -> None:
        super().__init__(status_code=refusal.status)
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as an ASGI application."""
        await send_refusal(self._refusal, scope, send)


class Bodies:
    """The last answers by their tags, for viewers who ask for the same. For any number of threads.

    Args:
        most_bytes: the size of all of them together.
    """

    def __init__(self, most_bytes: int = 16 << 20) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tag: str, make: Callable[[], bytes]) -> bytes:
        """The answer with that tag; it is made if it is not known."""
        with self._lock:
            if (known := self._bodies.get(tag)) is not None:
                return known
        made = make()
        with self._lock:
            if tag not in self._bodies:
                self._bodies[tag] = made
                self._n_bytes += len(made)
            while self._n_bytes > self._most_bytes:
                self._n_bytes -= len(self._bodies.popitem(last=False)[1])
        return made


def query_of(request: Request, *known: str) -> Query:
    """The query of a request that may have these parameters."""
    return Query(request.scope["query_string"], known)


def smoothing_of(query: Query) -> Smoothing | None:
    """How curves are smoothed, by the parameter ``smooth``; None: not at all."""
    text = query.text("smooth")
    try:
        return Smoothing.parse(text) if text else None
    except ConfigError as error:
        raise refused_value(error, "smooth") from error


def tag_of(*parts: object) -> str:
    """The ``ETag`` of what these parts decide."""
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}"'


def has(request: Request, tag: str) -> bool:
    """Whether the client has the answer with that tag."""
    return tag in request.headers.get("if-none-match", "")


def json_answer(body: bytes, tag: str) -> Response:
    """An answer that is sent again only when it changes."""
    return Response(body, media_type="application/json", headers={"etag": tag, "cache-control": "no-cache"})


def unchanged(tag: str) -> Response:
    """The client has the answer."""
    return Response(status_code=304, headers={"etag": tag})


async def answer_once(request: Request, tag: str, make: Callable[[], Any]) -> Response:
    """The answer with that tag, made and encoded in a thread, unless the client has it.

    A long one, such as the list of thousands of runs, is compressed; others are not worth the time.
    """
    if has(request, tag):
        return unchanged(tag)
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")

    def body() -> tuple[bytes, dict[str, str]]:
        encoded = msgspec.json.encode(make())
        if len(encoded) < _LONG_BYTES or not takes_gzip:
            return encoded, {}
        return gzip.compress(encoded, 1), {"content-encoding": "gzip"}

    encoded, headers = await to_thread.run_sync(body)
    answer = json_answer(encoded, tag)
    answer.headers.update({"vary": "accept-encoding", **headers})
    return answer
