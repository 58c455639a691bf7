"""Messages from any thread to one task, in order."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Generic, TypeVar

import anyio

from stoker.threads import CallSoon, call_soon_here

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Any thread posts, one task takes; nobody polls. It is unbounded.

    Posting never waits. It wakes an event loop only while the task waits there, so that a task that looks
    into its mailbox between two steps costs those who post no more than an append.
    """

    def __init__(self) -> None:
        self._messages: deque[T] = deque()
        self._waiting: tuple[CallSoon, anyio.Event] | None = None

    def post(self, message: T) -> None:
        """Put a message in; safe from any thread, and without effect where nobody takes any more."""
        self._messages.append(message)
        waiting = self._waiting
        if waiting is not None:
            call_soon, arrived = waiting
            with contextlib.suppress(RuntimeError):  # that loop has ended: nobody is left to hear of it
                call_soon(arrived.set)

    def take_now(self) -> T | None:
        """The next message if there is one."""
        return self._messages.popleft() if self._messages else None

    async def take(self) -> T:
        """The next message. Cancelled: none is lost."""
        while not self._messages:
            arrived = anyio.Event()
            self._waiting = (call_soon_here(), arrived)
            try:
                # ``post`` appends first and then looks for a waiting task; here the order is reversed.
                if not self._messages:
                    await arrived.wait()
            finally:
                self._waiting = None
        return self._messages.popleft()
