"""Which actors may begin an action now: a limit on staleness.

No action uses a policy that will be too old at its learning step. An action in flight holds the learner's
progress: until its transition has come, no more transitions may be begun than the learner can take without
leaving that action's policy too far behind. So fast actors wait for slow ones, and nothing is thrown away
(bounded staleness, Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter
Server", section 3).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

import anyio

from stoker.errors import ConfigError
from stoker.types import ActorId

_logger = logging.getLogger("stoker.session")


class LearnerProgress(NamedTuple):
    """The progress of a learner.

    Attributes:
        total_steps: transitions that it has consumed.
        opt_steps: optimization steps that it has done.
        policy_version: the version of the newest published policy.
    """

    total_steps: int
    opt_steps: int
    policy_version: int


class Pacing:
    """Which actors may begin an action now. Used on the event loop.

    Args:
        limit: the most optimization steps that a transition may lag; None: no limit, nothing is counted.
        opt_interval: environment steps per optimization step, at least 1 with a limit.
        progress: of the learner.
        accepted: how many transitions were accepted, those in the queue included.
        lost_after_s: an action without an outcome for this long no longer holds back others.
        is_over: whether new actions will not be learned any more: then none waits.
    """

    def __init__(
        self,
        limit: int | None,
        opt_interval: int,
        progress: Callable[[], LearnerProgress],
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
        self._is_watched = False

    def allows(self, version: int | None = None, n_actions: int = 1) -> bool:
        """Whether actions may begin now.

        Args:
            version: the version of the policy that would choose them; None: of the newest published one.
            n_actions: how many would begin together.
        """
        if self.limit is None:
            return True
        now, interval = self._progress(), self._interval
        version = now.policy_version if version is None else version
        oldest = min((begun[0] for begun in self._in_flight.values()), default=version)
        # If all others come first, this many transitions are consumed before the last of these.
        before_last = self._accepted() + len(self._in_flight) + n_actions - 1
        expected = now.opt_steps + max(0, before_last // interval - now.total_steps // interval)
        return expected - min(oldest, version) <= self.limit

    async def begin(self, actor_id: ActorId, version: int | None = None) -> bool:
        """Wait until an action may begin, and note that it has begun.

        Args:
            actor_id: who acts; an earlier action of this actor counts as abandoned.
            version: as for ``allows``.

        Returns:
            False: that version is too old, and the action that has begun needs the newest one.
        """
        return await self.begin_many((actor_id,), version)

    def check_together(self, n_actors: int, actors: str = "actors") -> None:
        """Raise ``ConfigError`` if this many actors that act at once might wait forever for the limit."""
        if self.limit is None:
            return
        lag = -(-(n_actors - 1) // self._interval)  # rounded up: an optimization step may come at any of them
        if lag > self.limit:
            raise ConfigError(
                f"max_staleness={self.limit}: {n_actors} {actors} act at once, so the last of their "
                f"transitions may lag by {lag} optimization steps; allow that many, or raise opt_interval"
            )

    async def begin_many(self, actor_ids: Collection[ActorId], version: int | None = None) -> bool:
        """Begin one action of each actor, all at once, as ``begin`` does for one.

        Raises:
            ConfigError: This many actions at once may never be within the limit.
        """
        if self.limit is None:
            return True
        self.check_together(len(actor_ids))
        for actor_id in actor_ids:
            self.end(actor_id)
        is_fresh = True
        while not (self.allows(version, len(actor_ids)) or self._is_over()):
            if version is not None and self.allows(None, len(actor_ids)):
                is_fresh, version = False, None
                break
            with anyio.move_on_after(self._lost_after_s / 4):
                await self._changed.wait()
            self._forget_lost()
        version = self._progress().policy_version if version is None else version
        self._in_flight.update(dict.fromkeys(actor_ids, (version, time.monotonic())))
        return is_fresh

    def end(self, actor_id: ActorId) -> None:
        """Note that the outcome of the actor's action was accepted, or will not come."""
        if self._in_flight.pop(actor_id, None) is not None:
            self.moved()

    def moved(self) -> None:
        """Let waiting actors look again: the learner has progressed, has published, or has ended."""
        if self.limit is not None or self._is_watched:
            self._is_watched = False
            self._changed.set()
            self._changed = anyio.Event()

    async def next_move(self) -> None:
        """Wait until the learner has progressed, has published, or has ended."""
        self._is_watched = True
        await self._changed.wait()

    def _forget_lost(self) -> None:
        now = time.monotonic()
        for actor_id, (_, begun_at) in list(self._in_flight.items()):
            if now - begun_at >= self._lost_after_s:
                del self._in_flight[actor_id]
                _logger.warning(
                    "actor %r: the outcome of its action has not come for %.0f s; others do not wait for it",
                    actor_id,
                    now - begun_at,
                )
