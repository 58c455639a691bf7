"""From an observation to an action: which actor may begin one now, and the forward pass that actors share.

Pacing keeps a limit on staleness: no action uses a policy that will be too old at its learning step. An
action in flight holds the learner's progress: until its transition has come, no more transitions may be
begun than the learner can take without leaving that action's policy too far behind. So fast actors wait for
slow ones, and nothing is thrown away (bounded staleness, Ho et al. 2013, "More Effective Distributed ML via a
Stale Synchronous Parallel Parameter Server", section 3).

Inference batches: ``act`` calls that wait at the same time share one forward pass, always on the last
published weights. The pass runs as soon as every task that was ready has had its turn, so that actors in step
share it; on the event loop while it is short, and in its own thread when it is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import anyio

from stoker.errors import ConfigError
from stoker.session.policies import PolicySource
from stoker.threads import DedicatedThread
from stoker.types import ActMode, ActorId

__all__ = ["Inference", "LearnerProgress", "Pacing"]

logger = logging.getLogger("stoker.session")

SLOW_PASS_S = 2e-3
"""A forward pass that computes longer than this holds the event loop too long."""
SLOW_PASSES = 3
"""This many move inference to its thread; the first pass alone pays for lazy initialization."""

_Answer = tuple[Sequence[Any], Sequence[Any] | None, int]


class LearnerProgress(NamedTuple):
    """Where a learner stands.

    Attributes:
        total_steps: transitions that it has consumed.
        opt_steps: optimization steps that it has done.
        published: the optimization steps behind the newest policy that is handed out.
    """

    total_steps: int
    opt_steps: int
    published: int


class Pacing:
    """Which actors may begin an action now. Used on the event loop.

    Args:
        limit: the most optimization steps that a transition may lag; None: no limit, nothing is counted.
        opt_interval: environment steps per optimization step, at least 1 with a limit.
        progress: where the learner stands.
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

    def allows(self, version: int | None = None, n_actions: int = 1) -> bool:
        """Whether actions may begin now.

        Args:
            version: the optimization steps behind the policy that would choose them; None: the newest
                published one.
            n_actions: how many would begin together.
        """
        if self.limit is None:
            return True
        now, interval = self._progress(), self._interval
        behind = now.published if version is None else version
        oldest = min((begun[0] for begun in self._in_flight.values()), default=behind)
        # If all others come first, this many transitions are consumed before the last of these.
        before_last = self._accepted() + len(self._in_flight) + n_actions - 1
        expected = now.opt_steps + max(0, before_last // interval - now.total_steps // interval)
        return expected - min(oldest, behind) <= self.limit

    async def begin(self, actor_id: ActorId, version: int | None = None) -> bool:
        """Wait until an action may begin, and note that it has begun.

        Args:
            actor_id: who acts; an earlier action of this actor counts as abandoned.
            version: as for ``allows``.

        Returns:
            False: nothing has begun, because that version is too old and the newest is not: act with that.
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
        while not (self.allows(version, len(actor_ids)) or self._is_over()):
            if version is not None and self.allows(None, len(actor_ids)):
                return False
            with anyio.move_on_after(self._lost_after_s / 4):
                await self._changed.wait()
            self._forget_lost()
        behind = self._progress().published if version is None else version
        self._in_flight.update(dict.fromkeys(actor_ids, (behind, time.monotonic())))
        return True

    def end(self, actor_id: ActorId) -> None:
        """Note that the outcome of the actor's action was accepted, or will not come."""
        if self._in_flight.pop(actor_id, None) is not None:
            self.moved()

    def moved(self) -> None:
        """Let waiting actors look again: the learner has progressed, has published, or has ended."""
        if self.limit is not None:
            self._changed.set()
            self._changed = anyio.Event()

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


class _Batch:
    """The callers of one forward pass; all of them wait for one event."""

    __slots__ = ("actions", "answered", "error", "observations", "opt_steps", "policy_extras")

    def __init__(self) -> None:
        self.observations: list[Any] = []
        self.answered = anyio.Event()
        self.actions: Sequence[Any] = ()
        self.policy_extras: Sequence[Any] | None = None
        self.opt_steps = 0  # behind the policy that answered
        self.error: Callable[[], Exception] | None = None


class Inference:
    """Collects observations and answers them with actions.

    Args:
        policies: the source of the policy to act with.
        place: ``"inline"``, ``"thread"`` or ``"auto"``.
    """

    def __init__(self, policies: PolicySource, place: str) -> None:
        self._policies = policies
        self._in_thread = place == "thread"
        self._adaptive = place == "auto"
        self._n_long = 0  # passes that were slow by the clock
        self._n_slow = 0  # and by the processor's time
        self._thread = DedicatedThread("stoker-inference")
        self._exploring: _Batch | None = None  # for a pass to begin
        self._exploiting: _Batch | None = None
        self._taken: list[tuple[ActMode, _Batch]] = []  # for the present passes to end
        self._wake = anyio.Event()
        self._closed: Callable[[], Exception] | None = None
        self.n_passes = 0
        """Forward passes so far."""
        self.n_actions = 0
        """Actions that they gave."""
        self.busy_s = 0.0
        """Seconds spent in them."""

    @property
    def since(self) -> float | None:
        """When the pass that its thread is computing began, in monotonic seconds; None: there is none."""
        return self._thread.since

    @property
    def n_waiting(self) -> int:
        """Callers that wait for a pass, or for the present one to end."""
        return sum(len(batch.observations) for _, batch in [*self._taken, *self._waiting()])

    async def ask(self, observation: Any, mode: ActMode) -> tuple[Any, Any, int]:
        """The action for one observation, its policy extras, and the optimization steps behind its policy.

        Cancelled: the observation may still take part in the pass.
        """
        batch = self._exploring if mode is ActMode.EXPLORE else self._exploiting
        if batch is None:
            batch = self._new_batch(mode)
        place = len(batch.observations)
        batch.observations.append(observation)
        await batch.answered.wait()
        if batch.error is not None:
            raise batch.error()
        extras = batch.policy_extras
        return batch.actions[place], None if extras is None else extras[place], batch.opt_steps

    async def ask_many(self, observations: Sequence[Any], mode: ActMode) -> _Answer:
        """The same for several observations, in one pass; the request costs no more than for one."""
        batch = self._exploring if mode is ActMode.EXPLORE else self._exploiting
        if batch is None:
            batch = self._new_batch(mode)
        first = len(batch.observations)
        batch.observations.extend(observations)
        end = first + len(observations)
        await batch.answered.wait()
        if batch.error is not None:
            raise batch.error()
        extras = batch.policy_extras
        return batch.actions[first:end], None if extras is None else extras[first:end], batch.opt_steps

    def _new_batch(self, mode: ActMode) -> _Batch:
        """Begin the batch that the next pass answers; once closed there is none."""
        if self._closed is not None:
            raise self._closed()
        self._wake.set()  # first: an interruption must not leave a batch that is never answered
        batch = _Batch()
        if mode is ActMode.EXPLORE:
            self._exploring = batch
        else:
            self._exploiting = batch
        return batch

    def close(self, error: Callable[[], Exception]) -> None:
        """Fail waiting and later callers, each with its own error."""
        self._closed = error
        for _, batch in [*self._taken, *self._waiting()]:
            if not batch.answered.is_set():
                batch.error = error
                batch.answered.set()
        self._taken.clear()
        self._exploring = self._exploiting = None
        self._thread.close()

    async def run(self) -> None:
        """Answer until cancelled, or until the policy raises; its callers then get the error of ``close``."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            self._taken = self._waiting()
            self._exploring = self._exploiting = None
            while self._taken:
                mode, batch = self._taken[0]
                if self._in_thread:
                    answer = await self._thread.run(self._act, batch.observations, mode)
                else:
                    answer = self._act(batch.observations, mode)
                if not batch.answered.is_set():
                    batch.actions, batch.policy_extras, batch.opt_steps = answer
                    batch.answered.set()
                del self._taken[:1]

    def _waiting(self) -> list[tuple[ActMode, _Batch]]:
        modes = ((ActMode.EXPLORE, self._exploring), (ActMode.EXPLOIT, self._exploiting))
        return [(mode, batch) for mode, batch in modes if batch is not None]

    def _act(self, observations: Sequence[Any], mode: ActMode) -> _Answer:
        started = time.perf_counter()
        # Processor time decides: a short pass may wait long for the interpreter lock, in a thread, too. It
        # costs to ask for it, so that is done once a pass has taken long by the clock on the wall.
        cpu_started = time.thread_time() if self._adaptive and self._n_long else 0.0
        policy, ticket = self._policies.acquire()
        opt_steps = self._policies.opt_steps(ticket)
        try:
            actions, extras = policy.act(observations, mode)
        finally:
            self._policies.release(ticket)
        elapsed_s = time.perf_counter() - started
        if self._adaptive and elapsed_s > SLOW_PASS_S:
            self._n_long += 1
            if cpu_started and time.thread_time() - cpu_started > SLOW_PASS_S:
                self._n_slow += 1
                self._in_thread = self._n_slow >= SLOW_PASSES
        self.n_passes += 1
        self.n_actions += len(observations)
        self.busy_s += elapsed_s
        if len(actions) != len(observations) or (extras is not None and len(extras) != len(actions)):
            raise ConfigError(
                f"the policy answered {len(observations)} observations with {len(actions)} actions"
                + ("" if extras is None else f" and {len(extras)} policy extras")
            )
        return actions, extras, opt_steps
