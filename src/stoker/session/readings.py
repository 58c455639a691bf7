"""The reading side of a session: counters, health and where its time goes, from any thread."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.errors import ConfigError, SessionClosed
from stoker.journal import DatasetGiven
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.intake import NO_LIMIT
from stoker.session.learner import Learner
from stoker.session.measuring import explanation_of, training_reading, write_trace_of
from stoker.session.metrics import StalenessReport
from stoker.session.parts import Parts, report_of
from stoker.session.registry import StreamPoint
from stoker.session.timing import COMPUTING, LEARNING, OBSERVING, OFFLOADED, PUBLISHING, STAGING
from stoker.session.watching import Health, health_of
from stoker.session.workers import WorkerStatus
from stoker.stats import EvalReport, StatsTracker, WindowStats
from stoker.telemetry import Clocks, Explanation, TrainingReading
from stoker.types import ActorId, AnyPath


class Core:
    """The stage of a session, its learner and, once it was opened, its engine; shared by its readings."""

    def __init__(self, learner: Learner) -> None:
        self.stage: Literal["new", "opening", "open", "left"] = "new"
        self.thread = 0  # whose event loop it runs on
        self.learner = learner
        self.engine: Engine | None = None


class SessionReadings(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a session at one moment, named and described as its properties are.

    ``window`` is that of ``session.stats`` over the training episodes of all actors, and ``actors`` has that
    of each of the 10,000 actors at most that ended an episode last, the latest of them last. ``workers`` are
    those of a cluster that host actors; empty: there are none.
    """

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
    window: WindowStats
    actors: Mapping[ActorId, WindowStats]
    workers: tuple[WorkerStatus, ...] = ()


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
        windows: dict[str, Any] = {"window": self.stats.window(), "actors": self.stats.windows()}
        names = (name for name in SessionReadings.__struct_fields__ if name not in windows)
        return SessionReadings(**{name: getattr(self, name) for name in names}, **windows)

    @property
    def workers(self) -> tuple[WorkerStatus, ...]:
        """The workers elsewhere that host actors, at this moment; empty: there are none."""
        return () if self.core.engine is None else self.core.engine.parts.workers.now()

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

    @property
    def streams(self) -> dict[ActorId, StreamPoint]:
        """Where each numbered stream stands, of the events consumed so far; after ``open``, where it goes on.

        A copy. Empty where the run was never ``numbered``.
        """
        return dict(self.core.learner.actors.streams)

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor were consumed, over all attempts."""
        return self.core.learner.actors.episodes.get(actor_id, 0)

    def health(self) -> Health:
        """Who waits for whom at this moment, and which actors are silent.

        Raises:
            SessionClosed: The session was not opened.
        """
        return health_of(self._opened_parts("health"), now=time.monotonic())

    def telemetry(self) -> TrainingReading:
        """What metrics systems show, at this moment; from any thread, and in a few milliseconds at most.

        Raises:
            SessionClosed: The session was not opened.
        """
        parts = self._opened_parts("telemetry")
        return training_reading(parts, self.engine.evaluations)

    def explain(self, seconds: float = 60.0) -> Explanation:
        """Say which part limits the training, who waits for whom, and what would help; from any thread.

        Args:
            seconds: how far back it looks: a minute at most, and not before the session was opened.

        Raises:
            ConfigError: ``seconds`` is negative.
            SessionClosed: The session was not opened.
        """
        if not seconds >= 0:
            raise ConfigError(f"explain: seconds={seconds!r}: give a number of at least 0")
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
