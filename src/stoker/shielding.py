"""Waiting that no cancellation cuts short, neither that of a scope nor a native one.

A shielded scope holds off cancel scopes. ``asyncio.Task.cancel`` goes through it, so that a wait has to begin
again, and the cancellation is raised when it has ended.
"""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["wait_to_the_end"]


async def wait_to_the_end(event: anyio.Event) -> None:
    """Return when the event is set.

    Raises:
        asyncio.CancelledError: This task was cancelled natively meanwhile; the event is set all the same.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not event.is_set():
            try:
                await event.wait()
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
