"""The engine of a session: its tasks, its thread, what passes between them, and how it all ends.

    event queue --> consume (learner in its own thread) --> writer queue --> writer --> run directory

Background tasks are shielded from cancellation from outside: whoever cancels a session still gets what it
accepted made durable. They end when they are drained, or when one of them fails: then everybody who waits
on the session is told the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio import get_cancelled_exc_class, to_thread

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionFailed
from stoker.exits import Contained
from stoker.queues import BatchQueue
from stoker.recorders import Outcome, Recording
from stoker.replies import Reply
from stoker.runs import Retention, TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.consuming import Consumer
from stoker.session.describing import context_of
from stoker.session.events import Event
from stoker.session.inference import Inference
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.session.opening import begin_learning, restore_newest
from stoker.session.pacing import Pace, Progress
from stoker.session.policies import PolicyBuffer
from stoker.session.snapshot import PolicySnapshot
from stoker.session.turns import Turn
from stoker.session.watching import Watch
from stoker.stats import StatsTracker
from stoker.threads import DedicatedThread
from stoker.writer import Writer

__all__ = ["Engine"]

T = TypeVar("T")
_FINISHING = ("writer", "recorders", "watch")
"""What finishes when another part has died: the writer and the recorders, under the watch."""


class Engine:
    """Everything in a session that runs by itself. Started once, stopped once, in one task.

    Args:
        agent: what learns.
        run: where rows and checkpoints go; None: nowhere.
        stats: over training episodes.
        config: the session's settings.
        recording: where records of the metrics go, beside the run.
    """

    def __init__(
        self,
        agent: LearningAgent,
        run: TrainingRun | None,
        stats: StatsTracker,
        config: SessionConfig,
        recording: Recording,
    ) -> None:
        self.run = run
        self.config = config
        self.retention = Retention(
            last=config.keep_checkpoints,
            every=config.keep_every,
            best=config.keep_best,
            all_journal=config.keep_journal == "all",
        )
        self.recording = recording
        self.learner = Learner(agent, config, stats, run, recording.statistics)
        self.failure: tuple[str, BaseException] | None = None
        """The part that died first, and of what."""
        self.best: tuple[float, int] | None = None
        """The highest mean reward that was evaluated, and the steps of the policy that reached it."""
        self.saved_best: tuple[float, int] | None = None
        """The same, as far as its file is on disk: what the metadata may speak of."""
        self.turn = Turn()
        """With lockstep, after a resume: the running episodes, and who was the last to step."""
        self.first_step = 0
        self._has_begun = False
        self._ended_by: BaseException | None = None
        self._is_settled = True
        self.started_at = self.ended_at = 0.0

    async def start(self) -> None:
        """Lock the run, restore its newest checkpoint, if it has one, and set the tasks going.

        Raises:
            RunLocked: Somebody else writes the run.
            ConfigError, CheckpointCorrupt, JournalBroken: The run cannot be gone on with.
            ConfigError, MissingDependency, RecorderFailed: A recorder cannot be used.
            WriteFailed: Nothing can be written there.
        """
        config = self.config
        self._thread = DedicatedThread("stoker-learner")
        try:
            self.policies = await self._open()
            await self.recording.open(context_of(self.learner, self.run, config))
        except BaseException:
            self._thread.close()
            if self._has_begun and self.run is not None:
                self.run.end_session(settled=True)
            raise
        self.queue: BatchQueue[Event] = BatchQueue(config.queue_capacity)
        self.inference = Inference(self.policies, config.inference)
        self.intake = Intake(
            self.learner.agent,
            self.learner.total_steps,
            config.max_steps,
            keeps_versions=config.keeps_versions,
        )
        if not self.learner.may_learn:
            self.intake.end()
        self.pace = Pace(
            config.max_staleness,
            config.opt_interval,
            self._progress,
            lambda: self.intake.accepted_steps,
            config.actor_timeout_s,
            lambda: self.failure is not None or self.intake.is_full or self.queue.is_closed,
        )
        self.intake.on_end.append(self.pace.moved)
        self.writer = Writer(
            sync_interval_s=config.flush_interval_s,
            sync_bytes=config.flush_bytes,
            replace_interval_s=config.metadata_interval_s,
        )
        self.consumer = Consumer(self, self._thread)
        self.watch = Watch(self)
        self._drained, self._written, self._recorded = anyio.Event(), anyio.Event(), anyio.Event()
        self._replies: set[Reply[Any]] = set()
        self._shields: dict[str, anyio.CancelScope] = {}
        self.first_step = self.learner.total_steps
        self.started_at = time.monotonic()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._guarded, "agent", self.consumer.run, self._drained)
        self._tasks.start_soon(self._guarded, "writer", self.writer.run, self._written)
        self._tasks.start_soon(self._guarded, "policy", self.inference.run, anyio.Event())
        self._tasks.start_soon(self._guarded, "watch", self.watch.run, anyio.Event())
        self._tasks.start_soon(self._guarded, "recorders", self.recording.run, self._recorded)

    async def _open(self) -> PolicyBuffer:
        run, learner, thread = self.run, self.learner, self._thread
        if run is not None:
            await to_thread.run_sync(run.begin_session)
            self._has_begun = True
            self.turn = await thread.run(restore_newest, learner, run)
            if run.is_new:
                run.is_new = False
            else:
                self.best = self.saved_best = await thread.run(run.load_best_score)
                await run.begin_attempt(
                    learner.total_steps, learner.total_episodes, learner.n_events, learner.opt_steps
                )
        return await thread.run(begin_learning, learner, self.config, run, self.turn)

    async def stop(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Drain, make durable, save, and end the tasks; the arguments and the result are ``__aexit__``'s.

        Raises:
            SessionFailed: A part of the session died.
        """
        # Winding down is a task of the group: a native cancellation of this task (asyncio.timeout, say) goes
        # through a shield, but the group waits for its tasks whatever comes.
        self._ended_by = error
        self._tasks.start_soon(self._wind_down)
        passes = isinstance(error, get_cancelled_exc_class()) or type(error) is BaseExceptionGroup
        given = (kind, error, traceback) if passes else (None, None, None)
        try:
            handled = await self._tasks.__aexit__(*given) and passes
        finally:
            self.ended_at = time.monotonic()
            # While a call that was given up still runs, this process is not done with the run.
            if self.run is not None:
                self.run.end_session(settled=self._is_settled)
            if self.failure is not None:  # says more than the group or the cancellation that it led to
                raise SessionFailed(*self.failure)
        return bool(handled)

    # Asking and being answered --------------------------------------------------------------------

    async def request(self, request: Callable[[Reply[T]], Event]) -> T:
        """Send an event that asks for an answer, in its place among the others, and wait for it."""
        reply: Reply[T] = Reply()
        with self.told_of_the_end(reply):
            await self.queue.put(request(reply))
            return await reply.wait()

    async def write(self, work: Callable[[], None], handed_in: Callable[[], None], name: str) -> None:
        """Let the writer's thread do something, and wait until it is done.

        Args:
            work: what to do.
            name: what that is, such as ``"writing best.pt"``.
            handed_in: called when nothing can keep it from being done but a dying disk.
        """
        reply: Reply[None] = Reply()
        with self.told_of_the_end(reply):
            await self.writer.submit(work, reply, name=name)
            handed_in()
            await reply.wait()

    def take_turn(self) -> Turn:
        """The running episodes, for those who go on with them: once."""
        turn, self.turn = self.turn, Turn()
        return turn

    @property
    def is_over(self) -> bool:
        """Whether everything that was accepted has been written."""
        return self._written.is_set()

    @property
    def n_asking(self) -> int:
        """How many callers wait for an answer of the learner or the writer."""
        return len(self._replies)

    @contextlib.contextmanager
    def told_of_the_end(self, reply: Reply[Any]) -> Generator[None]:
        """Whoever waits for this reply is told when a part dies or the session ends."""
        self._replies.add(reply)
        try:
            yield
        finally:
            self._replies.discard(reply)

    async def next_evaluation(self) -> PolicySnapshot:
        """Wait for the next snapshot that is due; the newest, if several were."""
        consumer = self.consumer
        while consumer.due is None:
            if self._drained.is_set():
                raise SessionClosed("next_evaluation", entered=True)
            await consumer.due_changed.wait()
            if self.failure is not None:
                raise SessionFailed(*self.failure)
        snapshot, consumer.due = consumer.due, None
        return snapshot

    # Running --------------------------------------------------------------------------------------

    def _progress(self) -> Progress:
        total_steps, opt_steps = self.learner.standing
        return Progress(total_steps, opt_steps, self.learner.policies.published)

    async def _guarded(self, part: str, run: Callable[[], Awaitable[None]], done: anyio.Event) -> None:
        """Run a part until it is done or its shield is cancelled."""
        with anyio.CancelScope(shield=True) as shield:
            self._shields[part] = shield
            try:
                with Contained(f"the {part}"):
                    await run()
            except BaseException as error:
                # Inside the shield only its own cancel() may cancel; any other CancelledError is the part's
                # own, or a native one (asyncio.run cancels every task at its end): the part is dead.
                is_cancelled = isinstance(error, (get_cancelled_exc_class(), asyncio.CancelledError))
                if is_cancelled and shield.cancel_called:
                    raise
                self.fail(part, error)
                if not is_cancelled and not isinstance(error, Exception):
                    raise
            finally:
                done.set()

    # Ending ---------------------------------------------------------------------------------------

    def fail(self, part: str, error: BaseException) -> None:
        """End the session with this cause, the first one if there are several.

        The writer, unless it is the one that died, still makes durable what it was handed.
        """
        if self.failure is not None:
            if part == "writer":  # it was to finish, and cannot
                self._shields["writer"].cancel()
            return
        self.failure = (part, error)
        self.pace.moved()

        def failed() -> Exception:
            return SessionFailed(part, error)

        self.queue.close(failed)
        self.inference.close(failed)
        self.writer.close(failed)
        for reply in self._replies:
            reply.fail(failed())
        self.consumer.due_changed.set()
        for name, shield in self._shields.items():
            if name == part or name not in _FINISHING:
                shield.cancel()
        self._tasks.cancel_scope.cancel()

    async def _wind_down(self) -> None:
        """Drain the queue into the learner, the learner into the writer, the writer onto the disk."""
        with anyio.CancelScope(shield=True):
            self.queue.close(lambda: SessionClosed("observe", entered=True))
            self.pace.moved()
            await self._drained.wait()  # the watch ends it, should nothing move
            self.consumer.due_changed.set()
            self.writer.close(lambda: SessionClosed("write", entered=True))
            await self._written.wait()
            await self.recording.close(self._outcome())
            await self._recorded.wait()
            self.inference.close(lambda: SessionClosed("act", entered=True))
            for reply in self._replies:
                reply.fail(SessionClosed("wait", entered=True))
            for shield in self._shields.values():
                shield.cancel()
            if self.failure is not None:  # an update may still be running, on an agent that is read next
                self._is_settled = await self._settle()
            self._thread.close()

    def _outcome(self) -> Outcome:
        if self.failure is not None:
            return "failed"
        match self._ended_by:
            case None:
                return "stopped" if self.intake.is_stopped else "finished"
            case KeyboardInterrupt() | SystemExit():
                return "stopped"
            case error:
                return "stopped" if isinstance(error, get_cancelled_exc_class()) else "failed"

    async def _settle(self) -> bool:
        """Wait, but not for ever, for calls that may still run; say whether none does any more."""
        limit_s = self.config.stall_timeout_s
        is_learner_settled = await self._thread.settle(limit_s)
        return await self.writer.settle(limit_s) and is_learner_settled
