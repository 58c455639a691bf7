"""The bounds of a service: nothing that a client sends or leaves undone costs more than these allow."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from stoker.lru import MAX_ACTORS
from stoker.settings import Count, Positive, Settings

KEPT_EPISODES: Final = 1000
"""How many whole episodes are known by their ids: those that came last."""


class Limits(Settings, frozen=True, kw_only=True):
    """What a service allows its clients.

    Attributes:
        message_bytes: the size of a message.
        records: records in a message.
        depth: how deep the values of a message may nest.
        actors: how many actors have a number; ``DELETE /v1/actors/{actor}`` makes room for another one.
        connections: open WebSockets.
        credit_per_actor: records of one actor on a WebSocket that are not answered yet.
        credit: the same of all actors on a WebSocket together.
        max_wait_s: how long a message waits for room, or to become durable, before it is refused.
        actor_timeout_s: after this long without a record, an actor's running episode is abandoned.
        flush_interval_s: how much later than accepted a record is durable at most, while the disk keeps up.
        hello_s: within this time a WebSocket's first message must come.
        head_s: within this time a request's head must be complete.
        body_s: within this time a request's body must be complete.
        send_s: a client that does not read its answers for this long is disconnected.
        idle_s: a WebSocket without a message for this long is closed.
    """

    message_bytes: Count = 1 << 20
    records: Annotated[int, Meta(ge=1, le=1024)] = 1024
    depth: Annotated[int, Meta(ge=4, le=64)] = 16
    actors: Annotated[int, Meta(ge=1, le=MAX_ACTORS - KEPT_EPISODES)] = 4096
    connections: Count = 1024
    credit_per_actor: Count = 64
    credit: Count = 1024
    max_wait_s: Positive = 10.0
    actor_timeout_s: Positive = 300.0
    flush_interval_s: Positive = 0.5
    hello_s: Positive = 5.0
    head_s: Positive = 10.0
    body_s: Positive = 30.0
    send_s: Positive = 10.0
    idle_s: Positive = 600.0
