"""One actor's stream as a table of trajectories: messages in, events or a refusal out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker import EpisodeStatus, Experience
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEvent, StreamMoved
from stoker.protocol import ProtocolError, Record, SpaceCodec, encode_memo
from stoker.service import Holder
from stoker.service.planning import Plan
from stoker.service.streams import Answered, StreamState, restored
from stoker.service.table import Stream
from stoker.session import StreamPoint
from stoker.session.decisions import Decision
from stoker.stats import EpisodeRecord

CODEC = SpaceCodec(gymnasium.spaces.Box(-9, 9, (1,), np.float32), gymnasium.spaces.Discrete(5))
CONTINUING, TERMINATED, TRUNCATED = (
    EpisodeStatus.CONTINUING,
    EpisodeStatus.TERMINATED,
    EpisodeStatus.TRUNCATED,
)

Message = Sequence[dict[str, Any]]


def start(seq: int, seen: float = 0, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "observation": [seen], "start": True, **fields}


def step(seq: int, seen: float = 0, reward: float | None = 1.0, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "observation": [seen], "reward": reward, **fields}


def last(seq: int, seen: float = 0, **fields: Any) -> dict[str, Any]:
    return step(seq, seen, **{"terminated": True, **fields})


class Player:
    """A stream and its client; each record that wants an action is answered with action ``seq % 5``."""

    def __init__(self, state: StreamState | None = None, *, learns: bool = True) -> None:
        self.stream = Stream("npc") if state is None else Stream("npc", state)
        self.holder = Holder("client")
        self.learns = learns

    def send(self, records: Message) -> list[Any]:
        """The events of a message, in short; the stream has moved then."""
        plan = Plan({"npc": self.stream}, self.holder, CODEC, learns=self.learns)
        plan.add([Record("npc", **fields) for fields in records])
        plan.commit(len(plan.events))
        if plan.drafts["npc"].wants_action:
            chosen = self.stream.accepted % 5
            decision = Decision(chosen, [float(chosen)], 7)
            self.stream.answered = Answered(chosen, encode_memo(7, chosen, [float(chosen)]), 7, decision)
        return [short(event) for event in plan.events]


def short(event: StreamEvent) -> Any:
    match event:
        case Experience():
            seen, then = float(event.observation[0]), float(event.next_observation[0])
            by = "policy" if event.policy_extras is not None else "client"
            return event.seq, seen, event.action, by, event.reward, then, event.status
        case EpisodeStarted(_, seed, seq, None):
            return "abandon", seed, seq
        case EpisodeStarted(_, seed, seq, observation):
            return "start", seq, float(observation[0]), seed
        case EpisodeEnded(record):
            return "end", record.total_reward, record.length, record.status, record.extras
        case StreamMoved(_, seq, observation, total, length):
            return "moved", seq, None if observation is None else float(observation[0]), total, length
        case _:
            raise AssertionError(event)


TRAJECTORIES: dict[str, list[tuple[Message, list[Any] | tuple[str, str | None]]]] = {
    "an episode that terminates, and the next one": [
        ([start(1, 5, seed=3)], [("start", 1, 5, 3)]),
        ([step(2, 6)], [(2, 5, 1, "policy", 1.0, 6, CONTINUING)]),
        (
            [last(3, 7, reward=-2, extras={"is_success": 1})],
            [(3, 6, 2, "policy", -2.0, 7, TERMINATED), ("end", -1.0, 2, TERMINATED, {"is_success": 1})],
        ),
        ([start(4, 8)], [("start", 4, 8, None)]),
        ([step(5, 9)], [(5, 8, 4, "policy", 1.0, 9, CONTINUING)]),
    ],
    "truncation is no termination, and both flags are termination": [
        ([start(1)], [("start", 1, 0, None)]),
        (
            [step(2, truncated=True)],
            [(2, 0, 1, "policy", 1.0, 0, TRUNCATED), ("end", 1.0, 1, TRUNCATED, {})],
        ),
        ([start(3)], [("start", 3, 0, None)]),
        (
            [last(4, truncated=True)],
            [(4, 0, 3, "policy", 1.0, 0, TERMINATED), ("end", 1.0, 1, TERMINATED, {})],
        ),
    ],
    "a whole episode in one message, with the client's own actions": [
        (
            [start(1, 1), step(2, 2, action=4), last(3, 3, action=3)],
            [
                ("start", 1, 1, None),
                (2, 1, 4, "client", 1.0, 2, CONTINUING),
                (3, 2, 3, "client", 1.0, 3, TERMINATED),
                ("end", 2.0, 2, TERMINATED, {}),
            ],
        )
    ],
    "repeats of all kinds change nothing; the rest of a message that begins with them is taken": [
        ([start(1, 1)], [("start", 1, 1, None)]),
        ([start(1, 1)], []),
        ([step(2, 2)], [(2, 1, 1, "policy", 1.0, 2, CONTINUING)]),
        ([start(1, 1)], []),
        ([step(2, 2)], []),
        ([start(1, 1), step(2, 2), step(3, 3)], [(3, 2, 2, "policy", 1.0, 3, CONTINUING)]),
        ([last(4, 4)], [(4, 3, 3, "policy", 1.0, 4, TERMINATED), ("end", 3.0, 3, TERMINATED, {})]),
        ([last(4, 4)], []),
    ],
    "a gap takes nothing, also of the records before it": [
        ([step(2)], ("gap", "steps[0].seq")),
        ([start(1), step(2, action=0), step(4, action=0)], ("gap", "steps[2].seq")),
        ([start(1)], [("start", 1, 0, None)]),
    ],
    "records of an actor ascend": [
        ([start(1), start(1)], ("invalid", "steps[1].seq")),
        ([start(1), step(2, action=1), start(1)], ("invalid", "steps[2].seq")),
        ([start(1)], [("start", 1, 0, None)]),
    ],
    "a step outside an episode": [
        ([step(1)], ("no-episode", "steps[0].start")),
        (
            [start(1), last(2, action=1)],
            [
                ("start", 1, 0, None),
                (2, 0, 1, "client", 1.0, 0, TERMINATED),
                ("end", 1.0, 1, TERMINATED, {}),
            ],
        ),
        ([step(3)], ("no-episode", "steps[0].start")),
        ([start(3)], [("start", 3, 0, None)]),
    ],
    "a start in an episode abandons it": [
        ([start(1, 1)], [("start", 1, 1, None)]),
        ([step(2, 2)], [(2, 1, 1, "policy", 1.0, 2, CONTINUING)]),
        ([start(3, 3)], [("start", 3, 3, None)]),
        ([last(4, 4)], [(4, 3, 3, "policy", 1.0, 4, TERMINATED), ("end", 1.0, 1, TERMINATED, {})]),
    ],
    "an action that differs from the answer is the client's; the answer's comes back in any form": [
        ([start(1)], [("start", 1, 0, None)]),
        ([step(2, action=1)], [(2, 0, 1, "policy", 1.0, 0, CONTINUING)]),
        ([step(3, action=4)], [(3, 0, 4, "client", 1.0, 0, CONTINUING)]),
        ([step(4, action=np.int64(3))], [(4, 0, 3, "policy", 1.0, 0, CONTINUING)]),
        ([step(5, memo=encode_memo(7, 4, [4.0]))], [(5, 0, 4, "policy", 1.0, 0, CONTINUING)]),
        ([step(6, memo=encode_memo(2, 2, [9.0]))], [(6, 0, 2, "policy", 1.0, 0, CONTINUING)]),
        ([step(7, action=1, memo=encode_memo(2, 2, [9.0]))], [(7, 0, 1, "client", 1.0, 0, CONTINUING)]),
        ([step(8, action=9)], ("invalid", "steps[0].action")),
        ([step(8, memo="nonsense")], ("invalid", "steps[0].memo")),
        ([step(8, memo=encode_memo(7, 99, None))], ("invalid", "steps[0].memo")),
        ([step(8)], [(8, 0, 2, "policy", 1.0, 0, CONTINUING)]),
    ],
    "without an answer there is no action": [
        ([start(1, act=False)], [("start", 1, 0, None)]),
        ([step(2)], ("invalid", "steps[0].action")),
        ([step(2, action=3), step(3)], ("invalid", "steps[1].action")),
        ([step(2, action=3)], [(2, 0, 3, "client", 1.0, 0, CONTINUING)]),
        ([step(3)], [(3, 0, 2, "policy", 1.0, 0, CONTINUING)]),
    ],
    "values that are missing or invalid": [
        ([start(1) | {"observation": None}], ("invalid", "steps[0].observation")),
        ([start(1) | {"observation": [1, 2]}], ("invalid", "steps[0].observation")),
        ([start(1)], [("start", 1, 0, None)]),
        ([step(2, reward=None)], ("invalid", "steps[0].reward")),
        ([step(2) | {"observation": [float("nan")]}], ("invalid", "steps[0].observation[0]")),
        ([last(2) | {"observation": None}], ("invalid", "steps[0].observation")),
        ([step(2)], [(2, 0, 1, "policy", 1.0, 0, CONTINUING)]),
    ],
    "the last record, said differently": [
        ([start(1, 1)], [("start", 1, 1, None)]),
        ([start(1, 2)], ("different", "steps[0].seq")),
        ([step(1, 1)], ("different", "steps[0].seq")),
        ([step(2, 2)], [(2, 1, 1, "policy", 1.0, 2, CONTINUING)]),
        ([step(2, 2, 5.0)], ("different", "steps[0].seq")),
        ([last(2, 2)], ("different", "steps[0].seq")),
        ([step(2, 2.5)], ("different", "steps[0].seq")),
        ([step(2, 2, action=1, memo=encode_memo(7, 1, [1.0]))], []),
        ([last(3, 3)], [(3, 2, 2, "policy", 1.0, 3, TERMINATED), ("end", 2.0, 2, TERMINATED, {})]),
        ([last(3, 3, truncated=True)], []),
        ([step(3, 3, truncated=True)], ("different", "steps[0].seq")),
    ],
    "an episode that is not learned is kept for its numbers": [
        ([start(1, 1, learn=False)], [("moved", 1, 1, 0.0, 0)]),
        ([step(2, 2)], [("moved", 2, 2, 1.0, 1)]),
        ([last(3, 3, learn=True)], [("moved", 3, None, 2.0, 2)]),
        ([start(4, 4)], [("start", 4, 4, None)]),
        ([start(5, 5, learn=False)], [("moved", 5, 5, 0.0, 0)]),
        ([start(6, 6)], [("start", 6, 6, None)]),
    ],
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_stream_takes_each_record_once_and_in_order(name: str) -> None:
    player = Player()
    for at, (message, expected) in enumerate(TRAJECTORIES[name]):
        if isinstance(expected, tuple):
            before = player.stream.state
            with pytest.raises(ProtocolError) as refusal:
                player.send(message)
            assert (refusal.value.kind, refusal.value.path) == expected, at
            assert player.stream.state is before, "a refused message moves nothing"
        else:
            assert player.send(message) == expected, at


def test_a_restored_stream_goes_on_where_the_run_ends() -> None:
    seen = np.array([4.0], np.float32)
    player = Player(restored(StreamPoint(8, seen, 3.5, 6)))
    assert player.send([step(8, 4)]) == [], "the last record, whose values but the observation are unknown"
    assert player.stream.answered is not None, "it gets a new action"
    with pytest.raises(ProtocolError, match="other values"):
        player.send([step(8, 5)])
    (taken,) = player.send([step(9, 6, memo=encode_memo(3, 2, [0.5]))])
    assert taken == (9, 4, 2, "policy", 1.0, 6, CONTINUING)
    assert player.send([last(10, 7)])[1] == ("end", 5.5, 8, TERMINATED, {})


def test_a_last_record_is_next_again_if_the_run_lacks_the_end_that_it_told() -> None:
    def half_taken() -> Player:
        return Player(restored(StreamPoint(8, None, 3.5, 6, status=TRUNCATED)))

    player = half_taken()
    with pytest.raises(ProtocolError, match="8 is next"):
        player.send([start(9, 1)])
    told = {"truncated": True, "extras": {"a": 1.0}}
    assert player.send([step(7, 3), step(8, 4, **told), start(9, 1)]) == [
        ("end", 3.5, 6, TRUNCATED, {"a": 1.0}),
        ("start", 9, 1, None),
    ]
    player = half_taken()
    with pytest.raises(ProtocolError, match="goes on with an episode"):
        player.send([step(8, 4)])
    assert player.send([start(8, 1)]) == [("end", 3.5, 6, TRUNCATED, {}), ("start", 8, 1, None)]


def test_a_fixed_policy_takes_a_stream_up_anywhere() -> None:
    player = Player(learns=False)
    assert player.send([step(50, 1, action=1)]) == [("moved", 50, 1, 1.0, 1)]
    assert player.send([last(51, 2)]) == [("moved", 51, None, 2.0, 2)]
    assert player.send([step(52, 3)]) == [("moved", 52, 3, 1.0, 1)]
    with pytest.raises(ProtocolError, match="53 is next"):
        player.send([step(60, 4)])


@pytest.mark.parametrize(
    ("begin", "end", "is_evaluation"),
    [
        (start(1, learn=False, mode="exploit"), last(2), True),
        (start(1, learn=False), last(2, mode="exploit"), False),
        (start(1, mode="exploit"), last(2, mode="exploit"), False),
    ],
)
def test_what_is_not_learned_and_not_explored_scores_the_policy(
    begin: dict[str, Any], end: dict[str, Any], is_evaluation: bool
) -> None:
    plan = Plan({"npc": Stream("npc")}, Holder("client"), CODEC)
    plan.add([Record("npc", **begin), Record("npc", **end, action=1, extras={"a": 1.0})])
    scored = [event.evaluated for event in plan.events if isinstance(event, StreamMoved) and event.evaluated]
    assert scored == ([EpisodeRecord(1.0, 1, TERMINATED, {"a": 1.0})] if is_evaluation else [])


def test_the_end_of_training_may_cut_a_message_anywhere() -> None:
    message = [start(1, 1), step(2, 2, action=1), last(3, 3, action=1), start(4, 4), step(5, 5, action=1)]
    for n_accepted, n_records in enumerate([0, 1, 2, 3, 3, 4, 5]):
        stream = Stream("npc")
        plan = Plan({"npc": stream}, Holder("client"), CODEC)
        plan.add([Record("npc", **fields) for fields in message])
        assert len(plan.events) == 6
        assert plan.commit(n_accepted) == n_records
        assert stream.accepted == n_records
        assert stream.state.is_open is (n_records in (1, 2, 4, 5))


def test_an_event_of_the_session_leads_to_its_record() -> None:
    plan = Plan({"npc": Stream("npc"), "a": Stream("a")}, Holder("client"), CODEC)
    plan.add([Record("npc", **start(1)), Record("npc", **last(2, action=1))])
    plan.add([Record("a", **start(1))])
    assert [plan.place_of(event) for event in range(4)] == [0, 1, 1, 2]
