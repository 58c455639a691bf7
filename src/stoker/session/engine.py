"""The engine of a session: its tasks, its thread, what passes between them, and how it all ends.

    event queue --> consume (learner in its own thread) --> writer queue --> writer --> run directory

It runs in a task that no scope of a caller surrounds (``hosting``). Its parts end when they are drained, or
when one of them fails: then every caller that waits for the session gets the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio import get_cancelled_exc_class
from anyio.lowlevel import cancel_shielded_checkpoint

from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.exits import Contained, wait_to_the_end
from stoker.queues import BatchQueue
from stoker.recorders import Outcome, Recording
from stoker.replies import OpenReplies, Reply
from stoker.runs import Retention, TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.consuming import Consumer
from stoker.session.events import BarrierRequested, Event
from stoker.session.inference import Inference
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.session.opening import Opened
from stoker.session.pacing import LearnerProgress, Pacing
from stoker.session.parts import Parts
from stoker.session.policies import PolicySnapshot
from stoker.session.resume_point import ResumePoint
from stoker.session.watching import Watch
from stoker.threads import DedicatedThread
from stoker.types import Experience
from stoker.writer import Writer

__all__ = ["Engine"]

T = TypeVar("T")
_CANCELLED = "its task was cancelled; close the session before its event loop ends"
_FINISHING = ("writer", "recorders", "watch")
"""What finishes when another part has died: the writer and the recorders, under the watch."""


class Engine:
    """Everything in a session that runs by itself, on one event loop.

    Args:
        learner: what learns; restored, with its journal open.
        opened: what was found when it was restored.
        run: where rows and checkpoints go; None: nowhere.
        config: the session's settings.
        recording: where records of the metrics go, beside the run; open.
        thread: the learner's. The engine closes it.
    """

    def __init__(
        self,
        learner: Learner,
        opened: Opened,
        run: TrainingRun | None,
        config: SessionConfig,
        recording: Recording,
        thread: DedicatedThread,
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
        self.learner = learner
        self.failure: tuple[str, BaseException] | None = None
        """The part that failed first, and why."""
        self.best = opened.best
        """The highest mean reward that was evaluated, and the steps of the policy that reached it."""
        self.saved_best = opened.best
        """The same, as far as its file is on disk: what the metadata may speak of."""
        self.turn = opened.turn
        """With lockstep, after a resume: the running episodes, and who was the last to step."""
        self.first_step = learner.total_steps
        self.started_at = time.monotonic()
        self.ended_at = 0.0
        self.is_settled = False
        """Whether the engine has ended and no thread of it uses the agent or the run any more."""
        self.policies = opened.policies
        self.queue: BatchQueue[Event] = BatchQueue(
            config.queue_capacity, consumed=lambda: learner.total_steps
        )
        self.inference = Inference(self.policies, config.inference)
        self.intake = Intake(
            learner.agent,
            learner.total_steps,
            config.max_steps,
            lambda: self.queue.count(Experience),
            keeps_versions=config.keeps_versions,
        )
        if not learner.may_learn:
            self.intake.end()
        self.pacing = Pacing(
            config.max_staleness,
            config.opt_interval,
            self._progress,
            lambda: self.intake.accepted_steps,
            config.actor_timeout_s,
            lambda: self.intake.is_full or self.queue.is_closed,
        )
        self.writer = Writer(
            sync_interval_s=config.flush_interval_s,
            sync_bytes=config.flush_bytes,
            replace_interval_s=config.metadata_interval_s,
        )
        self.parts = parts = Parts(
            learner,
            thread,
            self.queue,
            self.intake,
            self.inference,
            self.pacing,
            self.writer,
            OpenReplies(),
            set(),
            {},
        )
        self.consumer = Consumer(parts, run, self.retention, recording, lambda: self.saved_best)
        self.intake.on_end += (self.pacing.moved, self.consumer.wake_evaluators)
        self.watch = Watch(parts, config, self.fail)
        self._thread = thread
        self._ending = anyio.Event()
        self._ended_by: BaseException | None = None
        self._on_failure: list[Callable[[], None]] = []
        self._drained, self._written, self._recorded = anyio.Event(), anyio.Event(), anyio.Event()
        self._shields: dict[str, anyio.CancelScope] = {}

    async def live(self) -> None:
        """Run all parts until ``end`` or a failure; then drain, make durable, save, and end them.

        Cancelled, which happens when the event loop ends, it does the same as far as its parts still can.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for part, run, done in (
                    ("agent", self.consumer.run, self._drained),
                    ("writer", self.writer.run, self._written),
                    ("policy", self.inference.run, anyio.Event()),
                    ("watch", self.watch.run, anyio.Event()),
                    ("recorders", self.recording.run, self._recorded),
                ):
                    tasks.start_soon(self._guarded, part, run, done)
                with contextlib.suppress(get_cancelled_exc_class()):
                    await self._ending.wait()
                self.end()
                try:
                    # Against the event loop's end, and the group's: a part that is cancelled ends the others.
                    with anyio.CancelScope(shield=True):
                        await cancel_shielded_checkpoint()
                        self._give_up_unborn()
                        await self._wind_down()
                finally:
                    for shield in self._shields.values():
                        shield.cancel()
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the session is closed
            self.fail("session", _cause(error))
        self.ended_at = time.monotonic()
        await wait_to_the_end(self._settle)
        self._thread.close()

    def _give_up_unborn(self) -> None:
        """On asyncio, a task that is cancelled before its first step never takes it."""
        for part, done in (
            ("agent", self._drained),
            ("writer", self._written),
            ("recorders", self._recorded),
        ):
            if part not in self._shields:
                done.set()
                self.fail(part, SessionError(_CANCELLED))

    def end(self, error: BaseException | None = None) -> None:
        """Let ``live`` wind down; nothing happens if it does already.

        Args:
            error: what the block of ``async with`` was left with.
        """
        if not self._ending.is_set():
            self._ended_by = error
            self._ending.set()

    def when_failed(self, tell: Callable[[], None]) -> None:
        """Call this, on the event loop, when a part has failed; at once if one has."""
        if self.failure is not None:
            tell()
        self._on_failure.append(tell)

    # Asking and being answered --------------------------------------------------------------------

    async def request(self, request: Callable[[Reply[T]], Event]) -> T:
        """Send an event that asks for an answer, in its place among the others, and wait for it."""
        reply: Reply[T] = Reply()
        with self.parts.replies.waiting(reply):
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
        with self.parts.replies.waiting(reply):
            await self.writer.submit(work, reply, name=name)
            handed_in()
            await reply.wait()

    def take_resume_point(self) -> ResumePoint:
        """The running episodes, for the actors that continue them; given out once."""
        turn, self.turn = self.turn, ResumePoint()
        return turn

    @property
    def is_over(self) -> bool:
        """Whether everything that was accepted has been written."""
        return self._written.is_set()

    async def next_evaluation(self) -> PolicySnapshot | None:
        """Wait for the next snapshot that is due; the newest, if several were; None: no more will come."""
        consumer = self.consumer
        while consumer.due is None:
            if self.failure is not None:
                raise SessionFailed(*self.failure)
            if self._drained.is_set():
                raise SessionClosed("next_evaluation", entered=True)
            if self.intake.is_full and not self.queue.is_closed:
                await self.request(BarrierRequested)  # what is in the queue may make one due
                if consumer.due is None and self.intake.is_full:
                    return None
            else:
                await consumer.due_changed.wait()
        snapshot, consumer.due = consumer.due, None
        return snapshot

    # Running --------------------------------------------------------------------------------------

    def _progress(self) -> LearnerProgress:
        total_steps, opt_steps = self.learner.progress
        return LearnerProgress(total_steps, opt_steps, self.learner.policies.published)

    async def _guarded(self, part: str, run: Callable[[], Awaitable[None]], done: anyio.Event) -> None:
        """Run a part until it is done or its shield is cancelled."""
        with anyio.CancelScope(shield=True) as shield:
            self._shields[part] = shield
            try:
                with Contained(f"the {part}"):
                    await run()
            except GeneratorExit:  # the event loop was dropped
                raise
            except BaseException as error:
                # Inside the shield only its own cancel() may cancel; any other CancelledError is the part's
                # own, or a native one: the part is dead.
                cause = _cause(error)
                if cause is not error and shield.cancel_called:
                    raise
                self.fail(part, cause)
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
        self.pacing.moved()

        def failed() -> Exception:
            return SessionFailed(part, error)

        self.queue.close(failed)
        self.inference.close(failed)
        self.writer.close(failed)
        self.parts.replies.fail(failed)
        self.consumer.due_changed.set()
        for name, shield in self._shields.items():
            if name == part or name not in _FINISHING:
                shield.cancel()
        self.end()
        for tell in self._on_failure:
            tell()

    async def _wind_down(self) -> None:
        """Drain the queue into the learner, the learner into the writer, the writer onto the disk."""
        self.queue.close(lambda: SessionClosed("observe", entered=True))
        self.pacing.moved()
        await self._drained.wait()  # the watch ends it, should nothing move
        self.consumer.due_changed.set()
        self.writer.close(lambda: SessionClosed("write", entered=True))
        await self._written.wait()
        await self.recording.close(self._outcome())
        await self._recorded.wait()
        self.inference.close(lambda: SessionClosed("act", entered=True))
        self.parts.replies.fail(lambda: SessionClosed("wait", entered=True))

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

    async def _settle(self) -> None:
        """After a failure, wait for calls that may still run, but not forever: the agent is read next."""
        limit_s = self.config.stall_timeout_s
        self.is_settled = self.failure is None or (
            await self._thread.settle(limit_s) and await self.writer.settle(limit_s)
        )


def _cause(error: BaseException) -> BaseException:
    """The error; a cancellation from outside the session becomes a ``SessionError``."""
    if not isinstance(error, (get_cancelled_exc_class(), asyncio.CancelledError)):
        return error
    cause = SessionError(_CANCELLED)
    cause.__cause__ = error
    return cause
