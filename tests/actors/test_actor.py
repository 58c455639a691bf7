"""The turns of actors in lockstep: in order, without actors that have left, from the resume point on."""

from __future__ import annotations

import random

import anyio
import pytest
from hypothesis import given, strategies as st

from stoker import EpisodeStatus, Experience
from stoker.actors.actor import RoundRobin
from stoker.session import ResumePoint, RunningEpisode

pytestmark = pytest.mark.anyio


def turns_of(count: int, first: int = 0) -> RoundRobin:
    return RoundRobin(range(count), ResumePoint({first: RunningEpisode(1, ())}, first))


async def rounds(turns: RoundRobin, place: int, n: int, order: list[int]) -> None:
    for _ in range(n):
        await turns.take(place)
        order.append(place)
        if random.Random(place + len(order)).random() < 0.5:
            await anyio.lowlevel.checkpoint()
        turns.pass_on(place)
    turns.leave(place)


@pytest.mark.parametrize("first", [0, 2, 3])
async def test_turns_go_round_in_order(first: int) -> None:
    turns, order = turns_of(4, first), list[int]()
    async with anyio.create_task_group() as tasks:
        for place in (3, 1, 0, 2):
            tasks.start_soon(rounds, turns, place, 5, order)
    assert order == [(first + k) % 4 for k in range(20)]


async def test_actors_that_leave_are_skipped() -> None:
    turns, order = turns_of(3), list[int]()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for place, n in enumerate((1, 3, 2)):
                tasks.start_soon(rounds, turns, place, n, order)
    assert order == [0, 1, 2, 1, 2, 1]


@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=6), data=st.data())
def test_actors_that_left_block_no_other(counts: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(counts) - 1))

    async def play() -> list[int]:
        turns, order = turns_of(len(counts), first), list[int]()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for place, n in enumerate(counts):
                    tasks.start_soon(rounds, turns, place, n, order)
        return order

    order = anyio.run(play)
    assert [order.count(place) for place in range(len(counts))] == counts


async def test_a_turn_is_kept_until_it_is_passed_on_and_passing_it_twice_is_once() -> None:
    turns = turns_of(3, 1)
    with anyio.fail_after(5):
        await turns.take(1)
        await turns.take(1)
        turns.pass_on(0)  # not its turn: nothing happens
        await turns.take(1)
        turns.pass_on(1)
        turns.pass_on(1)
        await turns.take(2)
        turns.pass_on(2)
        await turns.take(0)
    with anyio.move_on_after(0.01) as waiting:
        await turns.take(1)
    assert waiting.cancelled_caught


async def test_an_actor_that_leaves_while_it_waits_loses_no_turn() -> None:
    turns = turns_of(3)
    turns.leave(1)
    turns.pass_on(0)
    with anyio.fail_after(5):
        await turns.take(2)
        turns.leave(2)
        await turns.take(0)
        turns.pass_on(0)  # alone: round to itself
        await turns.take(0)
        turns.leave(0)


def step(status: EpisodeStatus = EpisodeStatus.CONTINUING) -> Experience:
    return Experience(0, 0, 0.0, 0, status)


RUNNING = RunningEpisode(1, (step(),))
BEGUN = RunningEpisode(1, ())
OVER = RunningEpisode(1, (step(), step(EpisodeStatus.TERMINATED)))
WHERE = [
    ("nothing was", ResumePoint(), 0),
    ("had its step", ResumePoint({"a": RUNNING, "b": RUNNING}, "b"), 2),
    ("the last place had its step", ResumePoint({"c": RUNNING}, "c"), 0),
    ("began an episode", ResumePoint({"b": BEGUN}, "b"), 1),
    ("is to say that its episode ended", ResumePoint({"b": OVER}, "b"), 1),
    ("ended an episode", ResumePoint({"a": RUNNING}, "b"), 2),
    ("is not here", ResumePoint({"x": RUNNING}, "x"), 0),
]


@pytest.mark.parametrize(("turn", "place"), [w[1:] for w in WHERE], ids=[w[0] for w in WHERE])
async def test_where_a_resumed_training_continues(turn: ResumePoint, place: int) -> None:
    actors = ["a", "b", "c"]
    turns = RoundRobin(actors, turn)
    with anyio.fail_after(5):
        await turns.take(actors[place])
    for other in {*actors} - {actors[place]}:
        with anyio.move_on_after(0) as waiting:
            await turns.take(other)
        assert waiting.cancelled_caught
