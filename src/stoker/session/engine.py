"""The engine of a session: runs its parts as tasks, until the end or a failure, and then ends them.

    event queue --> consume (learner in its own thread) --> writer queue --> writer --> run directory

It runs in a task that no scope of a caller surrounds (``hosting``). Its parts end when they are drained, or
when one of them fails: then every caller that waits for the session gets the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio import get_cancelled_exc_class
from anyio.lowlevel import cancel_shielded_checkpoint

from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.exits import Contained, wait_to_the_end
from stoker.recorders import Outcome, Recording
from stoker.session.consuming import Consumer
from stoker.session.evaluations import Evaluations
from stoker.session.learner import Learner
from stoker.session.opening import ResumePoint
from stoker.session.parts import Parts
from stoker.session.watching import Watch
from stoker.threads import DedicatedThread

__all__ = ["Engine"]

_CANCELLED = "its task was cancelled; close the session before its event loop ends"
_FINISHING = ("writer", "recorders", "watch")
"""What finishes when another part has died: the writer and the recorders, under the watch."""


class Engine:
    """Everything in a session that runs by itself, on one event loop.

    Args:
        learner: what learns; restored, with its journal open.
        resume_point: with lockstep, after a resume: where the running episodes stood.
        recording: where records of the metrics go, beside the run; open.
        thread: the learner's. The engine closes it.
    """

    def __init__(
        self, learner: Learner, resume_point: ResumePoint, recording: Recording, thread: DedicatedThread
    ) -> None:
        self.parts = parts = Parts(learner, thread)
        self.evaluations = Evaluations(parts)
        self.is_settled = False
        """Whether the engine has ended and no thread of it uses the agent or the run any more."""
        self._resume_point = resume_point
        self._recording = recording
        consumer = Consumer(parts, self.evaluations, recording)
        parts.intake.on_end += (parts.pacing.moved, self.evaluations.wake)
        self._tasks: dict[str, tuple[Callable[[], Awaitable[None]], anyio.Event]] = {
            "agent": (consumer.run, parts.drained),
            "writer": (parts.writer.run, parts.written),
            "policy": (parts.inference.run, anyio.Event()),
            "watch": (Watch(parts, self.fail).run, anyio.Event()),
            "recorders": (recording.run, anyio.Event()),
        }
        self._shields: dict[str, anyio.CancelScope] = {}
        self._ending = anyio.Event()
        self._ended_by: BaseException | None = None
        self._on_failure: list[Callable[[], None]] = []

    async def live(self) -> None:
        """Run all parts until ``end`` or a failure; then drain, make durable, save, and end them.

        Cancelled, which happens when the event loop ends, it does the same as far as its parts still can.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for part in self._tasks:
                    tasks.start_soon(self._guarded, part)
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
        self.parts.ended_at = time.monotonic()
        await wait_to_the_end(self._settle)
        self.parts.thread.close()

    def end(self, error: BaseException | None = None) -> None:
        """Let ``live`` wind down; nothing happens if it does already.

        Args:
            error: the error that ended the block of ``async with``.
        """
        if not self._ending.is_set():
            self._ended_by = error
            self._ending.set()

    def when_failed(self, call: Callable[[], None]) -> None:
        """Call this, on the event loop, when a part has failed; at once if one has."""
        if self.parts.failure is not None:
            call()
        self._on_failure.append(call)

    def take_resume_point(self) -> ResumePoint:
        """The running episodes, for the actors that continue them; given out once."""
        point, self._resume_point = self._resume_point, ResumePoint()
        return point

    def fail(self, part: str, error: BaseException) -> None:
        """End the session with this cause, the first one if there are several.

        The writer, unless it is the one that died, still makes durable what it was handed.
        """
        parts = self.parts
        if parts.failure is not None:
            if part == "writer":  # it was to finish, and cannot
                self._shields["writer"].cancel()
            return
        parts.failure = (part, error)

        def failed() -> Exception:
            return SessionFailed(part, error)

        parts.pacing.moved()
        parts.queue.close(failed)
        parts.inference.close(failed)
        parts.writer.close(failed)
        parts.replies.fail(failed)
        self.evaluations.wake()
        for name, shield in self._shields.items():
            if name == part or name not in _FINISHING:
                shield.cancel()
        self.end()
        for call in self._on_failure:
            call()

    async def _guarded(self, part: str) -> None:
        """Run a part until it is done or its shield is cancelled."""
        run, done = self._tasks[part]
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

    def _give_up_unborn(self) -> None:
        """On asyncio, a task that is cancelled before its first step never takes it."""
        for part in self._tasks.keys() - self._shields.keys():
            self._tasks[part][1].set()
            self.fail(part, SessionError(_CANCELLED))

    async def _wind_down(self) -> None:
        """Drain the queue into the learner, the learner into the writer, the writer onto the disk."""
        parts = self.parts
        parts.queue.close(lambda: SessionClosed("observe", entered=True))
        parts.pacing.moved()
        await parts.drained.wait()  # the watch ends it, should nothing move
        self.evaluations.wake()
        parts.writer.close(lambda: SessionClosed("write", entered=True))
        await parts.written.wait()
        await self._recording.close(self._outcome())
        await self._tasks["recorders"][1].wait()
        parts.inference.close(lambda: SessionClosed("act", entered=True))
        parts.replies.fail(lambda: SessionClosed("wait", entered=True))

    def _outcome(self) -> Outcome:
        if self.parts.failure is not None:
            return "failed"
        match self._ended_by:
            case None:
                return "stopped" if self.parts.intake.is_stopped else "finished"
            case KeyboardInterrupt() | SystemExit():
                return "stopped"
            case error:
                return "stopped" if isinstance(error, get_cancelled_exc_class()) else "failed"

    async def _settle(self) -> None:
        """After a failure, wait for calls that may still run, but not forever: the agent is read next."""
        parts, limit_s = self.parts, self.parts.config.stall_timeout_s
        self.is_settled = parts.failure is None or (
            await parts.thread.settle(limit_s) and await parts.writer.settle(limit_s)
        )


def _cause(error: BaseException) -> BaseException:
    """The error; a cancellation from outside the session becomes a ``SessionError``."""
    if not isinstance(error, (get_cancelled_exc_class(), asyncio.CancelledError)):
        return error
    cause = SessionError(_CANCELLED)
    cause.__cause__ = error
    return cause
