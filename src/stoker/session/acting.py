"""From an observation to an action: when an actor may act, and the forward pass.

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

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import anyio
import numpy as np
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from stoker.errors import ConfigError
from stoker.latch import Latch
from stoker.session.publishing import Answer
from stoker.session.timing import COMPUTING, GATHERING, IDLE, INFERENCE_STATES, OFFLOADED
from stoker.telemetry import Buckets, StateClock
from stoker.threads import DedicatedThread, on_asyncio
from stoker.types import ActMode, ActorId

__all__ = ["Inference", "LearnerProgress", "Pacing"]

logger = logging.getLogger("stoker.session")

SLOW_PASS_S = 2e-3
SLOW_PASS_NS = int(SLOW_PASS_S * 1e9)
"""A forward pass that computes longer than this holds the event loop too long."""
SHORT_PASS_NS = 100_000
"""A switch to another task costs less than a fifth of a pass that is longer than this."""
TURN_S = 1e-3
"""How long callers of passes over arrays may keep other tasks waiting before one of them suspends."""
_LATENCIES, _SIZES = range(16, 33, 2), range(10)
"""The bounds of what is measured of passes, as powers of two: nanoseconds, and actions."""
SLOW_PASSES = 3
"""This many move inference to its thread; the first pass alone pays for lazy initialization."""


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
        version = self._progress().policy_version if version is None else version
        self._in_flight.update(dict.fromkeys(actor_ids, (version, time.monotonic())))
        return True

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
                logger.warning(
                    "actor %r: the outcome of its action has not come for %.0f s; others do not wait for it",
                    actor_id,
                    now - begun_at,
                )


class _Batch:
    """The callers of one forward pass; all of them wait for one event."""

    __slots__ = ("actor_ids", "answer", "answered", "error", "mode", "observations", "since")

    def __init__(self, mode: ActMode, since: int) -> None:
        self.mode = mode
        self.since = since  # in nanoseconds of ``time.perf_counter_ns``
        self.observations: list[Any] = []
        self.actor_ids: list[ActorId] = []
        self.answered = Latch()
        self.answer: Answer = ((), None, 0)
        self.error: Callable[[], Exception] | None = None


class Inference:
    """Collects observations and answers them with actions.

    Args:
        act: one forward pass for the observations of these actors.
        place: where passes run: ``"inline"``, ``"thread"`` or ``"auto"``.
    """

    def __init__(
        self, act: Callable[[Sequence[Any], ActMode, Sequence[ActorId]], Answer], place: str
    ) -> None:
        self._act = act
        self._in_thread = place == "thread"
        self._adaptive = place == "auto"
        self._took_ns = 0  # by the last pass
        self._was_long = False  # whether it was slow by the clock
        self._n_slow = 0  # passes that were slow by the processor's time, too
        self._thread = DedicatedThread("stoker-inference")
        self._forming: list[_Batch] = []  # at most one of each mode, for the next passes
        self._taken: list[_Batch] = []  # for the present pass, and those that follow it at once
        self._wake = anyio.Event()
        self._turned_at = -1.0  # when other tasks last had their turn
        self._holds_loop = True  # whether callers may have computed passes in their tasks since
        self._call_soon: Callable[[Callable[[], None]], object] | None = (
            None  # in the next turn; trio has none
        )
        self._closed: Callable[[], Exception] | None = None
        self._failure: Exception | None = None  # of a pass in the caller's task
        self.n_passes = self.n_actions = 0
        """Forward passes so far, and the actions that they chose."""
        self.clock = StateClock(INFERENCE_STATES)
        """What it is doing."""
        # By powers of two, which costs a pass a third of what ``Buckets.add`` does.
        self._latencies, self._latency_ns, self._sizes = [0] * 65, 0, [0] * 65

    @property
    def since(self) -> float | None:
        """When the pass that its thread is computing began, in monotonic seconds; None: there is none."""
        return self._thread.since

    @property
    def latency_ns(self) -> Buckets:
        """From the first question to the answer, by pass."""
        return Buckets.of_powers(self._latencies, _LATENCIES, self._latency_ns)

    @property
    def batch_sizes(self) -> Buckets:
        """Actions per pass."""
        return Buckets.of_powers(self._sizes, _SIZES, self.n_actions)

    @property
    def n_waiting(self) -> int:
        """Callers that wait for a pass, or for the present one to end."""
        return sum(len(batch.observations) for batch in [*self._taken, *self._forming])

    async def ask(self, observation: Any, mode: ActMode, actor_id: ActorId) -> tuple[Any, Any, int]:
        """The action of an actor for its observation, its policy extras, and the version of its policy.

        Cancelled: the observation may still take part in the pass.
        """
        forming = self._forming
        batch = forming[0] if forming and forming[0].mode is mode else self._join(mode)
        observations = batch.observations
        place = len(observations)
        batch.actor_ids[place:] = (actor_id,)  # an interrupted caller may have left one behind
        observations.append(observation)
        await batch.answered.wait()
        if batch.error is not None:
            raise batch.error()
        actions, extras, opt_steps = batch.answer
        return actions[place], None if extras is None else extras[place], opt_steps

    async def ask_many(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        """The same for the observations of several actors, in one pass; that costs no more than for one.

        If nobody else waits, the pass over an array is computed here.
        """
        if isinstance(observations, np.ndarray):
            await checkpoint_if_cancelled()
            return await self._ask_now(observations, mode, actor_ids)
        return await self._ask_together(observations, mode, actor_ids)

    async def ask_soon(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        """The same for any observations; while passes are short, theirs is computed here, too.

        A short pass costs less than a switch to another task. Longer ones are shared with all callers that
        are ready.
        """
        ask = self._ask_now if self._took_ns < SHORT_PASS_NS else self._ask_together
        return await ask(observations, mode, actor_ids)

    async def _ask_now(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        """Compute the pass here, if nobody else waits.

        It lets other tasks run before, if they have not since the last such pass, and not for ``TURN_S``.
        """
        if self._is_idle:
            if self._holds_loop and time.monotonic() - self._turned_at >= TURN_S:
                await checkpoint()
                self._note_turn()
            if self._is_idle:  # still
                if self._call_soon is not None and not self._holds_loop:
                    self._call_soon(self._note_turn)
                self._holds_loop = True
                try:
                    return self._pass(observations, mode, actor_ids)
                except Exception as error:  # noqa: BLE001 - ``run`` raises it, and this caller waits for that
                    self._failure = error
                    self._wake.set()
        return await self._ask_together(observations, mode, actor_ids)

    async def _ask_together(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        batch = self._join(mode)
        first = len(batch.observations)
        batch.actor_ids[first:] = actor_ids
        batch.observations.extend(observations)
        end = first + len(observations)
        await batch.answered.wait()
        if batch.error is not None:
            raise batch.error()
        actions, extras, opt_steps = batch.answer
        return actions[first:end], None if extras is None else extras[first:end], opt_steps

    def _note_turn(self) -> None:
        """Note that all tasks that were ready have had their turn."""
        self._holds_loop = False
        self._turned_at = time.monotonic()

    @property
    def _is_idle(self) -> bool:
        """Whether no pass runs or is to come, and the caller's thread may compute one."""
        is_free = self._closed is None and self._failure is None
        return is_free and not (self._in_thread or self._forming or self._taken)

    def _join(self, mode: ActMode) -> _Batch:
        """The batch of this mode that the next pass answers; once closed there is none."""
        for batch in self._forming:
            if batch.mode is mode:
                return batch
        if self._closed is not None:
            raise self._closed()
        self._wake.set()  # first: an interruption must not leave a batch that is never answered
        is_first = self.clock.state == IDLE
        batch = _Batch(mode, self.clock.enter(GATHERING) if is_first else time.perf_counter_ns())
        self._forming.append(batch)
        return batch

    def close(self, error: Callable[[], Exception]) -> None:
        """Fail waiting and later callers, each with its own error."""
        self._closed = error
        for batch in [*self._taken, *self._forming]:
            batch.error = error
            batch.answered.set()
        self._taken, self._forming = [], []
        self._thread.close()

    async def run(self) -> None:
        """Answer until cancelled, or until the policy raises; its callers then get the error of ``close``."""
        if on_asyncio():
            self._call_soon = asyncio.get_running_loop().call_soon
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            if self._failure is not None:
                raise self._failure
            # An interrupted caller may have left a batch without an observation.
            self._taken = [batch for batch in self._forming if batch.observations]
            self._forming = []
            while self._taken:
                batch = self._taken[0]
                del batch.actor_ids[len(batch.observations) :]
                given = batch.observations, batch.mode, batch.actor_ids, batch.since
                if self._in_thread:
                    batch.answer = await self._thread.run(self._pass, *given)
                else:
                    batch.answer = self._pass(*given)
                batch.answered.set()
                del self._taken[:1]  # unless closed meanwhile

    def _pass(
        self,
        observations: Sequence[Any],
        mode: ActMode,
        actor_ids: Sequence[ActorId],
        since: int | None = None,
    ) -> Answer:
        started = self.clock.enter(OFFLOADED if self._in_thread else COMPUTING)
        # Processor time decides: a short pass may wait long for the interpreter lock, in a thread, too. It
        # costs to ask for it, so that is done when the pass before has taken long by the clock on the wall.
        cpu_started = time.thread_time() if self._adaptive and self._was_long else 0.0
        answer = self._act(observations, mode, actor_ids)
        ended = self.clock.enter(GATHERING if self._forming else IDLE)
        self._took_ns = ended - started
        self._was_long = self._took_ns > SLOW_PASS_NS
        if self._was_long and cpu_started and time.thread_time() - cpu_started > SLOW_PASS_S:
            self._n_slow += 1
            self._in_thread = self._n_slow >= SLOW_PASSES
        n_actions = len(observations)
        self.n_passes += 1
        self.n_actions += n_actions
        latency_ns = ended - (since or started)
        self._latencies[latency_ns.bit_length()] += 1
        self._latency_ns += latency_ns
        self._sizes[(n_actions - 1).bit_length()] += 1
        return answer
