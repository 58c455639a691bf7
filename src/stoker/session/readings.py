"""What a session says of itself: counters, rates, stats and health, for reading at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed
from stoker.runs import TrainingRun
from stoker.session.engine import Engine
from stoker.session.health import Health, health_of
from stoker.session.staleness import StalenessReport
from stoker.session.turns import Turn
from stoker.stats import StatsTracker
from stoker.types import ActorId

__all__ = ["Readings", "State"]


class State:
    """Where a session is in its life."""

    NEW, OPEN, LEFT = range(3)


class Readings:
    """The reading side of a session.

    Args:
        engine: the session's.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        """The running parts; for the faces of a session, not for its users."""
        self._state = State.NEW

    @property
    def agent(self) -> LearningAgent:
        """The agent; read it when the session has ended, while it runs the session owns it."""
        return self.engine.learner.agent

    @property
    def run(self) -> TrainingRun | None:
        """Where it writes."""
        return self.engine.run

    @property
    def stats(self) -> StatsTracker:
        """The stats over training episodes, for reading."""
        return self.engine.learner.stats

    @property
    def total_steps(self) -> int:
        """Environment steps consumed, over all attempts."""
        return self.engine.learner.total_steps

    @property
    def total_episodes(self) -> int:
        """Training episodes consumed, over all attempts."""
        return self.engine.learner.total_episodes

    @property
    def opt_steps(self) -> int:
        """Optimisation steps done, over all attempts."""
        return self.engine.learner.opt_steps

    @property
    def policy_version(self) -> int:
        """How often weights were published in this process."""
        return self.engine.learner.policies.version if self._state != State.NEW else 0

    @property
    def refused_steps(self) -> int:
        """Experiences that came after the limit: neither learned nor counted."""
        return self.engine.intake.n_refused if self._state != State.NEW else 0

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
        return self._state != State.NEW and self.engine.intake.is_stopped

    @property
    def steps_per_sec(self) -> float:
        """Environment steps per second that this process consumed; those from before a resume don't count."""
        engine = self.engine
        elapsed_s = (engine.ended_at or time.monotonic()) - engine.started_at
        return (
            (self.total_steps - engine.first_step) / elapsed_s if engine.started_at and elapsed_s > 0 else 0.0
        )

    @property
    def best_value(self) -> float | None:
        """The highest mean reward that ``maybe_save_best`` was given, over all attempts."""
        return None if self.engine.best is None else self.engine.best[0]

    @property
    def queue_fill(self) -> float:
        """How full the event queue is, 0.0 to 1.0."""
        return self.engine.queue.fill if self._state != State.NEW else 0.0

    @property
    def learn_metrics(self) -> Mapping[str, float]:
        """What the last optimisation step had to say."""
        return self.engine.learner.metrics

    @property
    def staleness(self) -> StalenessReport:
        """How old the policies were whose transitions were learned, since the last record.

        Counted where ``max_staleness`` is set or metrics are recorded.
        """
        return self.engine.learner.staleness.report()

    def busy_s(self) -> dict[str, float]:
        """Seconds that this process has spent acting, learning and writing."""
        if self._state == State.NEW:
            return {"act": 0.0, "learn": 0.0, "write": 0.0}
        return {
            "act": self.engine.inference.busy_s,
            "learn": self.engine.learner.busy_s,
            "write": self.engine.writer.busy_s,
        }

    @property
    def n_forward_passes(self) -> int:
        """Forward passes that answered ``act`` in this process."""
        return self.engine.inference.n_passes if self._state != State.NEW else 0

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor were consumed, over all attempts."""
        return self.engine.learner.attendance.episodes.get(actor_id, 0)

    def health(self) -> Health:
        """Who waits for whom at this moment, and what has not been heard of.

        Raises:
            SessionClosed: The session was not entered.
        """
        if self._state == State.NEW:
            raise SessionClosed("health", entered=False)
        return health_of(self.engine, time.monotonic())

    @property
    def turn(self) -> Turn:
        """With ``lockstep``, after a resume: the running episodes, and who was the last to step."""
        return self.engine.turn

    def stats_summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """The stats over all training episodes, or over those of one actor."""
        return self.engine.learner.stats.summary(actor_id)
