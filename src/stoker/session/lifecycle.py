"""What both kinds of session share: counters and health at any time; and how a session is opened and closed.

The session runs in a host task (``opening``); this module is its side for users.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.journal import DatasetGiven
from stoker.queues import BatchQueue
from stoker.recorders import Recording
from stoker.runs import TrainingRun
from stoker.runs.events import RunEvent
from stoker.session.acting import Pacing, PolicyBuffer
from stoker.session.config import SessionConfig
from stoker.session.engine import Engine
from stoker.session.events import Event
from stoker.session.explaining import explanation_of, write_trace_of
from stoker.session.intake import NO_LIMIT
from stoker.session.learner import Learner
from stoker.session.metrics import StalenessReport
from stoker.session.opening import Body, Host, ResumePoint
from stoker.session.parts import Parts, report_of
from stoker.session.timing import COMPUTING, LEARNING, OBSERVING, OFFLOADED, PUBLISHING, STAGING
from stoker.session.watching import Health, health_of
from stoker.stats import EvalReport, StatsTracker
from stoker.telemetry import Clocks, Explanation
from stoker.types import ActorId, AnyPath

__all__ = ["Core", "Lifecycle", "Readings", "SessionReadings"]

logger = logging.getLogger("stoker.session")


class Core:
    """The stage of a session, its learner and, once it was opened, its engine; shared by its readings."""

    def __init__(self, learner: Learner) -> None:
        self.stage: Literal["new", "opening", "open", "left"] = "new"
        self.learner = learner
        self.engine: Engine | None = None


class SessionReadings(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a session at one moment, named and described as its properties are."""

    total_steps: int
    accepted_steps: int
    refused_steps: int
    total_episodes: int
    opt_steps: int
    policy_version: int
    n_forward_passes: int
    steps_per_sec: float
    queue_fill: float
    best_value: float | None
    is_done: bool
    is_stopped: bool


class Readings:
    """The reading side of a session, at any time.

    Args:
        core: what is read; ``Lifecycle`` writes it.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        """For stoker's own parts, not for users."""

    @property
    def engine(self) -> Engine:
        """The running parts; for stoker's own parts, not for users.

        Raises:
            SessionClosed: The session was not opened.
        """
        if self.core.engine is None:
            raise SessionClosed("engine", entered=False)
        return self.core.engine

    def readings(self) -> SessionReadings:
        """All counters at this moment, for dashboards and metrics; from any thread."""
        return SessionReadings(**{name: getattr(self, name) for name in SessionReadings.__struct_fields__})

    @property
    def agent(self) -> LearningAgent:
        """The agent; read it when the session has ended, while it runs the session owns it."""
        return self.core.learner.agent

    @property
    def run(self) -> TrainingRun | None:
        """The run that the session writes; None: none."""
        return self.core.learner.run

    @property
    def stats(self) -> StatsTracker:
        """The stats over training episodes, for reading."""
        return self.core.learner.stats

    @property
    def total_steps(self) -> int:
        """Environment steps consumed, over all attempts."""
        return self.core.learner.total_steps

    @property
    def accepted_steps(self) -> int:
        """Environment steps accepted, over all attempts: those consumed, and those in the queue."""
        if self.core.engine is None:
            return self.total_steps
        intake = self.core.engine.parts.intake
        return intake.accepted_steps - sum(intake.observing.values())

    @property
    def total_episodes(self) -> int:
        """Training episodes consumed, over all attempts."""
        return self.core.learner.total_episodes

    @property
    def opt_steps(self) -> int:
        """Optimization steps done, over all attempts."""
        return self.core.learner.opt_steps

    @property
    def kept_steps(self) -> int:
        """Environment steps that triggered no learning, for example those of a data set."""
        return self.core.learner.kept.steps

    @property
    def dataset(self) -> DatasetGiven | None:
        """The data set that the agent observed last, over all attempts, and how far."""
        return self.core.learner.kept.dataset

    @property
    def policy_version(self) -> int:
        """The agent's optimization steps when the policy that acts now was published, over all attempts."""
        return 0 if self.core.engine is None else self.core.learner.policies.version

    @property
    def refused_steps(self) -> int:
        """Experiences that came after the limit: neither learned nor counted."""
        return 0 if self.core.engine is None else self.core.engine.parts.intake.n_refused

    @property
    def is_done(self) -> bool:
        """Whether no more experiences are accepted: ``max_steps`` reached, stopped, left or failed."""
        core = self.core
        if core.stage != "open" or core.engine is None:
            return core.stage == "left"
        parts = core.engine.parts
        return parts.failure is not None or parts.intake.is_full

    @property
    def remaining_steps(self) -> float:
        """How many more experiences will be accepted; infinity: there is no limit."""
        core = self.core
        if core.engine is None or core.stage != "open" or core.engine.parts.failure is not None:
            return 0
        intake = core.engine.parts.intake
        return math.inf if intake.limit == NO_LIMIT else max(0, intake.limit - intake.accepted_steps)

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self.core.engine is not None and self.core.engine.parts.intake.is_stopped

    @property
    def steps_per_sec(self) -> float:
        """Environment steps per second that this process consumed; those from before a resume don't count."""
        if self.core.engine is None:
            return 0.0
        parts = self.core.engine.parts
        elapsed_s = (parts.ended_at or time.monotonic()) - parts.started_at
        return (self.total_steps - parts.first_step) / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest mean reward that was evaluated, over all attempts, and the steps of its policy."""
        return None if self.core.engine is None else self.core.engine.evaluations.best

    @property
    def best_value(self) -> float | None:
        """The highest mean reward that ``maybe_save_best`` was given, over all attempts."""
        return None if (best := self.best) is None else best[0]

    @property
    def queue_fill(self) -> float:
        """How full the event queue is, 0.0 to 1.0."""
        return 0.0 if self.core.engine is None else self.core.engine.parts.queue.fill

    @property
    def n_forward_passes(self) -> int:
        """Forward passes that answered ``act`` in this process."""
        return 0 if self.core.engine is None else self.core.engine.parts.inference.n_passes

    @property
    def learn_metrics(self) -> Mapping[str, float]:
        """Metrics of the last optimization step."""
        return self.core.learner.learn_metrics

    @property
    def staleness(self) -> StalenessReport:
        """How old the policies were whose transitions were learned, since the last record.

        Counted where ``max_staleness`` is set or metrics are recorded.
        """
        return StalenessReport.of(self.core.learner.metrics.staleness)

    def busy_s(self) -> dict[str, float]:
        """Seconds that this process has spent acting, learning and writing."""
        parts = None if self.core.engine is None else self.core.engine.parts
        act = 0.0 if parts is None else parts.inference.clock.seconds(COMPUTING, OFFLOADED)
        learn = self.core.learner.clock.seconds(OBSERVING, LEARNING, PUBLISHING, STAGING)
        return {"act": act, "learn": learn, "write": 0.0 if parts is None else parts.writer.busy_s}

    @property
    def clocks(self) -> Clocks:
        """The state clocks of its parts; parts that play on it add theirs."""
        return self.core.learner.metrics.clocks

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor were consumed, over all attempts."""
        return self.core.learner.actors.episodes.get(actor_id, 0)

    def health(self) -> Health:
        """Who waits for whom at this moment, and which actors are silent.

        Raises:
            SessionClosed: The session was not opened.
        """
        return health_of(self._opened_parts("health"), now=time.monotonic())

    def explain(self, seconds: float = 60.0) -> Explanation:
        """Say which part limits the training, who waits for whom, and what would help; from any thread.

        Args:
            seconds: how far back it looks: a minute at most, and not before the session was opened.

        Raises:
            SessionClosed: The session was not opened.
        """
        return explanation_of(self._opened_parts("explain"), seconds)

    def write_trace(self, path: AnyPath) -> None:
        """Write what each part did in the last minute, for chrome://tracing or ui.perfetto.dev. Blocks.

        Raises:
            SessionClosed: The session was not opened.
            WriteFailed: The file cannot be written.
        """
        write_trace_of(self._opened_parts("write_trace"), Path(path))

    def _opened_parts(self, what: str) -> Parts:
        if self.core.engine is None:
            raise SessionClosed(what, entered=False)
        return self.core.engine.parts

    def stats_summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """The stats over all training episodes, or over those of one actor."""
        return self.core.learner.stats.summary(actor_id)

    def eval_report(self, n_episodes: int) -> EvalReport:
        """The stats over the last ``n_episodes`` evaluation episodes of this process, at most 1,000.

        Its ``total_steps`` is that of the policy evaluated last.

        Raises:
            ConfigError: ``n_episodes`` is below 1.
        """
        engine = self.core.engine
        records = () if engine is None else engine.evaluations.records
        return report_of(records, self.core.learner, n_episodes)


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
        engine.when_failed(lambda failure: logger.error("%s", failure))

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
        self.require_open(what)
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
        self.intake, self._queue = parts.intake, parts.queue
        core.stage = "open"
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
