"""A limit on staleness, kept by pacing: nobody acts on a policy that would be too old when it is learned.

An action in flight holds the learner's progress: until its transition has come, no more transitions may be
begun than the learner can take without leaving that action's policy too far behind. So fast actors wait for
slow ones, and nothing is thrown away (bounded staleness, Ho et al. 2013, "More Effective Distributed ML via a
Stale Synchronous Parallel Parameter Server", section 3).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio
import msgspec

from stoker.types import ActorId

__all__ = ["Pace", "Progress"]

logger = logging.getLogger("stoker.session")


class Progress(msgspec.Struct, frozen=True):
    """Where a learner stands.

    Attributes:
        total_steps: transitions that it has consumed.
        opt_steps: optimisation steps that it has done.
        published: the optimisation steps behind the newest policy that is handed out.
    """

    total_steps: int
    opt_steps: int
    published: int


class Pace:
    """Who may begin an action now. Used on the event loop.

    Args:
        limit: the most optimisation steps that a transition may lag; None: no limit, nothing is counted.
        opt_interval: environment steps per optimisation step.
        progress: where the learner stands.
        accepted: how many transitions were accepted, those in the queue included.
        lost_after_s: an action whose outcome has not come for so long holds nobody any more.
        is_over: whether nothing that is begun now will be learned: then nobody waits.
    """

    def __init__(
        self,
        limit: int | None,
        opt_interval: int,
        progress: Callable[[], Progress],
        accepted: Callable[[], int],
        lost_after_s: float,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.limit = limit
        self._interval = opt_interval
        self._progress = progress
        self._accepted = accepted
        self._lost_after_s = lost_after_s
        self._is_over = is_over
        self._in_flight: dict[ActorId, tuple[int, float]] = {}  # policy version, and when it began
        self._changed = anyio.Event()

    def allows(self, version: int | None = None) -> bool:
        """Whether an action may be begun now.

        Args:
            version: the optimisation steps behind the policy that would choose it; None: the newest one
                that is handed out.
        """
        if self.limit is None:
            return True
        now = self._progress()
        behind = now.published if version is None else version
        oldest = min((begun[0] for begun in self._in_flight.values()), default=behind)
        before_it = self._accepted() + len(self._in_flight)  # at most so many transitions, if all come first
        return self._expected(before_it, now) - min(oldest, behind) <= self.limit

    async def begin(self, actor_id: ActorId, version: int | None = None) -> bool:
        """Wait until an action may be begun, and note that it was.

        Args:
            actor_id: who acts; an action of it that is still noted is taken as given up.
            version: as for ``allows``.

        Returns:
            False: nothing was begun, for that version is too old and the newest one is not: act with that.
        """
        if self.limit is None:
            return True
        self.end(actor_id)
        while not (self.allows(version) or self._is_over()):
            if version is not None and self.allows():
                return False
            with anyio.move_on_after(self._lost_after_s / 4):
                await self._changed.wait()
            self._forget_lost()
        behind = self._progress().published if version is None else version
        self._in_flight[actor_id] = (behind, time.monotonic())
        return True

    def end(self, actor_id: ActorId) -> None:
        """The outcome of the actor's action was accepted, or will not come."""
        if self._in_flight.pop(actor_id, None) is not None:
            self.moved()

    def moved(self) -> None:
        """The learner has come further, has published, or is at its end."""
        if self.limit is not None:
            self._changed.set()
            self._changed = anyio.Event()

    def _expected(self, n_before: int, now: Progress) -> int:
        """The optimisation steps, at most, when that many transitions have been consumed."""
        if not self._interval:
            return now.opt_steps
        return now.opt_steps + max(0, n_before // self._interval - now.total_steps // self._interval)

    def _forget_lost(self) -> None:
        now = time.monotonic()
        for actor_id, (_, begun_at) in list(self._in_flight.items()):
            if now - begun_at >= self._lost_after_s:
                del self._in_flight[actor_id]
                logger.warning(
                    "actor %r: the outcome of its action has not come for %.0f s; others do not wait for it",
                    actor_id,
                    now - begun_at,
                )
