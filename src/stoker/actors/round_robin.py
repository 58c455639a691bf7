"""Taking turns: with lockstep one actor steps at a time, in the order of their ids' places.

What an actor does with its turn is one step, with all that belongs to it: the beginning of an episode before
it, the end of one behind it. So the order of events, and with it the training, does not depend on time.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from stoker.session import ResumePoint
from stoker.types import ActorId

__all__ = ["RoundRobin", "first_place"]


class RoundRobin:
    """Whose turn it is, round and round among ``count`` actors.

    Args:
        count: how many take turns.
        first: the place of the first.
    """

    def __init__(self, count: int, first: int) -> None:
        self._present = dict.fromkeys(range(count))
        self._events = [anyio.Event() for _ in range(count)]
        self._now = first
        self._events[first].set()

    async def take(self, place: int) -> None:
        """Wait for the turn of this place; at once, if it is that already."""
        await self._events[place].wait()

    def pass_on(self, place: int) -> None:
        """End the turn of this place, if it has it."""
        if self._now == place and self._events[place].is_set():
            self._events[place] = anyio.Event()
            self._give(place)

    def leave(self, place: int) -> None:
        """Take part no more."""
        del self._present[place]
        self.pass_on(place)

    def _give(self, after: int) -> None:
        waiting = [place for place in self._present if place > after] or list(self._present)
        if waiting:
            self._now = waiting[0]
            self._events[waiting[0]].set()


def first_place(ids: Sequence[ActorId], turn: ResumePoint) -> int:
    """The place of the actor that goes on, where a resumed training stood.

    The last to step has had its turn, unless something belongs to it still: the end of its episode, or the
    step after the beginning of one.
    """
    last = turn.last_actor
    if last is None or last not in ids:
        return 0
    place = list(ids).index(last)
    running = turn.episodes.get(last)
    is_over = running is None or (bool(running.steps) and not running.is_done)
    return (place + 1) % len(ids) if is_over else place
