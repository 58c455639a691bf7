"""One actor's records: what each call makes of them, and what of them is kept for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stoker.client.streams import RemoteStream
from stoker.errors import ActorConflict, InvalidExperience, SessionFailed
from stoker.protocol import ActorAnswer, Record, decode_step, encode_msgpack
from stoker.types import ActMode, EpisodeStatus, Experience

OBSERVATIONS = [np.full(2, number, np.float32) for number in range(9)]
CONTINUING, TERMINATED, TRUNCATED = EpisodeStatus


class Stream(RemoteStream):
    """A stream whose calls are short, and that reads its records as a server does."""

    def __init__(self, last: int = 0) -> None:
        super().__init__("a", "farm-a", last, encode_msgpack)

    def act(self, number: int, mode: ActMode = ActMode.EXPLORE) -> int:
        return self.ask(OBSERVATIONS[number], lambda: OBSERVATIONS[number], mode)

    def step(self, number: int, action: int = 1, status: EpisodeStatus = CONTINUING) -> None:
        step = Experience(OBSERVATIONS[number - 1], action, 0.5, OBSERVATIONS[number], status, "a")
        self.observe(step, lambda plain: plain, lambda plain: plain)

    def answer(self, next_: int, durable: int = 0, action: int | None = None) -> None:
        memo = None if action is None else f"memo of {next_ - 1}"
        self.answered(ActorAnswer(next_, durable, action, memo, 7), action, keeps=True)

    def sent(self) -> list[Record]:
        records = [b"\x81\xa5steps\x91" + kept.data for kept in self.to_send()]
        return [record for data in records for record in decode_step(data, "msgpack").steps]


def numbers(records: Sequence[Record]) -> list[int]:
    return [record.seq for record in records]


def test_a_step_is_one_record_that_asks_for_the_next_action() -> None:
    stream = Stream()
    stream.begin(42)
    assert stream.sent() == []
    assert stream.act(0) == 1
    [start] = stream.sent()
    assert start == Record("farm-a", 1, [0.0, 0.0], start=True, seed=42)
    stream.answer(2, action=1)
    stream.step(1)
    assert stream.sent() == [], "it waits for the call that completes it"
    assert stream.act(1, ActMode.EXPLOIT) == 2
    [step] = stream.sent()
    assert step == Record("farm-a", 2, [1.0, 1.0], action=1, memo="memo of 1", reward=0.5, mode="exploit")
    stream.answer(3, action=0)
    stream.step(2, action=0, status=TERMINATED)
    stream.end(TERMINATED, {"is_success": 1})
    [last] = stream.sent()
    assert (last.action, last.memo, last.terminated, last.truncated) == (0, "memo of 2", True, False)
    assert last.extras == {"is_success": 1.0}


def test_without_act_the_server_is_asked_for_nothing_and_told_what_was_done() -> None:
    stream = Stream()
    stream.step(1)
    stream.step(2)
    stream.seal(wants_action=False)
    assert [(record.start, record.act, record.action) for record in stream.sent()] == [
        (True, False, None),
        (False, False, 1),
        (False, False, 1),
    ]


def test_another_action_than_the_servers_goes_without_its_memo() -> None:
    stream = Stream()
    stream.act(0)
    stream.answer(2, action=1)
    stream.step(1, action=0)
    stream.act(1)
    [step] = stream.sent()
    assert (step.action, step.memo) == (0, None)


def test_an_episode_that_is_cut_from_outside_ends_with_its_last_step() -> None:
    stream = Stream()
    stream.step(1)
    stream.end(TRUNCATED, {})
    assert [(record.terminated, record.truncated) for record in stream.sent()] == [
        (False, False),
        (False, True),
    ]
    stream.act(5)
    assert stream.sent()[-1].start


def test_records_are_kept_until_they_are_on_disk_and_sent_again_from_where_the_server_says() -> None:
    stream = Stream()
    for number in range(1, 5):
        stream.act(number - 1)
        stream.answer(number + 1, durable=number // 2, action=1)
        stream.step(number)
    stream.act(4)
    assert numbers(stream.sent()) == [5]
    assert [kept.seq for kept in stream.kept] == [3, 4, 5]
    before = {kept.seq: kept.data for kept in stream.kept}
    stream.answer(3, durable=2)  # it was killed
    assert numbers(stream.sent()) == [3, 4, 5]
    assert {kept.seq: kept.data for kept in stream.to_send()} == before, "the same bytes again"
    stream.answer(6, durable=5, action=0)
    assert not stream.kept
    assert stream.chosen is not None
    assert (stream.chosen.seq, stream.chosen.action) == (5, 0)
    assert stream.steps == 4, "each step counts once"


def test_the_last_record_goes_again_for_its_action_if_only_a_problem_said_that_it_is_there() -> None:
    stream = Stream()
    stream.act(0)
    stream.answered(ActorAnswer(2, 1), None, keeps=True, is_reply=False)  # another actor had a gap
    assert numbers(stream.sent()) == [1]
    stream.answer(2, durable=1, action=1)
    assert stream.chosen is not None
    assert stream.to_send() == []
    assert not stream.kept


def test_a_message_under_way_holds_the_next_one_back() -> None:
    stream = Stream()
    stream.act(0)
    stream.in_flight = 1
    assert stream.to_send() == []
    stream.in_flight = 0
    assert numbers(stream.sent()) == [1]


def test_the_last_record_goes_again_to_learn_that_it_is_on_disk() -> None:
    stream = Stream()
    stream.act(0)
    stream.answer(2, action=1)
    assert stream.to_send() == []
    stream.wants_durable = True
    assert numbers(stream.sent()) == [1]
    stream.answer(2, durable=1, action=1)
    assert stream.to_send() == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda stream: stream.step(5), id="a step from elsewhere"),
        pytest.param(lambda stream: stream.act(7), id="an action for another observation"),
        pytest.param(lambda stream: stream.end(TERMINATED, {}), id="an end after act without an outcome"),
    ],
)
def test_a_call_that_does_not_continue_the_episode_changes_nothing(wrong: Any) -> None:
    stream = Stream()
    stream.act(0)
    stream.answer(2, durable=1, action=1)
    with pytest.raises(InvalidExperience, match=r"'a'.*(on_episode_start|observe the outcome)"):
        wrong(stream)
    stream.step(1)
    stream.act(1)
    assert [(record.seq, record.memo) for record in stream.sent()] == [(2, "memo of 1")]


def test_the_number_of_a_refused_record_is_used_again_and_the_caller_hears_once() -> None:
    stream = Stream()
    stream.act(0)
    stream.answer(2, durable=1, action=1)
    stream.step(1)
    stream.act(1)
    stream.refused(InvalidExperience("observation[0]: not finite"))
    with pytest.raises(InvalidExperience, match="not finite"):
        stream.check()
    stream.begin(None)
    stream.act(3)
    [start] = stream.sent()
    assert (start.seq, start.start) == (2, True)


def test_another_client_under_the_same_name_is_a_conflict_for_good() -> None:
    stream = Stream()
    stream.act(0)
    stream.answer(9)
    for _ in range(2):
        with pytest.raises(ActorConflict, match=r"'a'.*another client"):
            stream.check()
    assert stream.to_send() == []


def test_a_server_that_has_lost_what_was_on_its_disk_ends_the_session() -> None:
    stream = Stream(last=10)
    stream.act(0)
    with pytest.raises(SessionFailed, match="only 4 records of actor 'farm-a', and had 10 on disk"):
        stream.answer(5, durable=4)


def test_a_server_without_a_disk_is_not_waited_for() -> None:
    stream = Stream()
    stream.act(0)
    stream.answered(ActorAnswer(2, 0, 1, "memo"), 1, keeps=False)
    assert not stream.kept
    assert stream.durable == 1
