"""Who is in an episode, since when, and who has been heard of: what a learner keeps about its actors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter

from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["ActorRegistry"]

_ACTORS = 10_000
"""How many actors are kept in mind: ids without end (one per connection, say) must not fill the memory."""

_ACTOR_OF = attrgetter("actor_id")


class ActorRegistry:
    """Its attributes may be read from anywhere and are written by the learner alone.

    Attributes:
        episodes: how many episodes of each actor have ended, those heard of last at the end.
        running: the actors with a running episode, and the number of the event that it began with.
        seen_at: when each actor's last event was consumed, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.episodes: dict[ActorId, int] = {}
        self.running: dict[ActorId, int] = {}
        self.seen_at: dict[ActorId, float] = {}
        self._heard: set[ActorId] = set()  # the actors of the present batch
        self._ended: set[ActorId] = set()  # actors whose last transition ended an episode that is not closed

    def restore(self, episodes: Mapping[ActorId, int], running: Mapping[ActorId, int]) -> None:
        """Go on from what a checkpoint says."""
        self.episodes, self.running = dict(episodes), dict(running)

    def begin(self) -> None:
        """Everybody with a running episode is heard of now."""
        self.seen_at = dict.fromkeys(self.running, time.monotonic())

    def step(self, experiences: Sequence[Experience], number: int) -> None:
        """Transitions come, the first of them as the event of that number."""
        actors = {*map(_ACTOR_OF, experiences)}
        self._heard |= actors
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
        self.episodes[actor_id] = self.episodes.pop(actor_id, 0) + 1  # the most recent last
        if len(self.episodes) > _ACTORS:
            del self.episodes[next(iter(self.episodes))]

    def give_up(self, actor_id: ActorId) -> None:
        """A running episode will not go on, and no other one begins."""
        del self.running[actor_id]
        self._heard.discard(actor_id)

    def note_heard(self) -> None:
        """All of the present batch are heard of now."""
        self.seen_at.update(dict.fromkeys(self._heard, time.monotonic()))
        self._heard.clear()

    def take_vanished(self) -> list[ActorId]:
        """Forget those who have been away longest, where there are too many to keep.

        Returns:
            Those of them with a running episode.
        """
        if len(self.seen_at) <= 2 * _ACTORS:
            return []
        gone = sorted(self.seen_at, key=self.seen_at.__getitem__)[:-_ACTORS]
        for actor_id in gone:
            del self.seen_at[actor_id]
        self._ended &= self.seen_at.keys()
        return [actor_id for actor_id in gone if actor_id in self.running]

    def _hear(self, actor_id: ActorId) -> None:
        self._heard.add(actor_id)
        self._ended.discard(actor_id)
