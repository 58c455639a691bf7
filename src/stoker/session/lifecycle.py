"""How a session is opened and closed, and what parts that play on it need of it.

The session runs in a host task (``opening``); this module is its side for users.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Self

from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.notices import KNOWN
from stoker.queues import BatchQueue
from stoker.recorders import Recording
from stoker.runs.events import RunEvent
from stoker.session.config import SessionConfig
from stoker.session.engine import Engine
from stoker.session.events import Event
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.session.opening import Body, Host, ResumePoint
from stoker.session.pacing import Pacing
from stoker.session.parts import Parts
from stoker.session.publishing import PolicyBuffer
from stoker.session.readings import Core, Readings
from stoker.session.workers import WorkerStatus
from stoker.types import ActorId

_logger = logging.getLogger("stoker.session")


class Lifecycle(Readings):
    """A session that is opened and closed; what happens in between is ``TrainingSession``.

    Args:
        learner: what learns; new.
        recording: where records of the metrics go.
    """

    _open_engine: Engine | None = None  # here, because ``__del__`` also follows a constructor that raises

    def __init__(self, learner: Learner, recording: Recording) -> None:
        super().__init__(Core(learner))
        self.config: SessionConfig = learner.config
        self._is_paced = learner.config.max_staleness is not None
        self._recording = recording
        self._queue: BatchQueue[Event] = BatchQueue(1)
        self._queue.close()  # until it is open
        self._body: Body | None = None
        self._resume_point = ResumePoint()

    async def open(self) -> None:
        """Open the session: until ``close``, any task of this event loop may use it, and close it.

        ``async with session:`` does the same, and also cancels its block when the session fails; here a
        failure is logged, calls raise ``SessionFailed``, and ``is_done`` is true. If opening fails or is
        cancelled, agent and run are free again, and ``open`` may be called again; recorders, which are opened
        once, need a new session.

        Raises:
            SessionError: It was opened before, or the agent is in another open session.
            RunLocked: The run is written by another session.
            ConfigError, CheckpointCorrupt, CheckpointNotFound, JournalBroken: The run cannot be resumed.
            ConfigError, MissingDependency, RecorderFailed: A recorder cannot be used.
            WriteFailed: Nothing can be written there.
        """
        engine = await self._open()
        engine.when_failed(lambda failure: _logger.error("%s", failure, extra=KNOWN))

    async def close(self) -> None:
        """Drain what was accepted, make it durable, write a final checkpoint, and end; also when cancelled.

        Every call, from any task, waits for that end and raises the failure, if there was one. A session
        that was not opened stays as it is.

        Raises:
            SessionFailed: A part of the session failed.
            SessionError: The session is still opening, or was opened on another event loop.
        """
        await self._close(None)

    async def __aenter__(self) -> Self:
        engine = await self._open()
        self._body = Body()
        scope = self._body.scope
        engine.when_failed(lambda _: scope.cancel())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        try:
            if body is not None:
                body.leave(kind, error, traceback)
        finally:
            await self._close(error)  # raises the failure, if that is what cancelled the block

    def require_open(self, what: str) -> None:
        """Refuse a call that needs a running session.

        Raises:
            SessionClosed, SessionFailed: It does not run.
        """
        core = self.core
        if core.engine is not None and core.engine.parts.failure is not None:
            raise SessionFailed(*core.engine.parts.failure)
        if core.stage != "open":
            raise SessionClosed(what, entered=core.stage == "left")

    def _open_parts(self, what: str) -> Parts:
        """The parts of a running session, for a call on its event loop: no other loop would be woken up."""
        self.require_open(what)
        if get_ident() != self.core.thread:
            raise SessionError(
                f"{what}: the session runs on the event loop of another thread: call it there, as "
                "`anyio.from_thread` and `asyncio.run_coroutine_threadsafe` do, or use a SyncTrainingSession"
            )
        return self._parts

    # For parts that play and evaluate on it -----------------------------------------------------------

    def policy_source(self) -> PolicyBuffer:
        """Where to take published policies from, to act without ``act``; from any thread."""
        self.require_open("policy_source")
        return self.core.learner.policies

    @property
    def pacing(self) -> Pacing:
        """Which actors may begin an action now, under ``max_staleness``."""
        return self.engine.parts.pacing

    @property
    def supervised_actors(self) -> set[ActorId]:
        """Actors that another part watches; the session does not watch the ids added here."""
        return self.engine.parts.supervised

    def report_workers(self, source: Callable[[], tuple[WorkerStatus, ...]]) -> None:
        """Show these workers in ``health``, ``readings`` and the metrics; asked from any thread."""
        self.engine.parts.workers.add(source)

    def take_resume_point(self) -> ResumePoint:
        """With ``lockstep``, after a resume: the running episodes, for their actors to continue; once."""
        self.require_open("take_resume_point")
        point, self._resume_point = self._resume_point, ResumePoint()
        return point

    def on_end(self, call: Callable[[], None]) -> None:
        """Call this, on the event loop, when ``stop`` or ``max_opts`` ends the training."""
        self.engine.parts.intake.on_end.append(call)

    def fail(self, part: str, error: BaseException) -> None:
        """End the session with ``SessionFailed``: this part, which plays on it, has failed."""
        self.engine.fail(part, error)

    def log_event(self, event: RunEvent) -> None:
        """Record something that happened to the run in its ``events.jsonl``; from any thread.

        Without a run nothing is recorded. Of many events of one kind within a minute only the first 60 are.
        """
        self.engine.parts.events.note(event)

    def note_signal(self, name: str) -> None:
        """Record that a signal, for example ``SIGTERM``, is why the session ends; ``stop`` follows."""
        if self.core.engine is not None:
            self.core.engine.parts.events.signal = name

    @property
    def is_draining(self) -> bool:
        """Whether the session takes no more events of any kind: it is ending, or has ended."""
        return self._queue.is_closed

    def __del__(self) -> None:
        if self._open_engine is not None:
            with contextlib.suppress(RuntimeError):  # the event loop was closed
                self._open_engine.end_soon()
            place = "without a run" if self.run is None else f"of {self.run.directory}"
            text = (
                f"a TrainingSession {place} was never closed: leave `async with`, or `await session.close()`"
            )
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    async def _open(self) -> Engine:
        core, learner = self.core, self.core.learner
        if core.stage != "new":
            raise SessionError("a session is opened once: make a new one, with the same agent and run")
        core.stage = "opening"
        try:
            core.engine, self._resume_point = await Host.open(learner, self._recording)
        except BaseException:
            core.stage = "new"
            statistics = self._recording.statistics
            if self._recording.is_empty:  # recorders are opened once
                self._recording = Recording(statistics=statistics)
            core.learner = Learner(learner.agent, self.config, learner.stats, self.run, statistics)
            raise
        self._open_engine = engine = core.engine
        self._parts = parts = engine.parts
        self.config = parts.config
        self.intake: Intake = parts.intake
        self._queue = parts.queue
        core.stage, core.thread = "open", get_ident()
        return engine

    async def _close(self, error: BaseException | None) -> None:
        core = self.core
        if core.engine is None:
            if core.stage == "opening":
                raise SessionError("close: the session is still opening; cancel the task that opens it")
            return
        core.stage = "left"
        self._open_engine = None
        self.intake.is_plain = False  # observe goes the long way now, and is refused there
        await core.engine.close(error)
