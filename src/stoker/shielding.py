"""Waiting that no cancellation cuts short, neither that of a scope nor a native one.

A shielded scope holds off cancel scopes. ``asyncio.Task.cancel`` goes through it, so that a wait has to begin
again, and the cancellation is raised when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

__all__ = ["wait_to_the_end"]


async def wait_to_the_end(wait: Callable[[], Awaitable[object]]) -> None:
    """Return when the wait has ended.

    Args:
        wait: waits for something; called again after each native cancellation.

    Raises:
        asyncio.CancelledError: This task was cancelled natively meanwhile; the wait has ended all the same.
    """
    cancelled: asyncio.CancelledError | None = None
    has_ended = False
    with anyio.CancelScope(shield=True):
        while not has_ended:
            try:
                await wait()
                has_ended = True
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
