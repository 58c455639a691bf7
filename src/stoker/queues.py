"""A bounded queue for many producers and one consumer that takes all items at once.

It stands between actors and the session task, and between the session task and the writer task. It is the
only primitive of the hot path that stoker implements itself: with room, ``put`` is a plain append without a
task switch, a lock or an allocation; a memory stream of the async libraries costs some fifty times that.

Rejected: to append for a waiting producer before it wakes (trio's channels do). A producer that is cancelled
after that could not know it. Here the producer itself appends, as its last act, so that an item is in
(``put`` returned) or out (``put`` raised).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

T = TypeVar("T")

CALLED_FIRST = 8
"""How many waiting producers are woken together at first; twice as many each time that they leave room."""


class BatchQueue(Generic[T]):
    """First in, first out, at most ``capacity`` items; lives on one event loop.

    A full queue makes ``put`` wait. When it is empty, the producers that waited longest are called first, a
    few at a time, each with a share of the room: a producer with many items puts several of them before it
    waits again, so that a thousand of them cost hardly more than eight. Every waiting producer is called
    before one is called twice. A producer that never suspends by itself yields to the event loop once per
    ``yield_every`` items.

    A producer may be interrupted (Ctrl-C) between any two bytecodes. Its item is in once ``append``, a C
    function, has run, ``count`` says what is in, and waiting producers are still called.

    Args:
        capacity: the most items it holds.
        yield_every: how many items producers may put before they yield to the event loop.
        consumed: returns how many items of the counted type the consumer has processed; called when it takes.
        size_of: how many items an item stands for; a batch goes in as a whole once there is room.
        linger_s: how long a consumer waits at most for more items than there are.

    Attributes:
        credit: how many items may be appended now without a further check. A hot path may do what ``offer``
            does: decrement it while it is positive, and ``append``. It is 0 while the queue is full or
            closed, while the consumer waits, and when producers must yield.
        append: appends an item without any check.
        extend: appends several items together without any check.
    """

    def __init__(
        self,
        capacity: int,
        *,
        yield_every: int = 512,
        consumed: Callable[[], int] = lambda: 0,
        size_of: Callable[[T], int] = lambda item: 1,
        linger_s: float = 5e-3,
    ) -> None:
        self.capacity = capacity
        self._yield_every = yield_every
        self._items: list[T] = []
        self._consumed = consumed
        self._n_consumed = consumed()  # when the consumer last took
        self._taken: list[T] = []  # by it, then
        self._taking = threading.Lock()
        self._size_of = size_of
        self._has_sizes = False  # whether an item that is in may stand for several
        self.append: Callable[[T], None] = self._items.append
        self.extend: Callable[[Iterable[T]], None] = self._items.extend
        self.credit: int = min(capacity, yield_every)
        self._waiting: OrderedDict[anyio.Event, None] = OrderedDict()  # producers that wait for room
        self._called: set[anyio.Event] = set()  # producers that were called and have not run yet
        # No more than can fill it with a share each: a wake-up costs as much as a hundred items.
        self._called_first = (
            CALLED_FIRST if capacity < 2 * yield_every else min(CALLED_FIRST, capacity // yield_every)
        )
        self._round = self._called_first  # how many are called next
        self._share = 1  # how many items each of the last called producers may put
        self._reader: anyio.Event | None = None
        self._linger_s = linger_s
        self._is_hurried = False
        self.is_closed: bool = False
        """Whether it accepts nothing more."""
        self._error: Callable[[], Exception] = anyio.ClosedResourceError

    def __len__(self) -> int:
        return sum(map(self._size_of, self._items[:])) if self._has_sizes else len(self._items)

    @property
    def fill(self) -> float:
        """How full it is, 0.0 to 1.0."""
        return min(1.0, len(self) / self.capacity)

    @property
    def is_awaited(self) -> bool:
        """Whether the consumer waits for an item."""
        return self._reader is not None

    @property
    def n_waiting(self) -> int:
        """How many producers wait for room."""
        return len(self._waiting)

    def count(self, *kinds: type) -> int:
        """How many items of these types were ever put; exact, and slow: it looks at every queued item."""
        with self._taking:
            held = [*self._taken, *self._items]
            return self._n_consumed + sum(self._size_of(item) for item in held if type(item) in kinds)

    def offer(self, item: T, size: int = 1) -> bool:
        """Append the item if that needs no wait; return whether it did."""
        if self.credit <= 0 and not self._rouse():
            return False
        self.credit -= size
        if size != 1:
            self.expect_sizes()
        self.append(item)
        return True

    def has_credit(self) -> bool:
        """Whether an ``offer`` would append its item now."""
        return self.credit > 0 or self._rouse()

    def offer_together(self, items: Sequence[T]) -> bool:
        """Append single items, all of them or none, if that needs no wait; return whether it did."""
        if not self.has_credit():
            return False
        self.credit -= len(items)
        self.extend(items)
        return True

    def expect_sizes(self) -> None:
        """To be called before ``append`` of an item that stands for several."""
        self._has_sizes = True

    async def put(self, item: T, size: int = 1) -> None:
        """Append the item, when there is room. Cancelled: the item is out.

        Raises:
            anyio.ClosedResourceError: The queue is closed; or the error that it was closed with.
        """
        while not self.offer(item, size):
            await self._admit()

    async def put_together(self, items: Sequence[T]) -> None:
        """Append single items as a whole once there is room, also if they are more than that.

        Cancelled or closed: all of them are out.
        """
        while not self.offer_together(items):
            await self._admit()

    async def put_many(self, items: Sequence[T]) -> None:
        """Append the items in order, waiting for room as often as needed.

        Cancelled or closed: a prefix is in, the rest is out. Other producers' items may come between.
        """
        for item in items:
            if not self.offer(item, size := self._size_of(item)):
                await self.put(item, size)

    async def take(self, n_wanted: int = 1) -> list[T]:
        """Take all items, at least one, in order; an empty list once the queue is closed and drained.

        For one consumer. Cancelled: nothing is lost. With fewer than ``n_wanted`` items it waits for more,
        until a quarter of the capacity is there, ``linger_s`` is over or ``hurry`` is called.
        """
        while not self._items:
            if self.is_closed:
                return []
            self.refill()  # for producers that found it full just before a ``take_now``
            self.take_now()  # nothing; the last items are done with
            self._reader = reader = anyio.Event()
            self.credit = 0  # so that the next producer looks, and wakes the consumer
            try:
                await reader.wait()
            finally:
                self._reader = None
        n_more = min(n_wanted, self.capacity // 4) - len(self)
        if n_more > 0 and not (self._is_hurried or self.is_closed):
            await self._linger(n_more)
        items = self.take_now()
        self.refill()
        return items

    def take_now(self) -> list[T]:
        """Take all items without waiting; if ``n_waiting``, call ``refill`` on the event loop then.

        For the consumer, from any thread, while no ``take`` runs.
        """
        self._is_hurried = False
        with self._taking:
            items = self._items[:]
            del self._items[: len(items)]  # what was put meanwhile, on the loop, lies behind them
            if not self._items:  # single items are not looked at one by one because of an earlier batch
                self._has_sizes = False
            self._n_consumed, self._taken = self._consumed(), items
        return items

    async def _linger(self, n_more: int) -> None:
        """Wait for more items; the producer behind them wakes the consumer."""
        self._reader = reader = anyio.Event()
        self.credit = n_more
        try:
            with anyio.move_on_after(self._linger_s):
                await reader.wait()
        finally:
            self._reader = None

    def hurry(self) -> None:
        """Let the consumer take what is there, without waiting for more."""
        self._is_hurried = True
        if self._items:
            self._rouse()

    def refill(self) -> None:
        """Let producers continue, after ``take_now``."""
        self._round = self._called_first
        self._refill()

    def close(self, error: Callable[[], Exception] = anyio.ClosedResourceError) -> None:
        """Accept nothing more; the items that are in can still be taken.

        Args:
            error: makes the error of each ``put`` from now on, also of waiting ones: one each, since an
                exception that many tasks raise would collect all their tracebacks.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self._error = error
        self.credit = 0
        self._set(len(self._waiting))
        if self._reader is not None:
            self._reader.set()

    def _room(self) -> int:
        return self.capacity - (len(self) if self._has_sizes else len(self._items))

    def _rouse(self) -> bool:
        """Wake the consumer, if it waits; return whether there is credit now."""
        if self._reader is None or self.is_closed:
            return False
        self._reader.set()
        self._reader = None
        self._refill()
        return self.credit > 0

    def _grant(self, most: int) -> None:
        """Grant up to ``most`` items of credit, as far as there is room."""
        self.credit = max(self.credit, min(most, self._room()))
        if self._reader is not None:
            self._reader.set()
            self._reader = None

    def _refill(self) -> None:
        """Grant credit: to waiting producers first, otherwise to the next caller."""
        if self.is_closed or self._called:
            return
        self.credit = 0
        if self._waiting:
            self._call()
        elif self._reader is None:
            self.credit = min(self._yield_every, self._room())

    def _call(self) -> None:
        """Call the producers of the next round, those that waited longest first."""
        n_called = min(self._round, len(self._waiting), self._room())
        if n_called > 0:  # an item of a large size may have taken more than the room
            self._round *= 2
            self._share = max(1, min(self._yield_every, self._room() // n_called))
            self._set(n_called)

    def _set(self, n_events: int) -> None:
        """Call the producers that waited longest."""
        for event in list(islice(self._waiting, n_events)):
            event.set()  # first: should the rest be interrupted, that producer runs and does it
            self._called.add(event)
            del self._waiting[event]

    def _leave(self, event: anyio.Event) -> None:
        """Forget a producer that no longer waits."""
        self._waiting.pop(event, None)
        self._called.discard(event)

    async def _admit(self) -> None:
        """Wait until there is credit for at least one item of the caller."""
        self._raise_if_closed()
        if not self._waiting and not self._called and self._room() > 0:
            await checkpoint()  # a turn is due
            self._raise_if_closed()
            if not self._waiting and not self._called and self._room() > 0:
                self._grant(self._yield_every)
                return
        comes_back = False
        while True:
            event = anyio.Event()
            try:
                self._waiting[event] = None
                if comes_back:
                    self._waiting.move_to_end(event, last=False)
                await event.wait()
                self._leave(event)
                self._raise_if_closed()
                if self._room() > 0:
                    self._grant(self._share)
                    if not self._called and self._room() > self.credit:
                        self._call()
                    return
            except BaseException:
                self._leave(event)
                if event.is_set():  # it was called and will put nothing: the next ones' turn
                    self._refill()
                raise
            comes_back = True  # those called before it were many, or had much to put

    def _raise_if_closed(self) -> None:
        if self.is_closed:
            raise self._error()
