"""SyncTrainingSession: the same session for a plain ``for`` loop in a thread without an event loop.

The session runs on an event loop in its own thread. A hop between threads for each step would cost
more than the step, so events are handed over in batches, and actions are chosen right here, on the last
published policy.

Ctrl-C may interrupt the caller between any two bytecodes. An event is in once ``extend`` has put it into the
buffer, from where a task on the event loop takes it; the caller only wakes that task, and waits for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

import anyio
from anyio.from_thread import start_blocking_portal

from stoker.agents.protocol import LearningAgent
from stoker.errors import ConfigError, SessionClosed
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEvent
from stoker.queues import BatchQueue
from stoker.recorders import Value
from stoker.runs import TrainingRun
from stoker.session.decisions import Decision, decisions_of, in_columns
from stoker.session.events import Event, n_events_of
from stoker.session.intake import Accepted, Intake
from stoker.session.mixed import admitted_events, check_decisions, note_accepted, reserve_events
from stoker.session.publishing import PolicySnapshot
from stoker.session.readings import Readings
from stoker.session.state import RunCounts
from stoker.session.training import TrainingSession
from stoker.stats import EpisodeRecord, StatsTracker
from stoker.threads import CallSoon, call_soon_here
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

_TRANSITIONS = Experience, ExperienceBatch

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SyncTrainingSession(Readings):
    """A ``TrainingSession`` whose methods block instead of being awaited; a plain context manager.

    May be called from several threads, each under its own ``actor_id``. What ``observe`` accepted is
    handed to the learner at the latest with the ``batch_size``-th event, with the first call that comes
    later than ``max_delay_s`` after it, and with ``flush``, ``checkpoint`` and the exit.

    Args:
        agent: as for ``TrainingSession``.
        run: as there.
        stats: as there.
        settings: as there; ``recorders``, too.
        batch_size: how many events are handed over at once, at most.
        max_delay_s: how long an event may wait for others, while calls come in.
    """

    def __init__(
        self,
        agent: LearningAgent,
        run: TrainingRun | None = None,
        *,
        stats: StatsTracker | None = None,
        batch_size: int = 64,
        max_delay_s: float = 0.05,
        **settings: Any,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: give a number of at least 1")
        if settings.get("max_staleness") is not None:
            raise ConfigError(
                f"max_staleness={settings['max_staleness']}: here events are handed over in batches, and "
                "cannot be paced one by one: use TrainingSession"
            )
        self.session: TrainingSession = TrainingSession(agent, run, stats=stats, **settings)
        """The session underneath."""
        super().__init__(self.session.core)
        self._batch_size = batch_size
        self._max_delay_s = max_delay_s
        self._oldest_at = 0.0
        self._leaving = False
        # Reentrant: handing over happens inside observe. Acting has its own lock, so that a thread
        # that waits for room in the queue does not keep others from acting.
        self._handing_over = threading.RLock()
        self._acting = threading.RLock()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            self._handover = stack.enter_context(
                self._portal.wrap_async_context_manager(_handed_over(self.session))
            )
            self._portal.start_task_soon(self._handover.run)
            self.session.intake.count_put = self._handover.count_steps
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            with self._handing_over:  # later calls are refused: their events would stay in the buffer
                self._leaving = True
        finally:
            handled = self._stack.__exit__(kind, error, traceback)
        return handled

    # Actors ---------------------------------------------------------------------------------------

    def act(self, observation: Any, mode: ActMode = ActMode.EXPLORE, actor_id: ActorId = 0) -> Any:
        """Choose an action with the last published policy, in the calling thread."""
        with self._acting:
            decision = self._decide("act", observation, mode, actor_id)
            if mode is ActMode.EXPLORE:
                self.session.intake.remember(actor_id, observation, decision)
        return decision.action

    def act_many(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> Sequence[Any]:
        """Choose actions for several actors in one forward pass, as ``TrainingSession.act_many`` does."""
        intake = self._open_intake("act_many")
        with self._acting:
            ids, shown = intake.checked_acting(observations, actor_ids, mode)
            if not ids.rows:
                return []
            answer = in_columns(shown, self.core.learner.policies.act(shown, mode, ids.rows))
            if mode is ActMode.EXPLORE:
                intake.remember_all(ids, shown, answer)
        return answer[0]

    def decide(self, observation: Any, mode: ActMode = ActMode.EXPLORE, actor_id: ActorId = 0) -> Decision:
        """Choose an action, and return the policy's extras with it, as ``TrainingSession.decide`` does."""
        return self._decide("decide", observation, mode, actor_id)

    def decide_many(
        self, observations: Sequence[Any], actor_ids: Sequence[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> list[Decision]:
        """Make several decisions in one forward pass, as ``TrainingSession.decide_many`` does."""
        intake = self._open_intake("decide_many")
        with self._acting:
            check_decisions(intake, observations, actor_ids, mode)
            if not len(observations):
                return []
            return decisions_of(self.core.learner.policies.act(observations, mode, actor_ids))

    def observe(self, experience: Experience) -> None:
        """Accept one transition, as ``TrainingSession.observe`` does."""
        self._take([self._open_intake("observe").admitted(experience)])

    def observe_many(self, experiences: Iterable[Experience]) -> None:
        """Accept several transitions in order, as ``TrainingSession.observe_many`` does."""
        self._take(self._open_intake("observe_many").admitted_all(experiences))

    def observe_batch(self, batch: ExperienceBatch) -> None:
        """Accept a batch of transitions as columns, as ``TrainingSession.observe_batch`` does."""
        intake = self._open_intake("observe_batch")
        admitted = intake.admitted_batch(batch)
        if isinstance(admitted, list):
            self._take(admitted)
            return
        whole, remembered = admitted
        with self._handing_over:
            try:
                if n_fit := intake.reserve_rows(len(whole)):
                    self._handover.expect_sizes()
                    self._append(whole[:n_fit])
                    self._hand_over_if_due()
                intake.settle_batch(remembered)
                intake.refuse(whole.actor_ids[n_fit:])
            except BaseException:
                intake.recount()
                raise
        if self.session.config.lockstep:
            self._ask("observe_batch", self.session.barrier)

    def observe_events(self, events: Iterable[StreamEvent]) -> int:
        """Accept events of several kinds together, as ``TrainingSession.observe_events`` does."""
        intake = self._open_intake("observe_events")
        admitted = admitted_events(intake, events)
        with self._handing_over:
            try:
                accepted = reserve_events(intake, admitted)
                self._append(*accepted)
            except BaseException:
                intake.recount()
                raise
            note_accepted(intake, admitted, len(accepted))
            self._hand_over_if_due()
        if self.session.config.lockstep:
            self._ask("observe_events", self.session.barrier)
        return len(accepted)

    def on_episode_start(self, actor_id: ActorId = 0, seed: int | None = None) -> None:
        """Begin an actor's episode, as ``TrainingSession.on_episode_start`` does."""
        event = self._open_intake("on_episode_start").episode_started(actor_id, seed)
        self._take_boundary(event, actor_id)

    def on_episode(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None = None,
        actor_id: ActorId = 0,
    ) -> None:
        """End an actor's episode, as ``TrainingSession.on_episode`` does."""
        intake = self._open_intake("on_episode")
        event = intake.episode_ended(total_reward, steps, status, env_extras, actor_id)
        self._take_boundary(event, actor_id)

    # Evaluation -----------------------------------------------------------------------------------

    def snapshot(self) -> PolicySnapshot:
        """Pin the policy as it is when everything accepted so far is consumed."""
        return self._ask("snapshot", self.session.snapshot)

    def on_eval_episode(self, record: EpisodeRecord, snapshot: PolicySnapshot | None = None) -> None:
        """Log one evaluation episode."""
        self._ask("on_eval_episode", self.session.on_eval_episode, record, snapshot)

    def maybe_save_best(self, mean_reward: float, snapshot: PolicySnapshot | None = None) -> bool:
        """Keep the policy as ``best`` if its mean reward is above the best so far."""
        return self._ask("maybe_save_best", self.session.maybe_save_best, mean_reward, snapshot)

    # Metrics --------------------------------------------------------------------------------------

    def store(self, values: Mapping[str, Value]) -> None:
        """Keep values for the next record of the metrics, as ``TrainingSession.store`` does."""
        self.session.store(values)

    def record(self, values: Mapping[str, Value], total_steps: int | None = None) -> None:
        """Record values by themselves, as ``TrainingSession.record`` does."""
        self._ask("record", self.session.record, values, total_steps)

    # Control --------------------------------------------------------------------------------------

    def optimize(self, n: int) -> int:
        """Do optimization steps without new experience and return their number."""
        return self._ask("optimize", self.session.optimize, n)

    def flush(self) -> RunCounts:
        """Return when everything accepted so far is consumed and its rows and journal are on disk.

        As with ``TrainingSession.flush``, that is never lost.
        """
        return self._ask("flush", self.session.flush)

    def barrier(self) -> None:
        """Return when everything accepted so far is consumed, and what was learned of it is published."""
        self._ask("barrier", self.session.barrier)

    def checkpoint(self) -> None:
        """Write a checkpoint of this point and return when it is on disk."""
        self._ask("checkpoint", self.session.checkpoint)

    def stop(self) -> None:
        """Accept no more experiences."""
        self.session.stop()

    # Parts ----------------------------------------------------------------------------------------

    def _open_intake(self, what: str) -> Intake:
        self.session.require_open(what)
        return self.session.intake

    def _decide(self, what: str, observation: Any, mode: ActMode, actor_id: ActorId) -> Decision:
        intake = self._open_intake(what)
        with self._acting:
            intake.check_acting(observation, mode, actor_id)
            actions, extras, version = self.core.learner.policies.act([observation], mode, [actor_id])
        return Decision(actions[0], None if extras is None else extras[0], version)

    def _take_boundary(self, event: EpisodeStarted | EpisodeEnded | None, actor_id: ActorId) -> None:
        with self._handing_over:
            if event is not None:
                self._append(event)
            self.session.intake.forget(actor_id)
            self._hand_over_if_due()

    def _take(self, batch: Sequence[Accepted]) -> None:
        intake = self.session.intake
        with self._handing_over:
            try:
                for experience, remembered in batch:
                    if intake.reserve(experience.actor_id):
                        self._append(experience)
                        intake.settle(experience.actor_id, remembered)
                        self._hand_over_if_due()
            except BaseException:
                intake.recount()
                raise
        if self.session.config.lockstep:  # wait until it is learned and the policy published
            self._ask("observe", self.session.barrier)

    def _append(self, *events: Event) -> None:
        if self._leaving:
            raise SessionClosed("observe", entered=True)
        if not len(self._handover):
            self._oldest_at = time.monotonic()
        self._handover.extend(events)

    def _hand_over_if_due(self) -> None:
        n_events = len(self._handover)
        if n_events >= self._batch_size or (
            n_events and time.monotonic() - self._oldest_at >= self._max_delay_s
        ):
            self._handover.wait()

    def _ask(self, what: str, call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Await a call of the session on its event loop, behind everything accepted so far."""
        self.session.require_open(what)
        with self._handing_over:
            self._handover.wait()
        return self._portal.call(call, *args)


class Handover:
    """A buffer that threads append to, and the task that empties it into the queue, in order.

    Args:
        queue: the session's.
        accepted_steps: experiences accepted before, in all attempts.
        call_soon: has something called on the event loop.

    Attributes:
        extend: puts events in together, from any thread, without waiting.
        expect_sizes: to be called before a batch is put in.
    """

    def __init__(self, queue: BatchQueue[Event], accepted_steps: int, call_soon: CallSoon) -> None:
        self._queue = queue
        self._n_put = accepted_steps
        self._buffer: BatchQueue[Event] = BatchQueue(
            sys.maxsize, consumed=lambda: self._n_put, size_of=n_events_of
        )
        self.extend: Callable[[Iterable[Event]], None] = self._buffer.extend
        self.expect_sizes: Callable[[], None] = self._buffer.expect_sizes
        self._call_soon = call_soon
        # Not futures: an interruption inside their Python code may leave a lock behind that the loop needs.
        self._replies: list[SimpleQueue[Exception | None]] = []
        self._woken = anyio.Event()
        self._emptying = anyio.Lock()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._buffer)

    def count_steps(self) -> int:
        """How many experiences were ever put in, over all attempts."""
        return self._buffer.count(*_TRANSITIONS)

    def wait(self) -> None:
        """Block until everything appended so far is in the queue. Interrupted: the hand-over continues.

        Raises:
            SessionClosed, SessionFailed: The session does not run.
        """
        reply: SimpleQueue[Exception | None] = SimpleQueue()
        self._replies.append(reply)
        if self._is_closed:
            raise SessionClosed("observe", entered=True)
        self._call_soon(self._wake)
        if (error := reply.get()) is not None:
            raise error

    async def run(self) -> None:
        """Empty the buffer into the queue whenever a thread waits for that, until ``close``."""
        while not self._is_closed:
            await self._woken.wait()
            self._woken = anyio.Event()
            await self._empty()

    async def close(self) -> None:
        """Empty the buffer for the last time."""
        with anyio.CancelScope(shield=True):
            await self._empty()
            self._is_closed = True
            await self._empty()  # for threads that came meanwhile
            self._wake()

    def _wake(self) -> None:
        self._woken.set()

    async def _empty(self) -> None:
        async with self._emptying:
            replies = self._replies[:]  # before the events: what they wait for is among these
            del self._replies[: len(replies)]
            events, error = self._buffer.take_now(), None
            try:
                with anyio.CancelScope(shield=True):  # ends when the session does: the queue is closed then
                    await self._queue.put_many(events)
            except Exception as cause:  # noqa: BLE001 - raised in the threads that wait
                error = cause
            self._n_put += sum(n_events_of(event) for event in events if type(event) in _TRANSITIONS)
            for reply in replies:
                reply.put(error)


@asynccontextmanager
async def _handed_over(session: TrainingSession) -> AsyncGenerator[Handover]:
    """Open a session and a handover to it; the handover is emptied before the session closes."""
    async with session:
        handover = Handover(session.engine.parts.queue, session.accepted_steps, call_soon_here())
        try:
            yield handover
        finally:
            await handover.close()
