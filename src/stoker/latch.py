"""An event for many tasks, cheap enough for each environment step.

On asyncio a task that waits costs one future. In anyio's event it also costs two coroutines, a lock and a
search: as much as everything else that ``act`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio
from anyio.lowlevel import checkpoint

from stoker.threads import on_asyncio


class Latch:
    """An event that is set once, by and for tasks of one event loop."""

    __slots__ = ("_event", "_futures", "_loop", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        """Whether ``set`` was called."""
        self._loop = asyncio.get_running_loop() if on_asyncio() else None
        self._futures: list[asyncio.Future[None]] = []
        self._event: anyio.Event | None = None  # of other event loops

    def wait(self) -> Awaitable[None]:
        """What to await, at once and once, until it is set; that always suspends.

        Cancelled: the other tasks wait on.
        """
        if self.is_set:
            return checkpoint()
        if self._loop is None:
            self._event = self._event or anyio.Event()
            return self._event.wait()
        future = self._loop.create_future()  # one for each task, since its cancellation cancels it
        self._futures.append(future)
        return future

    def set(self) -> None:
        """Wake every task that waits, in the order in which they came."""
        self.is_set = True
        if self._event is not None:
            self._event.set()
        for future in self._futures:
            if not future.done():  # its task was cancelled
                future.set_result(None)
        self._futures = []
