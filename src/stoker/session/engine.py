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
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, assert_never

import anyio
from anyio import get_cancelled_exc_class

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionFailed
from stoker.queues import BatchQueue
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.events import (
    CheckpointStaged,
    Effect,
    EvaluationDue,
    Event,
    FlushReached,
    RowReady,
    SnapshotTaken,
)
from stoker.session.inference import Inference
from stoker.session.learner import Learner
from stoker.session.snapshot import PolicySnapshot
from stoker.stats import StatsTracker
from stoker.threads import DedicatedThread
from stoker.writer import Writer

__all__ = ["Engine"]

T = TypeVar("T")


class Engine:
    """Everything in a session that runs by itself. Started once, stopped once, in one task.

    Args:
        agent: what learns.
        run: where rows and checkpoints go; None: nowhere.
        stats: over training episodes.
        config: the session's settings.
    """

    def __init__(
        self, agent: LearningAgent, run: TrainingRun | None, stats: StatsTracker, config: SessionConfig
    ) -> None:
        self.run = run
        self.config = config
        self.learner = Learner(agent, config, stats, run)
        self.failure: tuple[str, BaseException] | None = None
        """The part that died first, and of what."""
        self.best: tuple[float, int] | None = None
        """The highest mean reward that was evaluated, and the steps of the policy that reached it."""
        self.first_step = 0
        self.started_at = self.ended_at = 0.0

    async def start(self) -> None:
        """Restore the run's newest checkpoint, if it has one, and set the tasks going."""
        self._thread = DedicatedThread("stoker-learner")
        try:
            await self._thread.run(self._restore)
            self.policies = await self._thread.run(self.learner.begin)
            if self.run is not None:
                await self._begin_attempt(self.run)
        except BaseException:
            self._thread.close()
            raise
        self.queue: BatchQueue[Event] = BatchQueue(self.config.queue_capacity)
        self.inference = Inference(self.policies, self.config.inference)
        self.writer = Writer(
            sync_interval_s=self.config.flush_interval_s, replace_interval_s=self.config.metadata_interval_s
        )
        self._due: PolicySnapshot | None = None
        self._due_changed = anyio.Event()
        self._drained, self._written = anyio.Event(), anyio.Event()
        self._replies: set[Reply[Any]] = set()
        self._publishing: Reply[None] | None = None
        self._shields: dict[str, anyio.CancelScope] = {}
        self.first_step = self.learner.total_steps
        self.started_at = time.monotonic()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._guarded, "agent", self._consume, self._drained)
        self._tasks.start_soon(self._guarded, "writer", self.writer.run, self._written)
        self._tasks.start_soon(self._guarded, "policy", self.inference.run, anyio.Event())

    async def stop(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Drain, make durable, save, and end the tasks; the arguments and the result are ``__aexit__``'s.

        Raises:
            SessionFailed: A part of the session died.
        """
        # Winding down is a task of the group: a native cancellation of this task (asyncio.timeout, say) goes
        # through a shield, but the group waits for its tasks whatever comes.
        self._tasks.start_soon(self._wind_down)
        passes = isinstance(error, get_cancelled_exc_class()) or type(error) is BaseExceptionGroup
        given = (kind, error, traceback) if passes else (None, None, None)
        try:
            handled = await self._tasks.__aexit__(*given) and passes
        finally:
            self.ended_at = time.monotonic()
            if self.failure is not None:  # says more than the group or the cancellation that it led to
                raise SessionFailed(*self.failure)
        return bool(handled)

    # Asking and being answered --------------------------------------------------------------------

    async def request(self, request: Callable[[Reply[T]], Event]) -> T:
        """Send an event that asks for an answer, in its place among the others, and wait for it."""
        reply: Reply[T] = Reply()
        with self._told_of_the_end(reply):
            await self.queue.put(request(reply))
            return await reply.wait()

    async def write(self, work: Callable[[], None], handed_in: Callable[[], None]) -> None:
        """Let the writer's thread do something, and wait until it is done.

        Args:
            work: what to do.
            handed_in: called when nothing can keep it from being done but a dying disk.
        """
        reply: Reply[None] = Reply()
        with self._told_of_the_end(reply):
            await self.writer.submit(work, reply)
            handed_in()
            await reply.wait()

    @contextlib.contextmanager
    def _told_of_the_end(self, reply: Reply[Any]) -> Generator[None]:
        """Whoever waits for this reply is told when a part dies or the session ends."""
        self._replies.add(reply)
        try:
            yield
        finally:
            self._replies.discard(reply)

    def remember_best(self, best: tuple[float, int]) -> None:
        """Take note of a new best value and the steps behind it."""
        self.best = best

    async def next_evaluation(self) -> PolicySnapshot:
        """Wait for the next snapshot that is due; the newest, if several were."""
        while self._due is None:
            if self._drained.is_set():
                raise SessionClosed("next_evaluation", entered=True)
            await self._due_changed.wait()
            if self.failure is not None:
                raise SessionFailed(*self.failure)
        snapshot, self._due = self._due, None
        return snapshot

    # Beginning ------------------------------------------------------------------------------------

    def _restore(self) -> None:
        run = self.run
        if run is None or run.is_new:
            return
        if (state := run.load_newest()) is not None:
            self.learner.restore(state)
        self.best = run.load_best_score()

    async def _begin_attempt(self, run: TrainingRun) -> None:
        if run.is_new:
            run.is_new = False
        else:
            await run.begin_attempt(self.learner.total_steps, self.learner.total_episodes)

    # Running --------------------------------------------------------------------------------------

    async def _guarded(self, part: str, run: Callable[[], Awaitable[None]], done: anyio.Event) -> None:
        """Run a part until it is done or its shield is cancelled."""
        with anyio.CancelScope(shield=True) as shield:
            self._shields[part] = shield
            try:
                await run()
            except BaseException as error:
                # Inside the shield only its own cancel() may cancel; any other CancelledError is the part's
                # own, or a native one (asyncio.run cancels every task at its end): the part is dead.
                is_cancelled = isinstance(error, (get_cancelled_exc_class(), asyncio.CancelledError))
                if is_cancelled and shield.cancel_called:
                    raise
                self._fail(part, error)
                if not is_cancelled and not isinstance(error, Exception):
                    raise
            finally:
                done.set()

    async def _consume(self) -> None:
        """The session task: events into the learner, what comes of them to the writer and the waiting."""
        while batch := await self.queue.take():
            while batch:
                try:
                    batch = await self._thread.run(self.learner.process, batch, abandon_on_cancel=True)
                except Exception:
                    await self._deliver(self.learner.take_effects())  # what came before the failure is whole
                    raise
                await self._deliver(self.learner.take_effects())
        await self._thread.run(self.learner.finish, abandon_on_cancel=True)
        await self._deliver(self.learner.take_effects())
        await self._write_counters()

    async def _deliver(self, effects: Sequence[Effect]) -> None:
        run, writer = self.run, self.writer
        has_rows = False
        for effect in effects:
            match effect:
                case RowReady(log, row):
                    await writer.append(log, row)
                    has_rows = True
                case CheckpointStaged(staged, step, reply):
                    if run is not None:
                        await self._write_counters()
                        keep = self.config.keep_checkpoints
                        # One at a time: copies of the state must not pile up before a slow disk.
                        await self._published()
                        self._publishing = Reply() if reply is None else reply
                        await writer.submit(partial(run.publish_step, staged, step, keep), self._publishing)
                case FlushReached(reply):
                    await self._write_counters()
                    await writer.flush(reply)
                case SnapshotTaken(snapshot, reply):
                    reply.set(snapshot)
                case EvaluationDue(snapshot):
                    self._due = snapshot
                    self._due_changed.set()
                    self._due_changed = anyio.Event()
                case _:
                    assert_never(effect)
        if has_rows:
            await self._write_counters()

    async def _published(self) -> None:
        """Wait until the checkpoint that is being written has been."""
        if self._publishing is not None:
            with self._told_of_the_end(self._publishing):
                await self._publishing.wait()

    async def _write_counters(self) -> None:
        if (run := self.run) is not None:
            learner = self.learner
            run.metadata = run.counted(learner.total_steps, learner.total_episodes, self.best)
            await self.writer.replace(run.metadata_path, run.metadata)

    # Ending ---------------------------------------------------------------------------------------

    def _fail(self, part: str, error: BaseException) -> None:
        """End the session with this cause, the first one if there are several.

        The writer, unless it is the one that died, still makes durable what it was handed.
        """
        if self.failure is not None:
            return
        self.failure = (part, error)

        def failed() -> Exception:
            return SessionFailed(part, error)

        self.queue.close(failed)
        self.inference.close(failed)
        self.writer.close(failed)
        for reply in self._replies:
            reply.fail(failed())
        self._due_changed.set()
        for name, shield in self._shields.items():
            if name != "writer" or part == "writer":
                shield.cancel()
        self._tasks.cancel_scope.cancel()

    async def _wind_down(self) -> None:
        """Drain the queue into the learner, the learner into the writer, the writer onto the disk."""
        with anyio.CancelScope(shield=True):
            self.queue.close(lambda: SessionClosed("observe", entered=True))
            await self._await_progress("agent", self._drained)
            self._due_changed.set()
            self.writer.close(lambda: SessionClosed("write", entered=True))
            await self._await_progress("writer", self._written)
            self.inference.close(lambda: SessionClosed("act", entered=True))
            for reply in self._replies:
                reply.fail(SessionClosed("wait", entered=True))
            for shield in self._shields.values():
                shield.cancel()
            if self.failure is not None:  # an update may still be running, on an agent that is read next
                await self._thread.settle(self.config.stall_timeout_s)
            self._thread.close()

    async def _await_progress(self, part: str, done: anyio.Event) -> None:
        """Wait for a part to finish, for as long as something moves."""
        stall_s = self.config.stall_timeout_s
        while not done.is_set():
            before = (self.learner.total_steps, self.learner.opt_steps, self.writer.n_done)
            with anyio.move_on_after(stall_s):
                await done.wait()
            if not done.is_set() and before == (
                self.learner.total_steps,
                self.learner.opt_steps,
                self.writer.n_done,
            ):
                self._fail(part, TimeoutError(f"it has not moved for {stall_s:g} s; what it holds is lost"))
                return
