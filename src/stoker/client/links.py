"""How a message reaches the server and its answer comes back: over a WebSocket, or as requests of HTTP."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncGenerator
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import msgspec

from stoker.errors import MissingDependency
from stoker.protocol import (
    ActorAnswer,
    CloseCode,
    Hello,
    HelloFrame,
    Problem,
    ProtocolError,
    StepAnswer,
    Welcome,
    encode_msgpack,
)

try:
    import httpx2
    from httpx2.websockets import (
        AsyncWebSocketClient,
        AsyncWebSocketSession,
        HTTPXWSException,
        WebSocketDisconnect,
        WebSocketUpgradeError,
    )
    from wsproto.utilities import LocalProtocolError  # to send while the connection is closing
except ImportError as _error:
    raise MissingDependency("httpx2[ws]", "client") from _error


_ANSWER_S = 60.0
"""After this long without a word from the server, a message is taken for lost."""
_PING_S = 20.0
"""A quiet connection is asked this often whether it still lives; tunnels drop WebSocket's own pings."""
_MOST_BYTES = 1 << 26
"""The longest answer that is read."""
_MSGPACK = {"content-type": "application/msgpack", "accept": "application/msgpack"}


class LinkBroken(Exception):
    """The connection was cut, or the server did not answer; never leaves this package."""


class WebSocketRefused(Exception):
    """The server, or a proxy before it, speaks no WebSocket; never leaves this package."""


class Link(Protocol):
    """Carries messages. Several may be under way at once."""

    async def exchange(self, message_id: int, message: bytes) -> StepAnswer | Problem:
        """Send a message and return the server's answer to it.

        Raises:
            LinkBroken: There is no answer; the server may have taken the message.
        """
        ...


# HTTP -------------------------------------------------------------------------------------------------


class HttpLink:
    """Each message is a request by itself.

    Args:
        client: has the server's address and the token.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._decoder = msgspec.msgpack.Decoder(StepAnswer)

    async def exchange(self, message_id: int, message: bytes) -> StepAnswer | Problem:
        """Post a message; as ``Link`` says."""
        try:
            with anyio.fail_after(_ANSWER_S):
                response = await self._client.post("/v1/step", content=message, headers=_MSGPACK)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise LinkBroken(f"{type(error).__name__}: {error}") from error
        if response.status_code != 200:
            return problem_of(response)
        try:
            return self._decoder.decode(response.content)
        except msgspec.MsgspecError as error:
            raise LinkBroken(f"the answer is none of stoker's protocol: {error}") from error


def problem_of(response: httpx2.Response) -> Problem:
    """The problem in a response that is not 200.

    Raises:
        LinkBroken: It has none, and a status that may pass: a proxy answered, say.
    """
    content_type = response.headers.get("content-type", "")
    decode = msgspec.msgpack.decode if "msgpack" in content_type else msgspec.json.decode
    try:
        return decode(response.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if response.status_code >= 500 or response.status_code == 429:
            raise LinkBroken(f"HTTP {response.status_code} without a word of why") from None
        detail = f"{response.request.method} {response.request.url} was answered with {response.status_code}"
        kind = {401: "unauthenticated", 403: "forbidden"}.get(response.status_code, "not-found")
        return Problem(f"urn:stoker:problem:{kind}", "No answer of stoker's", response.status_code, detail)


# WebSocket --------------------------------------------------------------------------------------------


class _Frame(msgspec.Struct):
    """Anything that the server sends on a stream."""

    actors: dict[str, ActorAnswer] | None = None
    training: str = "running"
    id: int | str | None = None
    welcome: Welcome | None = None
    error: Problem | None = None
    pong: int | None = None


class _Awaited:
    """A message that is under way."""

    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.answer: StepAnswer | Problem | LinkBroken | None = None


class WebSocketLink:
    """A stream: one connection for all messages, which are answered as they are done, in any order.

    Made by ``open``.
    """

    def __init__(self, socket: AsyncWebSocketSession) -> None:
        self._socket = socket
        self._json = msgspec.json.Decoder(_Frame)
        self._msgpack = msgspec.msgpack.Decoder(_Frame)
        self._awaited: dict[int | str, _Awaited] = {}
        self._last_error: Problem | None = None  # that belongs to no message: it says why a close follows
        self._n_words = 0  # how many frames have come
        self.was_fenced: bool = False
        """Whether the server closed the connection because another one has taken an actor over."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, client: httpx2.AsyncClient, hello: Hello
    ) -> AsyncGenerator[tuple[WebSocketLink, Welcome]]:
        """Connect, and greet the server.

        Args:
            client: has the server's address and the token.
            hello: the first message.

        Raises:
            WebSocketRefused: The address answers, but not to WebSocket.
            ProtocolError: The server refuses the token, the spaces or the like.
            LinkBroken: The connection was not made, or was cut.
        """
        base = urlsplit(str(client.base_url))
        scheme = {"http": "ws", "https": "wss"}[base.scheme]
        address = f"{scheme}://{base.netloc}{base.path.rstrip('/')}/v1/stream"
        sockets = AsyncWebSocketClient(
            client,
            max_message_size_bytes=_MOST_BYTES,
            keepalive_ping_interval_seconds=None,
        )
        try:
            async with sockets.connect(address, subprotocols=["stoker.v1"]) as socket:
                link = cls(socket)
                welcome = await link._greet(hello)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(link._read)
                    tasks.start_soon(link._watch)
                    yield link, welcome
                    tasks.cancel_scope.cancel()
        except WebSocketUpgradeError as error:
            raise WebSocketRefused(f"HTTP {error.response.status_code}") from error
        except (HTTPXWSException, httpx2.HTTPError, TimeoutError, OSError) as error:
            raise LinkBroken(f"{type(error).__name__}: {error}") from error

    async def exchange(self, message_id: int, message: bytes) -> StepAnswer | Problem:
        """Send a message as a binary frame; as ``Link`` says."""
        awaited = self._awaited[message_id] = _Awaited()
        try:
            await self._send(message)
            await awaited.event.wait()
        finally:
            del self._awaited[message_id]
        if awaited.answer is None or isinstance(awaited.answer, LinkBroken):
            raise awaited.answer or LinkBroken("cut")
        return awaited.answer

    async def _send(self, message: bytes) -> None:
        try:
            await self._socket.send_bytes(message)
        except (HTTPXWSException, LocalProtocolError, httpx2.HTTPError, OSError) as error:
            raise LinkBroken(f"{type(error).__name__}: {error}") from error

    async def _greet(self, hello: Hello) -> Welcome:
        await self._send(encode_msgpack(HelloFrame(hello)))
        with anyio.fail_after(_ANSWER_S):
            frame = await self._next()
        if frame.error is not None:
            raise ProtocolError.from_problem(frame.error)
        if frame.welcome is None:
            raise LinkBroken("the first frame is no welcome")
        return frame.welcome

    async def _next(self) -> _Frame:
        """The next frame.

        Raises:
            ProtocolError: The server said why, and closed the connection.
            LinkBroken: It is cut.
        """
        try:
            data: Any = getattr(await self._socket.receive(), "data", b"")
            self._n_words += 1
            return self._json.decode(data) if isinstance(data, str) else self._msgpack.decode(data)
        except WebSocketDisconnect as error:
            self.was_fenced = error.code == CloseCode.FENCED
            if self._last_error is not None and not self.was_fenced:
                raise ProtocolError.from_problem(self._last_error) from error
            raise LinkBroken(f"closed with code {error.code} {error.reason}".rstrip()) from error
        except (HTTPXWSException, httpx2.HTTPError, OSError, msgspec.MsgspecError) as error:
            raise LinkBroken(f"{type(error).__name__}: {error}") from error

    async def _read(self) -> None:
        """Hand each answer to the caller that waits for it, until the connection ends."""
        try:
            while True:
                frame = await self._next()
                message_id = frame.id if frame.error is None else frame.error.id
                if frame.error is not None and not isinstance(message_id, int | str):
                    self._last_error = frame.error
                    [message_id] = self._awaited if len(self._awaited) == 1 else [None]
                awaited = self._awaited.get(message_id) if isinstance(message_id, int | str) else None
                if awaited is not None:
                    awaited.answer = frame.error or StepAnswer(frame.actors or {}, frame.training)  # pyright: ignore[reportArgumentType]
                    awaited.event.set()
        except LinkBroken as broken:
            self._break(broken)
            raise
        except ProtocolError as error:
            self._break(LinkBroken(str(error)))
            raise

    def _break(self, error: LinkBroken) -> None:
        for awaited in self._awaited.values():
            awaited.answer = error
            awaited.event.set()

    async def _watch(self) -> None:
        """Ping a quiet server, and give it up if that does not help."""
        quiet_s, heard = 0.0, self._n_words
        for number in itertools.count():
            await anyio.sleep(_PING_S)
            quiet_s = quiet_s + _PING_S if heard == self._n_words else 0.0
            heard = self._n_words
            if quiet_s >= _ANSWER_S:
                raise LinkBroken(f"not a word for {quiet_s:.0f} s")
            if quiet_s:
                await self._send(encode_msgpack({"ping": number}))
