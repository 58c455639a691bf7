"""How a client and a service meet: the hello, its welcome, and what a client must know of the service.

Docstrings and rules are as in ``stoker.protocol.messages``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stoker.protocol.messages import ActorAnswer, ActorName, Text, TrainingState
from stoker.protocol.spaces import Spaces


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first message on a stream.

    Attributes:
        protocol: the version that the client speaks.
        token: for clients that cannot send headers.
        client: its name and version, for logs.
        spaces: what the client plays; refused if the run has others.
        spaces_digest: the same in short, as the spec has it.
        take_over: actors to take over from other connections; true: each that it sends records for.
    """

    protocol: Literal["stoker.v1"] = "stoker.v1"
    token: Annotated[str, Meta(max_length=4096)] | None = None
    client: Text | None = None
    spaces: Spaces | None = None
    spaces_digest: Text | None = None
    take_over: bool | Annotated[list[ActorName], Meta(max_length=4096)] = False


class SpecLimits(msgspec.Struct, frozen=True):
    """What a client must keep to.

    Attributes:
        message_bytes: the length of a message.
        records: in one message.
        depth: how deep a message may nest.
        credit: unanswered records of one connection.
        credit_per_actor: unanswered records of one actor.
        max_wait_s: how long a message waits for the learner before it is refused as ``busy``.
        actor_timeout_s: the episode of an actor that is silent for longer is abandoned.
        flush_interval_s: how much later than accepted a record is durable at most, while the disk keeps up.
        idle_s: a connection without a message, pings included, is closed after this time.
    """

    message_bytes: int
    records: int
    depth: int
    credit: int
    credit_per_actor: int
    max_wait_s: float
    actor_timeout_s: float
    flush_interval_s: float
    idle_s: float


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client must know about the service.

    Attributes:
        protocol: the version that it speaks.
        version: of stoker.
        mode: whether it learns, or answers actions of a fixed policy.
        training: how the training stands; ``off``: nothing is learned here.
        spaces: of observations and actions; null: the first client's hello says them.
        spaces_digest: changes with the spaces, names apart.
        action_mask: the length of the mask that each observation needs; null: none.
        limits: what it takes at most.
        features: ``durable``: there is a run on disk; ``policy``: weights can be downloaded; ``off-policy``:
            actions may differ from those answered; ``spaces-from-client``.
        run: the name of the run.
        run_id: changes with each new run: its streams begin at 1 again.
        policy_version: which policy answers now.
    """

    version: str
    training: TrainingState
    limits: SpecLimits
    protocol: Literal["stoker.v1"] = "stoker.v1"
    mode: Literal["training", "inference"] = "training"
    spaces: Spaces | None = None
    spaces_digest: str | None = None
    action_mask: int | None = None
    features: list[str] = []
    run: str | None = None
    run_id: str | None = None
    policy_version: int | None = None


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a hello.

    Attributes:
        credit: records that may be unanswered on this connection.
        credit_per_actor: of these, for one actor.
        spec: what ``GET /v1/spec`` says.
        actors: where the actors that were taken over by name stand.
    """

    credit: int
    credit_per_actor: int
    spec: Spec
    actors: dict[str, ActorAnswer] = {}


class HelloFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a hello is sent."""

    hello: Hello


class WelcomeFrame(msgspec.Struct, frozen=True):
    """How a welcome is sent."""

    welcome: Welcome
