"""Serve an application with uvicorn, and bound what clients can do below the application.

The application sees whole requests and messages. A client that sends its head a byte at a time, never ends
it, or never reads what it is sent is only seen here: each of them costs one connection, for a time.
"""

from __future__ import annotations

import contextlib
import socket
from asyncio import TimerHandle
from collections.abc import Generator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from stoker.errors import ConfigError, MissingDependency
from stoker.protocol import ProtocolError
from stoker.service.asgi import Background
from stoker.service.limits import Limits
from stoker.service.refusals import problem_headers, problem_json

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as _error:
    raise MissingDependency(_error.name or "uvicorn", "service") from _error

_HEAD_BYTES = 64 << 10
_SPARE_CONNECTIONS = 256
"""More than there may be WebSockets: for requests over HTTP."""
_SEND_BYTES = 256 << 10
"""What the system keeps for a client that does not read; left alone, it keeps megabytes."""
_KEEP_ALIVE_S = 75
_DRAIN_S = 5
"""How long requests that are running may take when the server ends."""


class Tls(msgspec.Struct, frozen=True):
    """Files of TLS, as PEM.

    Attributes:
        cert: the certificate, and those between it and its root.
        key: its key; None: it is in the same file.
    """

    cert: Path
    key: Path | None = None


class Server(uvicorn.Server):
    """Serves an application on a socket until ``should_exit`` is set; then running requests are answered.

    Args:
        app: of ``make_app``, with a ``Background`` in its ``state.stoker``.
        limits: what clients may do.
        tls: None: plain HTTP.
        has_websockets: whether the application has any.

    Raises:
        ConfigError: A file of TLS cannot be used.
    """

    def __init__(
        self, app: Any, limits: Limits, tls: Tls | None = None, *, has_websockets: bool = True
    ) -> None:
        http = type("HttpConnection", (_HttpConnection,), {"limits": limits})
        ws = "none"
        if has_websockets:
            from stoker.service.sockets import WebSocketConnection  # late: it takes time

            ws = type("WebSocketConnection", (WebSocketConnection,), {"limits": limits})
        config = uvicorn.Config(
            app,
            http=http,
            ws=ws,
            ws_max_size=limits.message_bytes,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            log_level="warning",
            access_log=False,
            lifespan="on",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_DRAIN_S,
            ssl_certfile=None if tls is None else str(tls.cert),
            ssl_keyfile=None if tls is None or tls.key is None else str(tls.key),
        )
        try:
            config.load()
        except OSError as error:  # of which SSLError is one
            files = (
                "" if tls is None else f"--tls-cert {tls.cert}" + (f" --tls-key {tls.key}" if tls.key else "")
            )
            raise ConfigError(
                f"{files}: {error.strerror or error}; give PEM files that belong together"
            ) from None
        super().__init__(config)
        self._behind: list[Background] = [app.state.stoker]

    def end(self) -> None:
        """Let ``serve_on`` return, once the requests that run are answered; on its event loop."""
        self.should_exit = True

    def end_with(self, other: Background) -> None:
        """Close this, too, at the end."""
        self._behind.append(other)

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until ``should_exit``; the application's lifespan is around that."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # of each connection
        await self.serve([listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: refuse the requests that wait for the session, and let the others be answered."""
        for each in self._behind:
            each.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Nothing: signals belong to the program."""
        yield


class _HttpConnection(HttpToolsProtocol):
    """A connection whose head must be complete within a time and a size, and whose client must read."""

    limits: Limits
    _head_timer: TimerHandle | None = None
    _write_timer: TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections + _SPARE_CONNECTIONS:
            most = f"it has {len(self.connections) - 1} connections; close one, or try again later"
            self._refuse(ProtocolError("too-many-connections", most, retry_after=5))
            return
        self._limit_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer = _cancelled(self._head_timer)
        self._write_timer = _cancelled(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(ProtocolError("too-large", f"the head has more than {_HEAD_BYTES:,} bytes"))
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._is_in_head:
            self._is_in_head = True
            self._limit_head()

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head_bytes = False, 0
        self._head_timer = _cancelled(self._head_timer)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = _cancelled(self._write_timer)
        self._write_timer = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._write_timer = _cancelled(self._write_timer)
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # which waits until the client has read what is written
            self.pause_writing()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # closing would wait, too

    def shutdown(self) -> None:
        if self._write_timer is None:
            super().shutdown()
        else:
            self.transport.abort()

    def _limit_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_s, self._end_head)

    def _end_head(self) -> None:
        late = f"the head of the request took longer than {self.limits.head_s:g} s"
        self._refuse(ProtocolError("slow-request", late))

    def _refuse(self, refusal: ProtocolError) -> None:
        body = problem_json(refusal)
        headers = dict(problem_headers(refusal, body)) | {b"connection": b"close"}
        lines = [b"HTTP/1.1 %d %s" % (refusal.status, HTTPStatus(refusal.status).phrase.encode())]
        lines += [b"%s: %s" % header for header in headers.items()]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()


def _cancelled(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
