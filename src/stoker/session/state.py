"""The state of a training between two events: what checkpoints hold, restore and records report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter

from stoker.agents.protocol import CountsOptSteps, LearningAgent
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.journaling import EventJournal
from stoker.session.metrics import Staleness, TrainingMetrics
from stoker.stats import StatsTracker
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["ActorRegistry", "TrainingState"]

_ACTOR_OF = attrgetter("actor_id")


class ActorRegistry:
    """Its attributes may be read from anywhere and are written by the learner alone.

    Attributes:
        episodes: ended episodes of each actor, ordered by last activity, most recent last.
        running: the actors with a running episode, and the number of the event that it began with.
        seen_at: when each actor's last event was consumed, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.episodes: LRUDict[ActorId, int] = LRUDict()
        self.running: dict[ActorId, int] = {}
        self.seen_at: dict[ActorId, float] = {}
        self._active: set[ActorId] = set()  # the actors of the present batch
        self._ended: set[ActorId] = set()  # actors whose last transition ended an episode that is not closed

    def restore(self, episodes: Mapping[ActorId, int], running: Mapping[ActorId, int]) -> None:
        """Go on from what a checkpoint says."""
        self.episodes.update(episodes)
        self.running.update(running)

    def begin(self) -> None:
        """Count every actor with a running episode as seen now."""
        self.seen_at = dict.fromkeys(self.running, time.monotonic())

    def step(self, experiences: Sequence[Experience], number: int) -> None:
        """Transitions come, the first of them as the event of that number."""
        actors = {*map(_ACTOR_OF, experiences)}
        self._active |= actors
        running, ended = self.running, self._ended
        goes_on = EpisodeStatus.CONTINUING
        if (
            actors <= running.keys()
            and ended.isdisjoint(actors)
            and not [None for experience in experiences if experience.status is not goes_on]
        ):
            return  # nearly always: nothing begins or ends among them
        for experience in experiences:
            actor_id = experience.actor_id
            if actor_id not in running or actor_id in ended:
                running[actor_id] = number
                ended.discard(actor_id)
            if experience.status is not goes_on:
                ended.add(actor_id)
            number += 1

    def start(self, actor_id: ActorId, number: int) -> None:
        """An episode begins, with the event of that number; one that was running is given up."""
        self._hear(actor_id)
        self.running.pop(actor_id, None)  # the oldest first
        self.running[actor_id] = number

    def end(self, actor_id: ActorId) -> None:
        """An episode has ended, and is counted."""
        self._hear(actor_id)
        self.running.pop(actor_id, None)
        self.episodes.put(actor_id, self.episodes.get(actor_id, 0) + 1)

    def give_up(self, actor_id: ActorId) -> None:
        """A running episode will not go on, and no other one begins."""
        del self.running[actor_id]
        self._active.discard(actor_id)

    def note_seen(self) -> None:
        """Count all actors of the present batch as seen now."""
        self.seen_at.update(dict.fromkeys(self._active, time.monotonic()))
        self._active.clear()

    def take_vanished(self) -> list[ActorId]:
        """Forget those who have been away longest, where there are too many to keep.

        Returns:
            Those of them with a running episode.
        """
        if len(self.seen_at) <= 2 * MAX_ACTORS:
            return []
        gone = sorted(self.seen_at, key=self.seen_at.__getitem__)[:-MAX_ACTORS]
        for actor_id in gone:
            del self.seen_at[actor_id]
        self._ended &= self.seen_at.keys()
        return [actor_id for actor_id in gone if actor_id in self.running]

    def _hear(self, actor_id: ActorId) -> None:
        self._active.add(actor_id)
        self._ended.discard(actor_id)


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
