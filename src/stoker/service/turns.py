"""The order of messages: those that share an actor are taken one after the other, as they came.

A message of several actors queues up for all of them at once, without waiting in between, so that no two
messages can wait for each other. A message whose caller gave up lets those behind it wait for the messages
before it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Protocol

from stoker.latch import Latch


class Queued(Protocol):
    """What messages queue up for.

    Attributes:
        last_turn: of the message that came last; None: there is none in flight.
        n_turns: how many messages are in flight.
    """

    last_turn: Turn | None
    n_turns: int


class Turn:
    """The turn of one message: ``wait`` for it, and ``end`` it in any case."""

    __slots__ = ("_latch", "_queued", "behind", "is_over")

    def __init__(self, queued: Collection[Queued], behind: list[Turn]) -> None:
        self._queued = queued
        self._latch: Latch | None = None
        self.behind: list[Turn] = behind
        """The turns that come before."""
        self.is_over: bool = False

    async def wait(self) -> None:
        """Return when all messages before this one are over. Cancelled: call ``end`` all the same."""
        behind = self.behind
        while behind:
            before = behind[-1]
            if not before.is_over:
                await before.over()
            behind.pop()
            behind.extend(before.behind)  # it gave up before its turn had come

    def over(self) -> Awaitable[None]:
        """What to await until this turn is over."""
        self._latch = self._latch or Latch()
        return self._latch.wait()

    def end(self) -> None:
        """Let the next ones have their turn."""
        self.is_over = True
        for queued in self._queued:
            queued.n_turns -= 1
            if not queued.n_turns:
                queued.last_turn = None
        if self._latch is not None:
            self._latch.set()


def queue_up(queued: Collection[Queued]) -> Turn:
    """Queue up for all of these, each given once."""
    turn = Turn(queued, [])
    for one in queued:
        if one.last_turn is not None:
            turn.behind.append(one.last_turn)
        one.last_turn = turn
        one.n_turns += 1
    return turn
