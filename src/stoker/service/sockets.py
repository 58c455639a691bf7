"""A WebSocket below the application: it bounds what its client can do, as ``serving`` does for HTTP."""
# ruff: noqa: D102 - the methods are those of uvicorn's protocol

from __future__ import annotations

from asyncio import TimerHandle
from typing import Any

from stoker.errors import MissingDependency
from stoker.service.limits import Limits

try:
    from stoker.service.frames import FrameProtocol
except ImportError as _error:
    raise MissingDependency(_error.name or "websockets", "service") from _error


class WebSocketConnection(FrameProtocol):
    """A WebSocket whose client must read."""

    limits: Limits
    _write_timer: TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._application = self.app
        self.app: Any = self._answer_handshake

    async def _answer_handshake(self, scope: Any, receive: Any, send: Any) -> None:
        await self._application(scope, receive, send)
        if self.initial_response is not None:  # it was refused; uvicorn would log that as an error
            self.handshake_complete = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that one answer waits here at most

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not much later than the application gives the connection up: closing would wait for what is unread.
        self._write_timer = self.loop.call_later(self.limits.send_s + 1, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_timer()
        super().resume_writing()

    def shutdown(self) -> None:
        if self._write_timer is None:
            super().shutdown()
        else:
            self.transport.abort()  # closing would wait, and the program with it

    def _cancel_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
