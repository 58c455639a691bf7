"""A bounded queue for many producers and one consumer that takes everything there in one go.

Between actors and the session task, and between the session task and the writer task. It is the one
thing on the hot path that is written here: with room, accepting an item is a plain append, without a task
switch, a lock or an allocation; a memory stream of the async libraries costs some fifty times that.

Rejected: waking waiting producers with their item already taken in (trio's channels do). A producer that
is cancelled after its item went in could not tell; here the producer itself appends, as its last act, so
that an item is wholly in (``put`` returned) or wholly out (``put`` raised).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

__all__ = ["BatchQueue"]

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """First in, first out, at most ``capacity`` items; lives on one event loop.

    A full queue makes ``put`` wait; places go to those who have waited longest, and nobody overtakes them
    (those who get a place at the same moment enter in any order). A producer that never suspends by itself is
    made to yield to the event loop once per ``turn`` items.
    """

    def __init__(self, capacity: int, *, turn: int = 128) -> None:
        self._capacity = capacity
        self._turn = turn
        self._items: list[T] = []
        # How many items may be appended right now without looking at anything else. Zero while the queue
        # is full or closed, while anybody waits, or when a turn of the event loop is due.
        self._credit = min(capacity, turn)
        self._waiting: dict[anyio.Event, None] = {}  # producers that wait for room, in order
        self._reserved = 0  # places promised to producers that were woken and have not run yet
        self._reader: anyio.Event | None = None
        self._closed = False
        self._error: Callable[[], Exception] = anyio.ClosedResourceError

    def __len__(self) -> int:
        return len(self._items)

    @property
    def capacity(self) -> int:
        """The most items it holds."""
        return self._capacity

    @property
    def n_waiting(self) -> int:
        """How many producers wait for room."""
        return len(self._waiting)

    def offer(self, item: T) -> bool:
        """Append the item if that needs no waiting, and say whether it was done."""
        if self._credit <= 0:
            return False
        self._credit -= 1
        self._items.append(item)
        if self._reader is not None:
            self._reader.set()
            self._reader = None
        return True

    async def put(self, item: T) -> None:
        """Append the item, when there is room. Cancelled: the item is out.

        Raises:
            anyio.ClosedResourceError: The queue is closed; or the error that it was closed with.
        """
        while not self.offer(item):
            await self._admit()

    async def put_many(self, items: Sequence[T]) -> None:
        """Append the items in order, waiting for room as often as needed.

        Cancelled or closed: a prefix is in, the rest is out. Other producers' items may come between.
        """
        for item in items:
            if not self.offer(item):
                await self.put(item)

    async def take(self) -> list[T]:
        """Take all that is there, at least one item, in order; an empty list once closed and drained.

        For one consumer. Cancelled: nothing is lost.
        """
        while not self._items:
            if self._closed:
                return []
            self._reader = reader = anyio.Event()
            try:
                await reader.wait()
            finally:
                self._reader = None
        items, self._items = self._items, []
        self._refill()
        return items

    def close(self, error: Callable[[], Exception] = anyio.ClosedResourceError) -> None:
        """Accept nothing more; what is in can still be taken.

        Args:
            error: makes what ``put`` raises from now on, also in those who wait: one each, since an
                exception that many tasks raise would collect all their tracebacks.
        """
        if self._closed:
            return
        self._closed = True
        self._error = error
        self._credit = 0
        for event in self._waiting:
            event.set()
        self._reserved += len(self._waiting)
        self._waiting.clear()
        if self._reader is not None:
            self._reader.set()

    def _room(self) -> int:
        return self._capacity - len(self._items) - self._reserved

    def _refill(self) -> None:
        """Hand free places to those who wait, in order; only then to whoever comes."""
        if self._closed:
            return
        while self._waiting and self._room() > 0:
            event = next(iter(self._waiting))
            del self._waiting[event]
            self._reserved += 1
            event.set()
        self._credit = 0 if self._waiting or self._reserved else min(self._turn, self._room())

    async def _admit(self) -> None:
        """Return when the caller may append one item, and give it the credit for that."""
        self._raise_if_closed()
        if not self._waiting and self._room() > 0:
            await checkpoint()  # a turn is due
            self._raise_if_closed()
            if not self._waiting and self._room() > 0:
                self._credit = max(self._credit, min(self._turn, self._room()))
                return
        event = anyio.Event()
        self._waiting[event] = None
        try:
            await event.wait()
        except BaseException:
            if event.is_set():  # cancelled between being woken and running: the place goes to the next
                self._reserved -= 1
                self._refill()
            else:
                del self._waiting[event]
            raise
        self._reserved -= 1
        self._raise_if_closed()
        self._credit += 1

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise self._error()
