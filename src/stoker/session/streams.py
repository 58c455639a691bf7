"""The numbered streams of remote actors: where each one stands after the events that were learned.

A service must know after a restart which step of each actor comes next, and the observation that it goes on
from. So the learner keeps both, a checkpoint holds them, and the tail that a resume learns again moves them
on: they are exactly what the journal holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import stoker.journal.codec as codec
from stoker.journal import EpisodeStarted, StreamEnded, StreamMoved
from stoker.session.registry import ActorRegistry, StreamPoint
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

_CONTINUING = EpisodeStatus.CONTINUING


class NumberedActors(ActorRegistry):
    """The episodes of all actors, and the state of those streams whose steps have numbers.

    A stream is kept until ``StreamEnded``, however long its actor is silent.

    Args:
        before: the actors so far, whose state it takes over.
    """

    def __init__(self, before: ActorRegistry | None = None) -> None:
        super().__init__()
        if before is not None:
            self.__dict__.update(before.__dict__)
        self._points: dict[ActorId, StreamPoint] = {}
        self.streams: Mapping[ActorId, StreamPoint] = self._points

    def encoded_streams(self) -> bytes:
        """The streams as a checkpoint holds them: observations keep their types and their bits."""
        points = self._points
        columns = [[getattr(point, name) for point in points.values()] for name in _COLUMNS]
        statuses = [point.status.value for point in points.values()]
        return codec.encode([[*points], statuses, *columns], "streams")

    def restore(
        self, episodes: Mapping[ActorId, int], running: Mapping[ActorId, int], streams: bytes | None = None
    ) -> None:
        """Replace the episodes and the streams with those of a checkpoint."""
        super().restore(episodes, running)
        self._points.clear()
        if streams is None:
            return
        actor_ids, statuses, *columns = codec.decode(streams)
        for actor_id, status, *values in zip(actor_ids, statuses, *columns, strict=True):
            fields = dict(zip(_COLUMNS, values, strict=True))
            self._points[actor_id] = StreamPoint(**fields, status=EpisodeStatus(status))
        self._ended = {actor_id for actor_id, point in self._points.items() if point.is_done}

    def step(self, experiences: Sequence[Experience] | ExperienceBatch, number: int) -> None:
        """Note transitions, the first of which is the event of that number."""
        super().step(experiences, number)
        if isinstance(experiences, ExperienceBatch):  # has no numbers
            return
        points = self._points
        for experience in experiences:
            if (seq := experience.seq) is None:
                continue
            actor_id, status, reward, length = experience.actor_id, experience.status, experience.reward, 1
            before = points.get(actor_id)
            if before is not None and before.learns and before.observation is not None:
                reward += before.total_reward
                length += before.length
            after = experience.next_observation if status is _CONTINUING else None
            points[actor_id] = StreamPoint(seq, after, reward, length, status)

    def start(self, event: EpisodeStarted, number: int) -> None:
        """Begin an episode, or, with an event that has no number, only abandon the running one."""
        super().start(event, number)
        actor_id = event.actor_id
        if event.seq is not None:
            self._points[actor_id] = StreamPoint(event.seq, event.observation)
        else:
            self.abandon(actor_id)
            self._close(actor_id)

    def end(self, actor_id: ActorId) -> None:
        """End an episode, and count it."""
        super().end(actor_id)
        self._close(actor_id)

    def leave(self, event: StreamMoved | StreamEnded) -> None:
        """Abandon a running episode; note a step that is not learned, or forget the stream."""
        super().leave(event)
        actor_id = event.actor_id
        if isinstance(event, StreamEnded):
            self._points.pop(actor_id, None)
            self.seen_at.pop(actor_id, None)
        elif event.observation is None:
            self._points[actor_id] = StreamPoint(event.seq)
        else:
            self._points[actor_id] = StreamPoint(
                event.seq, event.observation, event.total_reward, event.length, learns=False
            )

    def _close(self, actor_id: ActorId) -> None:
        """Keep only the number of a stream."""
        if (point := self._points.get(actor_id)) is not None:
            self._points[actor_id] = StreamPoint(point.seq)


_COLUMNS = tuple(name for name in StreamPoint.__struct_fields__ if name != "status")
