"""Who may send an actor's records: one connection at a time, fenced off by the next one.

A connection holds an actor from its first accepted record until it is released. Another one is refused,
unless it takes the actor over; then the one before is fenced: two clients that both believe to play an actor
cannot both go on. Requests by themselves (HTTP) hold nothing, and are refused only while a connection holds
the actor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from stoker.protocol import ProtocolError


class Held(Protocol):
    """An actor's stream.

    Attributes:
        name: of the actor.
        holder: the connection that plays it; None: none does.
        epoch: how often it was taken over.
    """

    name: str
    holder: Holder | None
    epoch: int


class Holder:
    """A client: a connection, or all requests with one token.

    Args:
        name: of the client, for messages.
        prefix: of the actors that it may play.
        is_connection: whether it holds actors.
        take_over: the actors that it may take from other connections: some, all, or none.
        on_fenced: called when another connection has taken this actor.
    """

    __slots__ = ("_on_fenced", "fenced", "held", "is_connection", "is_gone", "name", "prefix", "take_over")

    def __init__(
        self,
        name: str,
        *,
        prefix: str = "",
        is_connection: bool = False,
        take_over: bool | Collection[str] = False,
        on_fenced: Callable[[str], object] | None = None,
    ) -> None:
        self.name: str = name
        self.prefix: str = prefix
        self.is_connection: bool = is_connection
        self.is_gone: bool = False
        """Whether it was released."""
        self.take_over: bool | frozenset[str] = (
            take_over if isinstance(take_over, bool) else frozenset(take_over)
        )
        self._on_fenced = on_fenced
        self.held: dict[str, Held] = {}
        """The actors that it holds."""
        self.fenced: set[str] = set()
        """The actors that were taken from it, at most as many as it held."""

    def may_take(self, actor: str) -> bool:
        """Whether it takes this actor from other connections; not back from one that has fenced it."""
        if actor in self.fenced:
            return False
        return self.take_over if isinstance(self.take_over, bool) else actor in self.take_over

    def lose(self, actor: str) -> None:
        """Another connection has taken this actor."""
        del self.held[actor]
        self.fenced.add(actor)
        if self._on_fenced is not None:
            self._on_fenced(actor)

    def release(self) -> None:
        """Let go of all its actors: the connection is gone. What it still has in flight holds none again."""
        self.is_gone = True
        for stream in self.held.values():
            stream.holder = None
        self.held.clear()
        self.fenced.clear()


def refuse_others(stream: Held, holder: Holder) -> None:
    """Refuse a client that may not send this stream's records.

    Raises:
        ProtocolError: 409 ``fenced``, the actor was taken from it; 409 ``held``, another connection plays it.
    """
    if stream.name in holder.fenced:
        raise ProtocolError(
            "fenced",
            f"actor {stream.name!r} was taken over by another connection (epoch {stream.epoch}): close this "
            "one",
        )
    if stream.holder is not None and stream.holder is not holder and not holder.may_take(stream.name):
        raise ProtocolError(
            "held",
            f"actor {stream.name!r} is played by another connection: close that one, or name the actor in "
            "`take_over` of your hello",
        )


def claim(stream: Held, holder: Holder) -> None:
    """Let a client hold a stream whose records it may send, and fence the one that held it.

    Not if the stream was taken from it while its message was in flight: that was its last one.
    """
    before = stream.holder
    if before is holder or stream.name in holder.fenced:
        return
    if before is not None:
        if not holder.may_take(stream.name):
            return
        stream.epoch += 1
        before.lose(stream.name)
        stream.holder = None
    if holder.is_connection and not holder.is_gone:
        stream.holder = holder
        holder.held[stream.name] = stream
