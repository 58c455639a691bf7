"""Group commits: what was accepted becomes durable, for all streams with one flush.

A flush begins ``flush_interval_s`` after the first change behind the last one, or when a caller waits. There
is one at a time: callers that come while it runs share the next one. Actors that wait for each step come back
together after a flush, so the next one gives as many of them as there were a moment to come. The cost of a
flush does not depend on how many actors are known, because only streams that have moved are listed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from stoker.errors import SessionClosed, SessionError
from stoker.latch import Latch


class CanBeDurable(Protocol):
    """A stream of records.

    Attributes:
        durable: the number of its last record that is on disk.
        is_dirty: whether it is listed for the next flush.
    """

    durable: int
    is_dirty: bool

    @property
    def accepted(self) -> int:
        """The number of its last accepted record."""
        ...


class GroupCommit:
    """Makes streams durable; used on the event loop.

    Args:
        flush: returns when everything accepted before is on disk.
        interval_s: how long a change waits at most for the next flush to begin.
        clock: the time in seconds.
    """

    def __init__(
        self,
        flush: Callable[[], Awaitable[None]],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flush = flush
        self._clock = clock
        self._interval_s = interval_s
        self._dirty: list[CanBeDurable] = []
        self._changed = anyio.Event()
        self._wanted = anyio.Event()  # by one caller
        self._gathered = anyio.Event()  # as many callers as the last flush had
        self._n_waiting = self._n_expected = 0
        self._flush_s = 0.0  # how long the last one took
        self._next = Latch()  # set when the next flush is over
        self._error: SessionError | None = None
        self.n_commits: int = 0
        """Flushes so far."""

    def note(self, stream: CanBeDurable) -> None:
        """A stream has accepted a record."""
        if not stream.is_dirty:
            stream.is_dirty = True
            if not self._dirty:
                self._changed.set()
            self._dirty.append(stream)

    async def wait(self) -> None:
        """Return when everything that was noted before is durable. Cancelled: it becomes so all the same.

        Raises:
            SessionError: It will not become so, because the session has ended.
        """
        self._n_waiting += 1
        self._changed.set()
        self._wanted.set()
        if self._n_waiting >= self._n_expected:
            self._gathered.set()
        await self._next.wait()
        if self._error is not None:
            raise self._error

    async def run(self) -> None:
        """Commit until cancelled, or until the session ends; callers who wait then get its error."""
        try:
            while True:
                await self._changed.wait()
                with anyio.move_on_after(self._interval_s):
                    await self._wanted.wait()
                if self._n_waiting:
                    with anyio.move_on_after(self._flush_s / 2):
                        await self._gathered.wait()
                await self._commit()
        except SessionError as error:
            self._error = error
        finally:
            self._error = self._error or SessionClosed("flush", entered=True)
            self._next.set()

    async def _commit(self) -> None:
        dirty, self._dirty = self._dirty, []
        done, self._next = self._next, Latch()
        self._changed, self._wanted, self._gathered = anyio.Event(), anyio.Event(), anyio.Event()
        n_waiting, self._n_waiting = self._n_waiting, 0
        began = self._clock()
        accepted = [stream.accepted for stream in dirty]
        for stream in dirty:
            stream.is_dirty = False
        try:
            await self._flush()
        except BaseException:
            self._next.set()
            self._next = done  # whose callers ``run`` tells
            raise
        for stream, number in zip(dirty, accepted, strict=True):
            stream.durable = max(stream.durable, number)
        self._n_expected, self._flush_s = n_waiting, self._clock() - began
        self.n_commits += 1
        done.set()
