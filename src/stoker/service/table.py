"""The streams that a service knows, by actor: as many as ``Limits.actors``, plus the last whole episodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stoker.protocol import ProtocolError
from stoker.service.holders import Holder
from stoker.service.streams import NEW, Answered, StreamState, restored
from stoker.service.turns import Turn
from stoker.session import StreamPoint
from stoker.types import ActorId

EPISODE_PREFIX = "episode:"
"""What the names of streams begin with that are whole episodes."""


class Stream:
    """An actor's stream, and who plays it.

    Attributes:
        name: of the actor.
        state: where it stands.
        answered: what its last record was answered with; None: it wanted no action, or that is unknown.
        durable: the number of its last record that is on disk.
        is_dirty: whether it has moved since it was listed for a commit.
        seen_at: when its last record came, by the service's clock.
        last_turn, n_turns: the messages that are in flight (``turns``).
        holder: the connection that plays it; None: none holds it.
        epoch: how often it was taken over.
    """

    __slots__ = (
        "answered",
        "durable",
        "epoch",
        "holder",
        "is_dirty",
        "last_turn",
        "n_turns",
        "name",
        "seen_at",
        "state",
    )

    def __init__(self, name: str, state: StreamState = NEW, seen_at: float = 0.0) -> None:
        self.name: str = name
        self.state: StreamState = state
        self.answered: Answered | None = None
        self.durable: int = state.next - 1
        self.is_dirty: bool = False
        self.seen_at: float = seen_at
        self.last_turn: Turn | None = None
        self.n_turns: int = 0
        self.holder: Holder | None = None
        self.epoch: int = 0

    @property
    def accepted(self) -> int:
        """The number of its last accepted record."""
        return self.state.next - 1

    def forget(self) -> None:
        """Be as new: its actor was ended."""
        self.state, self.answered, self.durable = NEW, None, 0
        if self.holder is not None:
            self.holder.held.pop(self.name, None)
            self.holder = None


class StreamTable(dict[str, Stream]):
    """Streams by actor. Those that have no record are gone once no message is in flight.

    Args:
        points: the streams that the run holds.
        n_most: how many actors may be known; those of the run are, whatever their number.
        now: the time.
    """

    def __init__(self, points: Mapping[ActorId, StreamPoint], n_most: int, now: float) -> None:
        super().__init__()
        self.n_most = n_most
        self.episodes: dict[str, Stream] = {}
        """Those of whole episodes, the oldest first."""
        for actor_id, point in points.items():
            self.put(Stream(str(actor_id), restored(point), now))

    @property
    def n_actors(self) -> int:
        """How many actors are known."""
        return len(self) - len(self.episodes)

    def put(self, stream: Stream) -> None:
        """Know a stream."""
        self[stream.name] = stream
        if stream.name.startswith(EPISODE_PREFIX):
            self.episodes[stream.name] = stream

    def of(self, actors: Iterable[str], holder: Holder) -> dict[str, Stream]:
        """The streams of these actors, each once; unknown ones begin.

        Raises:
            ProtocolError: 403 ``forbidden``, the client may not play one; 429 ``too-many-actors``.
        """
        found: dict[str, Stream] = {}
        try:
            for actor in actors:
                if actor not in found:
                    if not actor.startswith(holder.prefix):
                        raise forbidden(f"actor {actor!r}", holder)
                    found[actor] = self.get(actor) or self._begin(actor)
        except ProtocolError:
            self.release(found.values())
            raise
        return found

    def episode(self, name: str) -> Stream:
        """The stream of a whole episode, new if it is unknown."""
        stream = self.get(name)
        if stream is None:
            self.put(stream := Stream(name))
        return stream

    def release(self, streams: Iterable[Stream]) -> None:
        """Forget those of these streams that have no record, and no message in flight."""
        for stream in streams:
            if stream.state is NEW and not stream.n_turns and self.get(stream.name) is stream:
                del self[stream.name]
                self.episodes.pop(stream.name, None)
                stream.forget()

    def _begin(self, actor: str) -> Stream:
        if actor.startswith(EPISODE_PREFIX):
            raise ProtocolError(
                "forbidden",
                f"actor {actor!r}: names that begin with {EPISODE_PREFIX!r} are those of whole episodes",
            )
        if self.n_actors >= self.n_most:
            raise ProtocolError(
                "too-many-actors",
                f"actor {actor!r} is unknown, and {self.n_actors} actors are known already: reuse a name, or "
                "DELETE /v1/actors/{actor} of one that will not come back",
            )
        stream = self[actor] = Stream(actor)
        return stream


def forbidden(what: str, holder: Holder) -> ProtocolError:
    """The error that a client may not use a name."""
    detail = f"{what}: {holder.name!r} may use names that begin with {holder.prefix!r}"
    return ProtocolError("forbidden", detail)
