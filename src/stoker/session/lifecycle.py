"""How a session is opened and closed, from any task or around a block.

The session lives in a host task (``hosting``); here is what its users see of that.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.queues import BatchQueue
from stoker.recorders import Recording
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.engine import Engine
from stoker.session.events import Event
from stoker.session.hosting import Body, Host
from stoker.session.learner import Learner
from stoker.session.pacing import Pacing
from stoker.session.policies import PolicySource
from stoker.session.readings import Core, Readings, State
from stoker.session.resume_point import ResumePoint
from stoker.stats import StatsTracker
from stoker.types import ActorId

__all__ = ["Lifecycle"]

logger = logging.getLogger("stoker.session")


class Lifecycle(Readings):
    """A session that is opened and closed; what happens in between is ``TrainingSession``.

    Args:
        agent: what learns.
        run: where the session writes, or None.
        stats: over training episodes.
        config: the settings.
        recording: where records of the metrics go.
    """

    _host: Host | None = None

    def __init__(
        self,
        agent: LearningAgent,
        run: TrainingRun | None,
        stats: StatsTracker,
        config: SessionConfig,
        recording: Recording,
    ) -> None:
        super().__init__(Core(Learner(agent, config, stats, run, recording.statistics)))
        self.config = config
        self._recording = recording
        self._queue: BatchQueue[Event] = BatchQueue(1)
        self._queue.close()  # until it is open
        self._body: Body | None = None

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
        engine.when_failed(partial(_log_failure, engine))

    async def close(self) -> None:
        """Drain what was accepted, make it durable, write a final checkpoint, and end; also when cancelled.

        Every call, from whatever task, waits for that end and raises the failure, if there was one. A
        session that was not opened stays as it is.

        Raises:
            SessionFailed: A part of the session failed.
            SessionError: The session is still opening, or was opened on another event loop.
        """
        await self._close(None)

    async def __aenter__(self) -> Self:
        engine = await self._open()
        self._body = Body()
        engine.when_failed(self._body.cancel)
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
        if self.core.engine is not None and self.core.engine.failure is not None:
            raise SessionFailed(*self.core.engine.failure)
        if self.core.state != State.OPEN:
            raise SessionClosed(what, entered=self.core.state == State.LEFT)

    # For those who play and evaluate on it ------------------------------------------------------------

    def policy_source(self) -> PolicySource:
        """Where to take published policies from, to act without ``act``; from any thread."""
        self.require_open("policy_source")
        return self.engine.policies

    @property
    def pacing(self) -> Pacing:
        """Which actors may begin an action now, under ``max_staleness``."""
        return self.engine.pacing

    @property
    def supervised_actors(self) -> set[ActorId]:
        """Actors that another part watches; the session does not watch the ids added here."""
        return self.engine.parts.supervised

    def take_resume_point(self) -> ResumePoint:
        """With ``lockstep``, after a resume: the running episodes, for their actors to continue; once."""
        self.require_open("take_resume_point")
        return self.engine.take_resume_point()

    def on_end(self, call: Callable[[], None]) -> None:
        """Call this, on the event loop, when ``stop`` or ``max_opts`` ends the training."""
        self.engine.intake.on_end.append(call)

    def fail(self, part: str, error: BaseException) -> None:
        """End the session with ``SessionFailed``: this part of it, which plays on it, has failed."""
        self.engine.fail(part, error)

    @property
    def is_draining(self) -> bool:
        """Whether the session takes no more events of any kind: it is ending, or has ended."""
        return self._queue.is_closed

    def __del__(self) -> None:
        if self._host is not None and self.core.state == State.OPEN:
            with contextlib.suppress(RuntimeError):  # the event loop was closed
                self._host.end_soon()
            place = "without a run" if self.run is None else f"of {self.run.directory}"
            warnings.warn(
                f"a TrainingSession {place} was never closed: leave `async with`, or `await session.close()`",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    async def _open(self) -> Engine:
        if self.core.state != State.NEW:
            raise SessionError("a session is opened once: make a new one, with the same agent and run")
        self.core.state = State.OPENING
        learner = self.core.learner
        try:
            self._host = await Host.open(learner, self.run, self.config, self._recording)
        except BaseException:
            self.core.state = State.NEW
            statistics = self._recording.statistics
            if self._recording.is_empty:  # recorders are opened once
                self._recording = Recording(statistics=statistics)
            self.core.learner = Learner(learner.agent, self.config, learner.stats, self.run, statistics)
            raise
        self.core.engine = engine = self._host.engine
        self.intake = engine.intake
        self._is_lockstep = self.config.lockstep
        self._is_paced = self.config.max_staleness is not None
        if self._is_lockstep:
            self.intake.is_plain = False
        self._queue = engine.queue
        self.core.state = State.OPEN
        return engine

    async def _close(self, error: BaseException | None) -> None:
        if self._host is None:
            if self.core.state == State.OPENING:
                raise SessionError("close: the session is still opening; cancel the task that opens it")
            return
        self.core.state = State.LEFT
        self.intake.is_plain = False  # observe goes the long way now, and is refused there
        await self._host.close(error)


def _log_failure(engine: Engine) -> None:
    if engine.failure is not None:
        logger.error("%s", SessionFailed(*engine.failure))
