"""Events of several kinds in one call: all are in or out, also when cancelled, exactly up to the limit."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
import pytest
from training_parts import dqn

from stoker import (
    ActMode,
    ActorConflict,
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    SessionFailed,
    TrainingSession,
)
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEnded, StreamMoved
from stoker.session.acting import SHORT_PASS_NS
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
ON, OVER = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED
SEEN = np.zeros(3, np.float32)


def step(actor: Any, seq: int, status: EpisodeStatus = ON, **fields: Any) -> Experience:
    given = {"observation": SEEN, "action": 0, "reward": 1.0, "next_observation": SEEN, **fields}
    return Experience(**given, status=status, actor_id=actor, seq=seq)


def start(actor: Any, seq: int = 1) -> EpisodeStarted:
    return EpisodeStarted(actor, 7, seq, SEEN)


def end(actor: Any, length: int = 1) -> EpisodeEnded:
    return EpisodeEnded(EpisodeRecord(1.0, length, OVER), actor)


def numbers(agent: FakeAgent) -> list[tuple[Any, int | None]]:
    return [(experience.actor_id, experience.seq) for experience in agent.experiences]


class Held(FakeAgent):
    """An agent that waits in ``observe`` until ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def observe(self, experiences: Sequence[Experience]) -> None:
        assert self.go.wait(30)
        super().observe(experiences)


@asynccontextmanager
async def full() -> AsyncGenerator[tuple[Held, TrainingSession]]:
    """A session whose learner is held, with a full queue."""
    agent = Held()
    async with TrainingSession(agent, queue_capacity=4, numbered=True) as session:
        try:
            await session.observe(step("other", 1))
            while session.health().n_events_waiting:  # until the learner has it
                await anyio.wait_all_tasks_blocked()
            for seq in range(2, 6):
                await session.observe(step("other", seq))
            yield agent, session
        finally:
            agent.go.set()


async def waiting(session: TrainingSession) -> None:
    with anyio.fail_after(30):
        while not session.health().n_observing:
            await anyio.lowlevel.checkpoint()


async def test_events_of_several_actors_are_consumed_in_order() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, numbered=True) as session:
        events = (start("a"), start("b"), step("a", 2), step("b", 2, OVER), end("b"), step("a", 3))
        assert await session.observe_events(events) == 6
        assert await session.observe_events([StreamMoved("b", 3, SEEN), StreamEnded("a")]) == 2
        await session.barrier()
        assert numbers(agent) == [("a", 2), ("b", 2), ("a", 3)]
        assert agent.started == ["a", "b", "b", "b", "a"], "the end of an episode and of a stream begin anew"
        assert (session.total_steps, session.total_episodes) == (3, 1)
        assert session.actor_episodes("b") == 1


REFUSED = [
    (step("a", 2, reward=float("nan")), "reward"),
    (step("a", -1), "seq"),
    (Experience(SEEN, 0, 1.0, SEEN, ON, "a"), "seq"),
    (EpisodeStarted("a", None, 1), "seq"),
    (EpisodeStarted("a", None, None, SEEN), "seq"),
    (EpisodeStarted("a", None, 1, np.zeros(4, np.float32)), "observation"),
    (StreamMoved("a", 1, SEEN, float("inf")), "total_reward"),
    (StreamMoved("a", 1, np.full(3, np.nan, np.float32)), "observation"),
    (StreamMoved("a", 1, SEEN, 0.0, -1), "length"),
    (StreamMoved("a", 1, None, 0.0, 1, EpisodeRecord(0.0, 1, ON)), "status"),
    (EpisodeEnded(EpisodeRecord(1.0, 1, ON), "a"), "status"),
    (StreamEnded("\ud800"), "actor_id"),
    ("no event", "event"),
]


@pytest.mark.parametrize(("wrong", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_one_invalid_event_refuses_all_and_is_named(wrong: Any, field: str) -> None:
    async with TrainingSession(dqn(), numbered=True) as session:
        with pytest.raises(InvalidExperience, match=r"event 2 of 4: .*none was taken") as refused:
            await session.observe_events([start("b"), step("b", 2), wrong, step("b", 3)])
        assert (refused.value.index, refused.value.field) == (2, field)
        assert session.accepted_steps == 0
        assert await session.observe_events([start("b"), step("b", 2)]) == 2
        await session.barrier()
        assert session.total_steps == 1


async def test_a_session_that_is_not_numbered_keeps_no_streams() -> None:
    async with TrainingSession(FakeAgent()) as session:
        assert await session.observe_events([EpisodeStarted("a", 3), step("a", 2)]) == 2
        with pytest.raises(InvalidExperience, match="numbered=True"):
            await session.observe_events([StreamEnded("a")])


@pytest.mark.parametrize(
    ("before", "events", "n_in", "seqs"),
    [
        (0, [start("a"), *(step("a", k) for k in range(2, 6)), end("a"), start("b")], 4, [2, 3, 4]),
        (2, [step("a", 2, OVER), end("a"), start("a", 3), step("a", 4), end("a")], 3, [2]),
        (3, [start("a"), StreamMoved("b", 5, SEEN)], 2, []),
        (3, [step("a", 9), end("a")], 0, []),
    ],
)
async def test_the_limit_cuts_a_message_exactly(
    before: int, events: list[Any], n_in: int, seqs: list[int]
) -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=3, numbered=True) as session:
        await session.observe_many(step("before", k) for k in range(before))
        assert await session.observe_events(events) == n_in
        assert session.is_done is (before + len(seqs) == 3)
        n_late = sum(type(event) is Experience for event in events) - len(seqs)
        assert session.readings().refused_steps == n_late
        await session.barrier()
        assert [seq for actor, seq in numbers(agent) if actor == "a"] == seqs
        assert session.accepted_steps == session.total_steps == before + len(seqs)
        if n_late:  # the rest of an episode that was cut is out, too
            assert await session.observe_events([start("c"), end("a"), start("d")]) == 1


async def test_events_that_wait_for_room_go_in_as_a_whole() -> None:
    with anyio.fail_after(30):
        async with full() as (agent, session), anyio.create_task_group() as tasks:
            events = [start("a"), *(step("a", seq) for seq in range(2, 30))]
            tasks.start_soon(session.observe_events, events)
            await waiting(session)
            assert session.accepted_steps == 5, "those that wait are not in"
            with pytest.raises(ActorConflict):
                await session.observe_events([step("a", 30)])
            agent.go.set()
        assert numbers(agent)[5:] == [("a", seq) for seq in range(2, 30)]
        assert session.total_steps == session.accepted_steps == 33


async def test_an_offer_goes_in_at_once_or_not_at_all() -> None:
    with anyio.fail_after(30):
        async with full() as (agent, session):
            assert session.offer_events([start("a"), step("a", 2)]) is None
            assert session.accepted_steps == 5
            agent.go.set()
            await session.barrier()
            assert session.offer_events([start("a"), step("a", 2)]) == 2
            with pytest.raises(InvalidExperience, match="event 0 of 1"):
                session.offer_events([step("a", -1)])
        assert numbers(agent)[5:] == [("a", 2)]


async def test_cancelled_while_they_wait_all_events_are_out() -> None:
    with anyio.fail_after(30):
        async with full() as (agent, session):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.observe_events, [start("a"), step("a", 2), step("b", 2)])
                await waiting(session)
                tasks.cancel_scope.cancel()
            assert session.accepted_steps == 5
            assert session.health().n_observing == 0
            agent.go.set()
            assert await session.observe_events([start("a"), step("a", 2)]) == 2
        assert numbers(agent)[5:] == [("a", 2)]
        assert agent.started == ["a"]


async def test_decisions_of_several_actors_come_from_one_pass() -> None:
    agent = FakeAgent(action=1, policy_extras=True)
    async with TrainingSession(agent) as session:
        assert await session.decide_many([], []) == []
        decisions = await session.decide_many([SEEN, SEEN + 1, SEEN + 2], ["a", "b", "a"])
        assert [decision.action for decision in decisions] == [1, 1, 1]
        assert [float(decision.policy_extras[0]) for decision in decisions] == [0.0, 1.0, 2.0]
        assert agent.batch_sizes == [3]
        assert [one.policy_version for one in await session.decide_many([SEEN], ["a"], ActMode.EXPLOIT)] == [
            0
        ]


async def test_long_passes_are_shared_by_the_callers_that_are_ready() -> None:
    class Slow(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            until = time.perf_counter_ns() + 2 * SHORT_PASS_NS
            while time.perf_counter_ns() < until:
                pass
            return super().act(observations, mode)

    agent = Slow()
    async with TrainingSession(agent) as session:
        await session.decide_many([SEEN], ["a"])
        async with anyio.create_task_group() as tasks:
            for actor in range(5):
                tasks.start_soon(session.decide_many, [SEEN, SEEN], [actor, actor])
        assert agent.batch_sizes == [1, 10]


async def test_short_passes_are_shared_by_the_callers_of_one_turn() -> None:
    agent, decided = FakeAgent(policy_extras=True), dict[int, list[float]]()

    async def decide(session: TrainingSession, actor: int) -> None:
        with anyio.CancelScope() as scope:
            if actor == 3:
                scope.cancel()  # its observations may take part
            decisions = await session.decide_many([SEEN + actor, SEEN + actor], [actor, actor])
            decided[actor] = [float(decision.policy_extras[0]) for decision in decisions]

    async with TrainingSession(agent) as session:
        await session.decide_many([SEEN], ["a"])
        async with anyio.create_task_group() as tasks:
            for actor in range(5):
                tasks.start_soon(decide, session, actor)
        assert decided == {actor: [actor, actor] for actor in (0, 1, 2, 4)}
        assert len(agent.batch_sizes) <= 3  # the first caller of the turn may have had one alone


async def test_who_was_cancelled_alone_takes_no_part_in_a_later_pass() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session:
        await session.decide_many([SEEN], ["a"])
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.decide_many([SEEN, SEEN], ["b", "c"])
        before = len(agent.batch_sizes)
        await session.decide_many([SEEN], ["d"])
        assert agent.batch_sizes[before:] == [1]


async def test_decisions_that_cannot_be_made_are_refused() -> None:
    async with TrainingSession(dqn()) as session:
        with pytest.raises(InvalidExperience, match="2 observations for 1 actor_ids"):
            await session.decide_many([SEEN, SEEN], ["a"])
        with pytest.raises(InvalidExperience, match="actor 'b'") as refused:
            await session.decide_many([SEEN, np.zeros(4, np.float32)], ["a", "b"])
        assert refused.value.index == 1
    async with TrainingSession(dqn(), max_staleness=3) as session:
        with pytest.raises(ConfigError, match="decide_many: max_staleness=3"):
            await session.decide_many([SEEN], ["a"])
        assert len(await session.decide_many([SEEN], ["a"], ActMode.EXPLOIT)) == 1


async def test_a_pass_that_fails_ends_the_session_with_its_cause() -> None:
    class Failing(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            raise ZeroDivisionError("in the policy")

    told = list[str]()

    async def decide(session: TrainingSession) -> None:
        try:
            await session.decide_many([SEEN], ["a"])
        except SessionFailed as error:
            told.append(str(error))

    with pytest.raises(SessionFailed, match="in the policy"):
        async with TrainingSession(Failing()) as session, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(decide, session)
    assert len(told) == 3
    assert all("in the policy" in text for text in told)
