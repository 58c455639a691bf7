"""The state of a training between two events: what checkpoints hold, restore and records report."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.agents.protocol import CountsOptSteps, LearningAgent
from stoker.runs import TrainingRun
from stoker.session.actor_registry import ActorRegistry
from stoker.session.config import SessionConfig
from stoker.session.journaling import EventJournal
from stoker.session.metrics import TrainingMetrics
from stoker.session.staleness import Staleness
from stoker.stats import StatsTracker

__all__ = ["TrainingState"]


class TrainingState:
    """The agent, its counters, its stats and its actors. All counters are over all attempts of the run.

    Args:
        agent: what learns; its ``total_steps`` is where the count starts.
        config: the session's settings.
        stats: over training episodes.
        run: where rows and checkpoints go, or None.
        statistics: what records report of a metric beside its mean.
    """

    def __init__(
        self,
        agent: LearningAgent,
        config: SessionConfig,
        stats: StatsTracker,
        run: TrainingRun | None,
        statistics: Sequence[str] = (),
    ) -> None:
        self.agent = agent
        self.stats = stats
        self.run = run
        self.total_steps: int = agent.total_steps
        self.total_episodes: int = 0
        self.opt_steps: int = agent.opt_steps if isinstance(agent, CountsOptSteps) else 0
        self.n_events: int = 0
        """Steps, episode starts and episode ends consumed: what a journal counts."""
        self.eval_episodes: int = 0
        """Rows of evaluation episodes."""
        self.kept_steps: int = 0
        """Environment steps that triggered no learning, such as those of a data set."""
        self.n_records: int = 0
        """Rows of metrics."""
        self.actors = ActorRegistry()
        """The actors and their running episodes."""
        self.journal: EventJournal | None = None
        self.is_lockstep = config.lockstep
        self.metrics = TrainingMetrics(is_kept=config.records, statistics=statistics)
        """The content of the next record."""
        self.staleness = Staleness()
        """Ages of the policies whose transitions were learned since the last record."""
        self._saved_at: tuple[int, ...] | None = None

    @property
    def attempt(self) -> int:
        """The number of the run's present attempt; 0 without a run."""
        return 0 if self.run is None else self.run.attempt

    @property
    def run_started_at(self) -> str | None:
        """When the run was created (ISO 8601), which identifies its checkpoints; None without a run."""
        return None if self.run is None else self.run.metadata.started_at.isoformat()

    @property
    def is_saved(self) -> bool:
        """Whether a checkpoint of exactly this state was staged or restored."""
        return self._saved_at == self._counts()

    def note_saved(self) -> None:
        """Remember that a checkpoint holds this state."""
        self._saved_at = self._counts()

    def _counts(self) -> tuple[int, ...]:
        return self.n_events, self.eval_episodes, self.n_records, self.opt_steps
