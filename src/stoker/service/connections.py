"""The open WebSockets of a service, and how the service ends them."""

from __future__ import annotations

import time
from typing import Final, Protocol

import anyio

from stoker.protocol import CloseCode, ProtocolError

_LOOK_S: Final = 5.0
"""Seconds between two looks for silent connections."""


class OpenConnection(Protocol):
    """A client's connection, as the service ends it."""

    heard_at: float
    """When its last message came."""

    def close_soon(self, code: int, reason: str) -> None:
        """Close it, from any task."""
        ...


class Connections(set[OpenConnection]):
    """The open WebSockets."""

    async def end_silent(self, limit_s: float) -> None:
        """Close those whose client has vanished, until cancelled: nothing else would ever end them."""
        while True:
            await anyio.sleep(min(_LOOK_S, limit_s / 4))
            now = time.monotonic()
            for connection in [one for one in self if now - one.heard_at > limit_s]:
                connection.close_soon(CloseCode.GOING_AWAY, f"no message for {limit_s:g} s: send pings")

    def end_all(self, refusal: ProtocolError) -> None:
        """Close all, and give the reason."""
        for connection in list(self):
            connection.close_soon(refusal.close or CloseCode.GOING_AWAY, refusal.detail)
