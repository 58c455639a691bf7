"""A training step by step: actors wait at a gate, and each step asked for lets one of them through.

With as many steps allowed as there are actors all of them are under way at the same time; with one at a time
a step is done only when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from stoker.actors import StepMetrics
from stoker.types import ActorId

__all__ = ["StepGate"]


class StepGate:
    """Lets actors do as many steps as were asked for, and keeps what came of them in order.

    Used on one event loop, by any number of actors and one who asks.

    Args:
        remaining: how many more steps the session will accept.
    """

    def __init__(self, remaining: Callable[[], float]) -> None:
        self._remaining = remaining
        self._free = 0  # steps that were asked for and that no actor has begun
        self._under_way: set[ActorId] = set()
        self._done: deque[StepMetrics] = deque()
        self._changed = anyio.Event()
        self._is_shut = self._is_over = False

    @property
    def n_ahead(self) -> int:
        """Steps that were asked for and have not been fetched."""
        return self._free + len(self._under_way) + len(self._done)

    # Actors ---------------------------------------------------------------------------------------

    async def enter(self, actor_id: ActorId) -> bool:
        """Wait until this actor may do a step; False: there will be no more."""
        while not self._is_shut and actor_id not in self._under_way:
            if self._free:
                self._free -= 1
                self._under_way.add(actor_id)
            else:
                await self._changed.wait()
        return not self._is_shut

    def give_back(self, actor_id: ActorId) -> None:
        """The step that this actor was granted will not come: another actor may do it."""
        if actor_id in self._under_way:
            self._under_way.discard(actor_id)
            self._free += 1
            self._wake()

    async def tell(self, step: StepMetrics) -> None:
        """Take in what came of an actor's step."""
        self._under_way.discard(step.actor_id)
        self._done.append(step)
        self._wake()

    # Who asks -------------------------------------------------------------------------------------

    def allow(self, n: int) -> None:
        """Let so many more steps be done, but no more than the session will accept."""
        under_way = self._free + len(self._under_way)
        n = int(min(n, self._remaining() - under_way))
        if n > 0:
            self._free += n
            self._wake()

    async def fetch(self) -> StepMetrics | None:
        """The next step that was done; None: there will be none."""
        while not self._done:
            if self._is_over or not (self.n_ahead or self._is_shut):
                return None
            await self._changed.wait()
        return self._done.popleft()

    def shut(self) -> None:
        """Let no actor through any more; steps under way are still reported."""
        self._is_shut = True
        self._wake()

    def close(self) -> None:
        """There are no actors any more: no further steps will be reported."""
        self._is_shut = self._is_over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
