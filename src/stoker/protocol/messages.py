"""The messages of protocol v1, as structs: what clients send, and what the service answers.

The documents of the API are generated from these structs, so a docstring here is what a client's author
reads there. What a service answers may have more fields in a later version, which its readers ignore; what
clients send must have no others. Values of spaces (observations, actions, masks) stay undecoded:
``stoker.protocol.values`` reads them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

PROTOCOL: Final = "stoker.v1"
"""The protocol's name and version, and the subprotocol of a WebSocket."""

LARGEST: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

LARGEST_FLOAT: Final = 3.4028234663852886e38
"""The largest finite number of 32 bits."""

ActorName = Annotated[
    str,
    Meta(min_length=1, max_length=128, description="Names one stream of episodes: printable characters."),
]
Seq = Annotated[int, Meta(ge=1, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Number = Annotated[float, Meta(ge=-LARGEST_FLOAT, le=LARGEST_FLOAT)]
"""A finite number; NaN is in no range."""
LARGEST_REWARD: Final = 1e9
"""From much larger rewards, networks of 32 bits learn infinity, which ends the training of everybody."""
Reward = Annotated[float, Meta(ge=-LARGEST_REWARD, le=LARGEST_REWARD)]
Text = Annotated[str, Meta(max_length=128)]
MemoText = Annotated[str, Meta(max_length=65536, description="Send it back unchanged with the next record.")]
MessageId = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)] | Text
Ack = Literal["accepted", "durable"]
TrainingState = Literal["opening", "running", "done", "failing", "off"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One step of one actor.

    Attributes:
        actor: whose step it is.
        seq: counts the actor's records from 1, without gaps, over the whole life of its stream.
        observation: what the actor sees now; at an episode's end the last observation of that episode.
        start: whether an episode begins here. Such a record has no action, memo, reward or end.
        seed: what the environment was reset with; only with ``start``.
        action: what was done since the record before; left out or null: the action of the last answer.
        memo: of the answer that the action is from.
        reward: for that action, at most 1e9 in size; needed unless ``start``.
        terminated: whether the episode is over: no later reward counts.
        truncated: whether it was cut off, by a time limit say.
        extras: numbers to log with the episode; only where it ends.
        act: whether an action is wanted.
        mode: how to choose it: explore, or the best one known.
        learn: whether the agent learns from the episode; counts at its start.
        action_mask: 1 for each action that is allowed now, if the observation space has such a mask.
    """

    actor: ActorName
    seq: Seq
    observation: Any
    start: bool = False
    seed: Count | None = None
    action: Any = None
    memo: MemoText | None = None
    reward: Reward | None = None
    terminated: bool = False
    truncated: bool = False
    extras: Annotated[dict[Text, Number], Meta(max_length=64)] = {}
    act: bool = True
    mode: Literal["explore", "exploit"] = "explore"
    learn: bool = True
    action_mask: Any = None

    @property
    def is_last(self) -> bool:
        """Whether the episode ends with this record."""
        return self.terminated or self.truncated


class StepMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Records of one or many actors, those of an actor in order. It is taken whole or not at all.

    Attributes:
        steps: the records.
        ack: when to answer: as soon as they are accepted, or once they are on disk.
        id: comes back in the answer.
    """

    steps: Annotated[list[Record], Meta(min_length=1, max_length=1024)]
    ack: Ack = "accepted"
    id: MessageId | UnsetType = UNSET


class StreamMessage(StepMessage, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a client sends on a stream after its hello: records, or a ping.

    Attributes:
        steps: the records, as in ``StepMessage``.
        ping: any integer; the answer is a pong with the same. Such a message has no steps.
    """

    steps: Annotated[list[Record], Meta(max_length=1024)] = []
    ping: Annotated[int, Meta(ge=-LARGEST, le=LARGEST)] | UnsetType = UNSET


class ActorAnswer(msgspec.Struct, frozen=True):
    """Where an actor's stream stands, and what to do next.

    Attributes:
        next: the number that the actor's next record must have.
        durable: records up to this number are on disk; keep those above it to send them again.
        action: for the last observation; null: none is wanted, or it is not known any more.
        memo: send it back with the record that reports the action's outcome.
        policy_version: which policy chose the action.
    """

    next: Seq
    durable: Count
    action: Any = None
    memo: MemoText | None = None
    policy_version: int | None = None


class StepAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a message of records.

    Attributes:
        actors: one entry for each actor of the message.
        training: ``done``: the training has all its steps; records beyond them are refused.
        id: of the message.
    """

    actors: dict[str, ActorAnswer]
    training: TrainingState
    id: MessageId | UnsetType = UNSET


class PongFrame(msgspec.Struct, frozen=True):
    """The answer to a ping.

    Attributes:
        pong: the number of the ping.
    """

    pong: int


class OpenEpisode(msgspec.Struct, frozen=True):
    """An actor's running episode.

    Attributes:
        length: its transitions so far.
        total_reward: the sum of its rewards.
        learn: whether the agent learns from it.
    """

    length: int
    total_reward: float
    learn: bool


class ActorState(msgspec.Struct, frozen=True):
    """Where an actor's stream stands.

    Attributes:
        actor: its name.
        answer: the last answer; its action and memo are null if they are not known any more.
        episode: the running episode; null: the next record must have ``start``.
        epoch: how often the actor was taken over.
    """

    actor: str
    answer: ActorAnswer
    episode: OpenEpisode | None = None
    epoch: int = 0


class Liveness(msgspec.Struct, frozen=True):
    """That the process works."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """That steps are taken now.

    Attributes:
        training: how the training stands.
    """

    training: TrainingState
    status: Literal["ok"] = "ok"


class EpisodeMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole episode that was played elsewhere. Sent again under the same id, it is taken only once.

    Attributes:
        episode_id: names the episode for ever.
        observations: one more than there are actions.
        actions: what was done on each observation but the last.
        rewards: for each action.
        terminated: whether the episode ended by itself.
        truncated: whether it was cut off; one of the two must be true.
        action_masks: of each observation, if they have masks.
        memos: of each action, if this service answered it.
        extras: numbers to log with the episode.
        seed: what the environment was reset with.
        ack: when to answer.
    """

    episode_id: Annotated[str, Meta(min_length=1, max_length=128)]
    observations: Annotated[list[Any], Meta(min_length=2, max_length=65537)]
    actions: Annotated[list[Any], Meta(min_length=1, max_length=65536)]
    rewards: Annotated[list[Reward], Meta(min_length=1, max_length=65536)]
    terminated: bool = False
    truncated: bool = False
    action_masks: Annotated[list[Any], Meta(max_length=65537)] | None = None
    memos: Annotated[list[MemoText], Meta(max_length=65536)] | None = None
    extras: Annotated[dict[Text, Number], Meta(max_length=64)] = {}
    seed: Count | None = None
    ack: Ack = "accepted"


class EpisodeAnswer(msgspec.Struct, frozen=True):
    """The answer to an episode.

    Attributes:
        episode_id: its name.
        length: its transitions.
        repeated: whether it was there before; then nothing was taken.
        durable: whether it is on disk.
        training: how the training stands.
    """

    episode_id: str
    length: int
    repeated: bool
    durable: bool
    training: TrainingState
