"""From an observation to an action: the forward pass.

``act`` calls that wait at the same time share one forward pass, always on the last published weights. The
pass runs as soon as every task that was ready has had its turn, so that actors in step share it; on the event
loop while it is short, and in its own thread when it is not.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Generator, Sequence
from typing import Any

import anyio
import numpy as np
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from stoker.latch import Latch
from stoker.session.publishing import Answer
from stoker.session.timing import COMPUTING, GATHERING, IDLE, INFERENCE_STATES, OFFLOADED
from stoker.telemetry import Buckets, StateClock
from stoker.threads import DedicatedThread, on_asyncio
from stoker.types import ActMode, ActorId

SLOW_PASS_S = 2e-3
SLOW_PASS_NS = int(SLOW_PASS_S * 1e9)
"""A forward pass that computes longer than this holds the event loop too long."""
SHORT_PASS_NS = 100_000
"""A turn of other tasks costs less than a fifth of a pass that is longer than this."""
TURN_S = 1e-3
"""How long callers of passes over arrays may keep other tasks waiting before one of them suspends."""
_LATENCIES, _SIZES = range(16, 33, 2), range(10)
"""The bounds of what is measured of passes, as powers of two: nanoseconds, and actions."""
SLOW_PASSES = 3
"""This many move inference to its thread; the first pass alone pays for lazy initialization."""


class _Batch:
    """The callers of one forward pass; all of them wait for ``answered``, or for the next turn."""

    __slots__ = ("actor_ids", "answer", "answered", "error", "mode", "observations", "since")

    def __init__(self, mode: ActMode, since: int) -> None:
        self.mode = mode
        self.since = since  # in nanoseconds of ``time.perf_counter_ns``
        self.observations: list[Any] = []
        self.actor_ids: list[ActorId] = []
        self.answered = Latch()
        self.answer: Answer = ((), None, 0)
        self.error: Callable[[], Exception] | None = None

    def add(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> slice:
        """Join with these observations; return their rows."""
        first = len(self.observations)
        self.actor_ids[first:] = actor_ids  # an interrupted caller may have left some behind
        self.observations.extend(observations)
        return slice(first, first + len(observations))

    def answer_to(self, rows: slice) -> Answer:
        """The part of the answer that belongs to these rows."""
        if self.error is not None:
            raise self.error()
        actions, extras, opt_steps = self.answer
        return actions[rows], None if extras is None else extras[rows], opt_steps


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
        self._soon: _Batch | None = None  # of callers that give other tasks a turn
        self._wake = anyio.Event()
        self._turned_at = -1.0  # when other tasks last had their turn
        self._holds_loop = True  # whether callers may have computed passes in their tasks since
        self._call_soon: Callable[[Callable[[], None]], object] | None = (
            None  # in the next turn; trio has none
        )
        self._closed: Callable[[], Exception] | None = None
        self._failure: Exception | None = None  # of a pass in the caller's task
        self.n_passes: int = 0
        self.n_actions: int = 0
        """Forward passes so far, and the actions that they chose."""
        self.clock: StateClock = StateClock(INFERENCE_STATES)
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

        If nobody else waits, the pass over an array is computed here. Other callers share one with those of
        the same turn of the event loop.
        """
        if isinstance(observations, np.ndarray):
            await checkpoint_if_cancelled()
            return await self._ask_now(observations, mode, actor_ids)
        return await self._ask_in_turn(observations, mode, actor_ids)

    async def ask_soon(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        """The same for any observations.

        A short pass costs less than a turn of the other tasks, so the first caller of a turn computes its own
        at once.
        """
        is_short = self._took_ns < SHORT_PASS_NS and not self._in_thread
        if is_short and self._is_idle and not self._holds_loop:
            return await self._ask_now(observations, mode, actor_ids)
        return await self._ask_in_turn(observations, mode, actor_ids)

    async def _ask_in_turn(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        """Share a pass with the other callers of this turn: the first of them computes it in the next one."""
        if self._in_thread:
            return await self._ask_together(observations, mode, actor_ids)
        batch = self._soon
        if batch is None or batch.mode is not mode:
            batch = self._soon = _Batch(mode, time.perf_counter_ns())
        rows = batch.add(observations, actor_ids)
        try:
            await (checkpoint() if self._call_soon is None else _turn())
        finally:
            if self._soon is batch:  # an interruption must not leave it to callers of later turns
                self._soon = None
        if not batch.answered.is_set:
            self._note_turn()
            if not (self._is_idle and self._answer_here(batch)):
                return await self._ask_together(observations, mode, actor_ids)
        return batch.answer_to(rows)

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
            if self._is_idle and (answer := self._pass_here(observations, mode, actor_ids)) is not None:
                return answer
        return await self._ask_together(observations, mode, actor_ids)

    def _answer_here(self, batch: _Batch) -> bool:
        """Compute the pass of a batch in the task of one of its callers; return whether it succeeded."""
        del batch.actor_ids[len(batch.observations) :]
        answer = self._pass_here(batch.observations, batch.mode, batch.actor_ids, batch.since)
        if answer is None:
            return False
        batch.answer = answer
        batch.answered.set()
        return True

    def _pass_here(
        self,
        observations: Sequence[Any],
        mode: ActMode,
        actor_ids: Sequence[ActorId],
        since: int | None = None,
    ) -> Answer | None:
        """Compute a pass in the caller's task. None: it failed; ``run`` raises that, so wait for it."""
        if self._call_soon is not None and not self._holds_loop:
            self._call_soon(self._note_turn)
        self._holds_loop = True
        try:
            return self._pass(observations, mode, actor_ids, since)
        except Exception as error:  # noqa: BLE001 - raised by ``run``
            self._failure = error
            self._wake.set()
            return None

    async def _ask_together(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> Answer:
        batch = self._join(mode)
        rows = batch.add(observations, actor_ids)
        await batch.answered.wait()
        return batch.answer_to(rows)

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


@types.coroutine
def _turn() -> Generator[None]:
    """Give all tasks that are ready a turn, on asyncio; at a third of the cost of ``checkpoint``."""
    yield
