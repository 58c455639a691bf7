"""Which actors there are, and where their episodes stand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from stoker.journal import EpisodeStarted, StreamEnded, StreamMoved
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

_ACTOR_OF = attrgetter("actor_id")


class StreamPoint(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Where the numbered stream of one actor stands, exactly as far as the journal holds it.

    Attributes:
        seq: the number of its last step.
        observation: the last observation of the running episode; None: no episode is running.
        total_reward: undiscounted sum of the rewards of the episode that is running or has just ended.
        length: number of its transitions.
        status: how the last transition ended the episode, while its ``EpisodeEnded`` is missing; CONTINUING:
            nothing is missing.
        learns: whether the running episode is learned from.
    """

    seq: int
    observation: Any = None
    total_reward: float = 0.0
    length: int = 0
    status: EpisodeStatus = EpisodeStatus.CONTINUING
    learns: bool = True

    @property
    def is_done(self) -> bool:
        """Whether its last transition ended the episode; only its record is still to come."""
        return self.status is not EpisodeStatus.CONTINUING

    @property
    def is_learning(self) -> bool:
        """Whether an episode is running, or ends with its record, that is learned from."""
        return self.learns and (self.observation is not None or self.is_done)


class ActorRegistry:
    """The episodes of all actors. The attributes are written by the learner alone, and read from anywhere.

    Attributes:
        episodes: ended episodes of each actor, ordered by last activity, most recent last.
        running: the actors with a running episode, and the number of the event that it began with.
        seen_at: when each actor's last event was consumed, in monotonic seconds.
        last_seen_at: when any actor's was; None: not yet.
    """

    streams: Mapping[ActorId, StreamPoint] = {}
    """The state of each numbered stream; only ``NumberedActors`` keep it."""

    def __init__(self) -> None:
        self.episodes: LRUDict[ActorId, int] = LRUDict()
        self.running: dict[ActorId, int] = {}
        self.seen_at: dict[ActorId, float] = {}
        self.last_seen_at: float | None = None
        self._active: set[ActorId] = set()  # the actors of the present batch
        self._ended: set[ActorId] = set()  # actors whose last transition ended an episode that is not closed

    def encoded_streams(self) -> bytes | None:
        """The streams as a checkpoint holds them; None: none are kept."""
        return None

    def restore(
        self, episodes: Mapping[ActorId, int], running: Mapping[ActorId, int], streams: bytes | None = None
    ) -> None:
        """Replace the episodes, and the streams where they are kept, with those of a checkpoint."""
        del streams
        self.episodes.clear()
        self.episodes.update(episodes)
        self.running = dict(running)

    def begin(self) -> None:
        """Count every actor with a running episode as seen now."""
        self.seen_at = dict.fromkeys(self.running, time.monotonic())

    def step(self, experiences: Sequence[Experience] | ExperienceBatch, number: int) -> None:
        """Note transitions, the first of which is the event of that number."""
        if isinstance(experiences, ExperienceBatch):
            if self._step_each(experiences, number):
                return
            experiences = experiences.experiences()
        actors = {*map(_ACTOR_OF, experiences)}
        self._active |= actors
        running, ended = self.running, self._ended
        continuing = EpisodeStatus.CONTINUING
        if (
            actors <= running.keys()
            and ended.isdisjoint(actors)
            and not [None for experience in experiences if experience.status is not continuing]
        ):
            return  # nearly always: nothing begins or ends among them
        for offset, experience in enumerate(experiences):
            actor_id = experience.actor_id
            if actor_id not in running or actor_id in ended:
                running[actor_id] = number + offset
                ended.discard(actor_id)
            if experience.status is not continuing:
                ended.add(actor_id)

    def _step_each(self, batch: ExperienceBatch, number: int) -> bool:
        """Note a batch, unless an actor has several rows; return whether that is done."""
        ids, running, ended = batch.actor_ids, self.running, self._ended
        actors = {*ids}
        if len(actors) < len(ids):
            return False
        self._active |= actors
        if begun := (actors & ended) | (actors - running.keys()):
            running.update((actor_id, number + row) for row, actor_id in enumerate(ids) if actor_id in begun)
            ended -= begun
        over = batch.terminated | batch.truncated
        if over.any():
            ended.update(ids[row] for row in np.flatnonzero(over).tolist())
        return True

    def start(self, event: EpisodeStarted, number: int) -> None:
        """Begin an episode with this event, and abandon a running one."""
        self._note(event.actor_id)
        self.running[event.actor_id] = number

    def end(self, actor_id: ActorId) -> None:
        """End an episode, and count it."""
        self._note(actor_id)
        self.episodes.put(actor_id, self.episodes.get(actor_id, 0) + 1)

    def abandon(self, actor_id: ActorId) -> None:
        """End a running episode, if there is one, without another one."""
        self._ended.discard(actor_id)
        self.running.pop(actor_id, None)
        self._active.discard(actor_id)

    def leave(self, event: StreamMoved | StreamEnded) -> None:
        """Abandon a running episode: the actor is gone, or plays one that is not learned from."""
        self.abandon(event.actor_id)

    def note_seen(self) -> None:
        """Count all actors of the present batch as seen now."""
        if self._active:
            self.last_seen_at = now = time.monotonic()
            self.seen_at.update(dict.fromkeys(self._active, now))
            self._active.clear()

    def take_vanished(self) -> list[ActorId]:
        """Forget the actors away longest, if there are too many; return those with a running episode."""
        if len(self.seen_at) <= 2 * MAX_ACTORS:
            return []
        gone = sorted(self.seen_at, key=self.seen_at.__getitem__)[:-MAX_ACTORS]
        for actor_id in gone:
            del self.seen_at[actor_id]
        self._ended &= self.seen_at.keys()
        return [actor_id for actor_id in gone if actor_id in self.running]

    def _note(self, actor_id: ActorId) -> None:
        self._active.add(actor_id)
        self._ended.discard(actor_id)
        self.running.pop(actor_id, None)  # so that the oldest comes first
