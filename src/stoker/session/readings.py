"""The reading side of a session: counters, rates, stats and health, at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.learner import Learner
from stoker.session.metrics import StalenessReport
from stoker.session.watching import Health, health_of
from stoker.stats import StatsTracker
from stoker.types import ActorId

__all__ = ["Core", "Readings", "SessionReadings", "State"]


class State:
    """The stages in the life of a session."""

    NEW, OPENING, OPEN, LEFT = range(4)


class Core:
    """The stage of a session, its learner and, once it was opened, its engine; shared by what reads them."""

    def __init__(self, learner: Learner) -> None:
        self.state = State.NEW
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
    """The reading side of a session.

    Args:
        core: what is read; ``TrainingSession`` writes it.
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
        """The run that it writes; None: none."""
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
        intake = self.core.engine.intake
        return intake.accepted_steps - len(intake.observing)

    @property
    def total_episodes(self) -> int:
        """Training episodes consumed, over all attempts."""
        return self.core.learner.total_episodes

    @property
    def opt_steps(self) -> int:
        """Optimization steps done, over all attempts."""
        return self.core.learner.opt_steps

    @property
    def policy_version(self) -> int:
        """How often weights were published in this process."""
        return self.engine.policies.version if self.core.engine is not None else 0

    @property
    def refused_steps(self) -> int:
        """Experiences that came after the limit: neither learned nor counted."""
        return self.core.engine.intake.n_refused if self.core.engine is not None else 0

    @property
    def is_done(self) -> bool:
        """Whether no more experiences are accepted: ``max_steps`` reached, stopped, left or failed."""
        return self.core.state == State.LEFT or (
            self.core.state == State.OPEN and (self.engine.failure is not None or self.engine.intake.is_full)
        )

    @property
    def remaining_steps(self) -> float:
        """How many more experiences will be accepted; infinity: there is no limit."""
        if self.core.state != State.OPEN or self.engine.failure is not None:
            return 0
        return max(0, self.engine.intake.limit - self.engine.intake.accepted_steps)

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self.core.engine is not None and self.core.engine.intake.is_stopped

    @property
    def steps_per_sec(self) -> float:
        """Environment steps per second that this process consumed; those from before a resume don't count."""
        if (engine := self.core.engine) is None:
            return 0.0
        elapsed_s = (engine.ended_at or time.monotonic()) - engine.started_at
        return (self.total_steps - engine.first_step) / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest mean reward that was evaluated, over all attempts, and the steps of its policy."""
        return None if self.core.engine is None else self.core.engine.best

    @property
    def best_value(self) -> float | None:
        """The highest mean reward that ``maybe_save_best`` was given, over all attempts."""
        return None if (best := self.best) is None else best[0]

    @property
    def queue_fill(self) -> float:
        """How full the event queue is, 0.0 to 1.0."""
        return self.core.engine.queue.fill if self.core.engine is not None else 0.0

    @property
    def learn_metrics(self) -> Mapping[str, float]:
        """Metrics of the last optimization step."""
        return self.core.learner.learn_metrics

    @property
    def staleness(self) -> StalenessReport:
        """How old the policies were whose transitions were learned, since the last record.

        Counted where ``max_staleness`` is set or metrics are recorded.
        """
        return self.core.learner.staleness.report()

    def busy_s(self) -> dict[str, float]:
        """Seconds that this process has spent acting, learning and writing."""
        if (engine := self.core.engine) is None:
            return {"act": 0.0, "learn": 0.0, "write": 0.0}
        return {
            "act": engine.inference.busy_s,
            "learn": self.core.learner.busy_s,
            "write": engine.writer.busy_s,
        }

    @property
    def n_forward_passes(self) -> int:
        """Forward passes that answered ``act`` in this process."""
        return self.core.engine.inference.n_passes if self.core.engine is not None else 0

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor were consumed, over all attempts."""
        return self.core.learner.actors.episodes.get(actor_id, 0)

    def health(self) -> Health:
        """Who waits for whom at this moment, and which actors are silent.

        Raises:
            SessionClosed: The session was not entered.
        """
        if self.core.engine is None:
            raise SessionClosed("health", entered=False)
        engine = self.core.engine
        return health_of(engine.parts, engine.failure, is_over=engine.is_over, now=time.monotonic())

    def stats_summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """The stats over all training episodes, or over those of one actor."""
        return self.core.learner.stats.summary(actor_id)
