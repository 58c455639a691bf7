"""What a session says of itself: counters, rates, stats and health, for reading at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.learner import Learner
from stoker.session.metrics import StalenessReport
from stoker.session.watching import Health, health_of
from stoker.stats import StatsTracker
from stoker.types import ActorId

__all__ = ["Readings", "State"]


class State:
    """Where a session is in its life."""

    NEW, OPENING, OPEN, LEFT = range(4)


class Readings:
    """The reading side of a session.

    Args:
        learner: the session's.
        run: where it writes.
    """

    _state = State.NEW

    def __init__(self, learner: Learner, run: TrainingRun | None) -> None:
        self._learner = learner
        self._run = run
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The running parts; for the faces of a session, not for its users.

        Raises:
            SessionClosed: The session was not opened.
        """
        if self._engine is None:
            raise SessionClosed("engine", entered=False)
        return self._engine

    @property
    def agent(self) -> LearningAgent:
        """The agent; read it when the session has ended, while it runs the session owns it."""
        return self._learner.agent

    @property
    def run(self) -> TrainingRun | None:
        """Where it writes."""
        return self._run

    @property
    def stats(self) -> StatsTracker:
        """The stats over training episodes, for reading."""
        return self._learner.stats

    @property
    def total_steps(self) -> int:
        """Environment steps consumed, over all attempts."""
        return self._learner.total_steps

    @property
    def accepted_steps(self) -> int:
        """Environment steps accepted, over all attempts: those consumed, and those in the queue."""
        if self._engine is None:
            return self.total_steps
        intake = self._engine.intake
        return intake.accepted_steps - len(intake.observing)

    @property
    def total_episodes(self) -> int:
        """Training episodes consumed, over all attempts."""
        return self._learner.total_episodes

    @property
    def opt_steps(self) -> int:
        """Optimisation steps done, over all attempts."""
        return self._learner.opt_steps

    @property
    def policy_version(self) -> int:
        """How often weights were published in this process."""
        return self.engine.policies.version if self._engine is not None else 0

    @property
    def refused_steps(self) -> int:
        """Experiences that came after the limit: neither learned nor counted."""
        return self._engine.intake.n_refused if self._engine is not None else 0

    @property
    def is_done(self) -> bool:
        """Whether no more experiences are accepted: ``max_steps`` reached, stopped, left or failed."""
        return self._state == State.LEFT or (
            self._state == State.OPEN and (self.engine.failure is not None or self.engine.intake.is_full)
        )

    @property
    def remaining_steps(self) -> float:
        """How many more experiences will be accepted; infinity: there is no limit."""
        if self._state != State.OPEN or self.engine.failure is not None:
            return 0
        return max(0, self.engine.intake.limit - self.engine.intake.accepted_steps)

    @property
    def is_stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._engine is not None and self._engine.intake.is_stopped

    @property
    def steps_per_sec(self) -> float:
        """Environment steps per second that this process consumed; those from before a resume don't count."""
        if (engine := self._engine) is None:
            return 0.0
        elapsed_s = (engine.ended_at or time.monotonic()) - engine.started_at
        return (self.total_steps - engine.first_step) / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest mean reward that was evaluated, over all attempts, and the steps of its policy."""
        return None if self._engine is None else self._engine.best

    @property
    def best_value(self) -> float | None:
        """The highest mean reward that ``maybe_save_best`` was given, over all attempts."""
        return None if (best := self.best) is None else best[0]

    @property
    def queue_fill(self) -> float:
        """How full the event queue is, 0.0 to 1.0."""
        return self._engine.queue.fill if self._engine is not None else 0.0

    @property
    def learn_metrics(self) -> Mapping[str, float]:
        """What the last optimisation step had to say."""
        return self._learner.learn_metrics

    @property
    def staleness(self) -> StalenessReport:
        """How old the policies were whose transitions were learned, since the last record.

        Counted where ``max_staleness`` is set or metrics are recorded.
        """
        return self._learner.staleness.report()

    def busy_s(self) -> dict[str, float]:
        """Seconds that this process has spent acting, learning and writing."""
        if (engine := self._engine) is None:
            return {"act": 0.0, "learn": 0.0, "write": 0.0}
        return {
            "act": engine.inference.busy_s,
            "learn": self._learner.busy_s,
            "write": engine.writer.busy_s,
        }

    @property
    def n_forward_passes(self) -> int:
        """Forward passes that answered ``act`` in this process."""
        return self._engine.inference.n_passes if self._engine is not None else 0

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor were consumed, over all attempts."""
        return self._learner.actors.episodes.get(actor_id, 0)

    def health(self) -> Health:
        """Who waits for whom at this moment, and what has not been heard of.

        Raises:
            SessionClosed: The session was not entered.
        """
        if self._engine is None:
            raise SessionClosed("health", entered=False)
        engine = self._engine
        return health_of(engine.parts, engine.failure, is_over=engine.is_over, now=time.monotonic())

    def stats_summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """The stats over all training episodes, or over those of one actor."""
        return self._learner.stats.summary(actor_id)
