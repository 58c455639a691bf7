"""Where running episodes stood at a checkpoint, so that a deterministic environment can be brought back.

Read from the journal when a run in lockstep is resumed. An episode is brought back by resetting the
environment with the episode's seed and doing its actions again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stoker.journal import EpisodeStarted, Journal
from stoker.session.state import TrainingState
from stoker.types import ActorId, Experience

__all__ = ["ResumePoint", "RunningEpisode", "read_resume_point"]


class RunningEpisode(msgspec.Struct, frozen=True):
    """An episode up to a checkpoint.

    Attributes:
        seed: what its environment was reset with.
        steps: its transitions so far, in order.
    """

    seed: int | None
    steps: tuple[Experience, ...]

    @property
    def is_done(self) -> bool:
        """Whether its last transition ended it; only its record is still to come."""
        return bool(self.steps) and self.steps[-1].status.is_done


class ResumePoint(msgspec.Struct, frozen=True):
    """Where actors that take turns stood.

    Attributes:
        episodes: the running episodes by actor.
        last_actor: whose event was the last; None: there was none.
    """

    episodes: Mapping[ActorId, RunningEpisode] = msgspec.field(
        default_factory=dict["ActorId", RunningEpisode]
    )
    last_actor: ActorId | None = None


def read_resume_point(learner: TrainingState, journal: Journal) -> ResumePoint:
    """The running episodes of a learner that was just restored. Blocks.

    Raises:
        JournalBroken: The journal does not reach back to where they began.
    """
    last = learner.n_events
    if last == 0:
        return ResumePoint()
    starts = learner.actors.running
    seeds: dict[ActorId, int | None] = {}
    steps: dict[ActorId, list[Experience]] = {actor_id: [] for actor_id in starts}
    last_actor: ActorId | None = None
    for number, event in journal.read(min([last - 1, *starts.values()]), last):
        actor_id = last_actor = event.actor_id
        if number >= starts.get(actor_id, last):
            if isinstance(event, Experience):
                steps[actor_id].append(event)
            elif isinstance(event, EpisodeStarted):
                seeds[actor_id] = event.seed
    episodes: dict[ActorId, Any] = {
        actor_id: RunningEpisode(seeds.get(actor_id), tuple(steps[actor_id])) for actor_id in starts
    }
    return ResumePoint(episodes, last_actor)
