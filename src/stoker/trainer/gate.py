"""A training step by step: actors wait at a gate, and each requested step lets one of them pass.

With as many steps allowed as there are actors, all play at the same time; with one at a time, a step is done
only when it is requested.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from stoker.actors import StepMetrics
from stoker.errors import SessionError
from stoker.types import ActorId


class StepGate:
    """Lets actors do as many steps as were requested, and keeps the outcomes in order. For one event loop.

    Args:
        remaining: the number of further steps that the session accepts.
    """

    def __init__(self, remaining: Callable[[], float]) -> None:
        self._remaining = remaining
        self._free = 0  # steps that were asked for and that no actor has begun
        self._under_way: set[ActorId] = set()
        self._done: deque[StepMetrics] = deque()
        self._changed = anyio.Event()
        self._is_shut = self._is_over = self._is_fetching = False

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
        """Let another actor do the step that this actor was granted and will not do."""
        if actor_id in self._under_way:
            self._under_way.discard(actor_id)
            self._free += 1
            self._wake()

    async def add(self, step: StepMetrics) -> None:
        """Keep the outcome of an actor's step until it is fetched."""
        self._under_way.discard(step.actor_id)
        self._done.append(step)
        self._wake()

    # The caller -----------------------------------------------------------------------------------

    async def fetch(self, ahead: int) -> StepMetrics | None:
        """Return the next step that was done; None: there will be none.

        Args:
            ahead: how many steps may be requested and not yet fetched, this one included. Never more are
                requested than the session accepts.

        Raises:
            SessionError: Another call waits for a step.
        """
        if self._is_fetching:
            raise SessionError("another call waits for a step already: steps come one after the other")
        n = min(ahead - len(self._done), self._remaining()) - self._free - len(self._under_way)
        if n > 0:
            self._free += int(n)
            self._wake()
        self._is_fetching = True
        try:
            while not self._done:
                if self._is_over or not (self._free or self._under_way or self._is_shut):
                    return None
                await self._changed.wait()
            return self._done.popleft()
        finally:
            self._is_fetching = False

    def shut(self) -> None:
        """Let no further actor pass; steps in progress are still reported."""
        self._is_shut = True
        self._wake()

    def close(self) -> None:
        """End: all actors have ended, and no further step will be reported."""
        self._is_over = True
        self.shut()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
