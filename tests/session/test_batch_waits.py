"""Batches and a full queue: waiting, cancellation, conflicts; a batch is in as a whole or out as a whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
import pytest
from training_parts import batch_of

from stoker import ActorConflict, EpisodeStatus, Experience, ExperienceBatch, SessionFailed, TrainingSession
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


def step(k: int, actor_id: int = 0) -> Experience:
    return Experience(np.array([k]), 0, 1.0, np.array([k]), EpisodeStatus.CONTINUING, actor_id)


def batch(first: int, size: int, actor_id: int = 100) -> ExperienceBatch:
    """Rows of as many actors; numbered from ``first``."""
    return batch_of([step(first + row, actor_id + row) for row in range(size)])


class Held(FakeAgent):
    """An agent that waits in ``observe`` until ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def observe(self, experiences: Sequence[Experience]) -> None:
        assert self.go.wait(30)
        super().observe(experiences)

    @property
    def numbers(self) -> list[int]:
        return [int(experience.observation[0]) for experience in self.experiences]


@asynccontextmanager
async def full(capacity: int = 4, **settings: Any) -> AsyncGenerator[tuple[Held, TrainingSession]]:
    """A session whose learner is held, with a full queue: numbers 0 to ``capacity`` are in."""
    agent = Held()
    async with TrainingSession(agent, queue_capacity=capacity, **settings) as session:
        try:
            await session.observe(step(0))
            while session.health().n_events_waiting:  # until the learner has it
                await anyio.wait_all_tasks_blocked()
            for k in range(1, capacity + 1):
                await session.observe(step(k))
            assert session.queue_fill == 1.0
            yield agent, session
        finally:
            agent.go.set()


async def waiting(session: TrainingSession, n: int = 1) -> None:
    with anyio.fail_after(30):
        while session.health().n_observing != n:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("size", [2, 4, 50])
async def test_a_batch_waits_for_room_and_goes_in_as_a_whole(size: int) -> None:
    with anyio.fail_after(30):
        async with full() as (agent, session), anyio.create_task_group() as tasks:
            tasks.start_soon(session.observe_batch, batch(10, size))
            await waiting(session)
            assert session.accepted_steps == 5, "those that wait are not in"
            agent.go.set()
        assert agent.numbers == [*range(5), *range(10, 10 + size)]
        assert session.total_steps == session.accepted_steps == 5 + size


async def test_a_batch_that_is_larger_than_the_queue_is_no_deadlock() -> None:
    agent = FakeAgent()
    with anyio.fail_after(30):
        async with TrainingSession(agent, queue_capacity=1) as session, anyio.create_task_group() as tasks:
            for first in (0, 1000, 2000):
                tasks.start_soon(session.observe_batch, batch(first, 300, first))
        assert session.total_steps == 900
        assert 0.0 <= session.queue_fill <= 1.0


async def cancel(session: TrainingSession, observed: ExperienceBatch) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.observe_batch, observed)
        await waiting(session)
        tasks.cancel_scope.cancel()


async def cancel_natively(session: TrainingSession, observed: ExperienceBatch) -> None:
    task = asyncio.create_task(session.observe_batch(observed))
    await waiting(session)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def check_cancelled(how: Any) -> None:
    with anyio.fail_after(30):
        async with full(max_steps=10) as (agent, session):
            for _ in range(3):
                await how(session, batch(10, 20))
                assert (session.accepted_steps, session.refused_steps) == (5, 0)
                assert session.remaining_steps == 5
            agent.go.set()
            await session.observe_batch(batch(30, 7))
            assert session.is_done
        assert agent.numbers == [*range(5), *range(30, 35)]
        assert (session.total_steps, session.refused_steps) == (10, 2)


async def test_a_cancelled_batch_is_out_and_the_next_goes_in() -> None:
    await check_cancelled(cancel)


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], indirect=True
)
async def test_a_natively_cancelled_batch_is_out_and_the_next_goes_in() -> None:
    await check_cancelled(cancel_natively)


@pytest.mark.parametrize("turns", range(6))
async def test_a_batch_that_is_cancelled_as_room_comes_is_in_exactly_if_the_call_returned(turns: int) -> None:
    returned = False

    async def observe() -> None:
        nonlocal returned
        await session.observe_batch(batch(10, 6))
        returned = True

    with anyio.fail_after(30):
        async with full() as (agent, session):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(observe)
                await waiting(session)
                agent.go.set()
                await waiting(session, 0)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert session.accepted_steps == 5 + 6 * returned
            await session.observe_batch(batch(30, 3))
        assert agent.numbers == [*range(5), *([*range(10, 16)] if returned else []), *range(30, 33)]


async def test_the_decisions_of_a_cancelled_batch_are_kept() -> None:
    class Deciding(Held):
        needs_policy_extras = True

        def act(self, observations: Sequence[Any], mode: Any) -> Any:
            del mode
            return [0] * len(observations), np.arange(len(observations) * 1.0)[:, None]

    agent, seen, ids = Deciding(), np.zeros((3, 1)), (0, 1, 2)
    rows = batch_of([Experience(seen[0], 0, 0.0, seen[0], EpisodeStatus.CONTINUING, k) for k in ids])
    with anyio.fail_after(30):
        async with TrainingSession(agent, queue_capacity=1) as session:
            try:
                for _ in range(2):
                    await session.act_many(seen, ids)
                    await session.observe_batch(rows)
                    while session.health().n_events_waiting > 3:  # the first is being learned
                        await anyio.wait_all_tasks_blocked()
                await session.act_many(seen, ids)
                await cancel(session, rows)
            finally:
                agent.go.set()
            await session.observe_batch(rows)
    assert [float(each.policy_extras[0]) for each in agent.experiences] == [0.0, 1.0, 2.0] * 3


async def test_two_tasks_cannot_wait_under_one_actor() -> None:
    with anyio.fail_after(30):
        async with full() as (agent, session), anyio.create_task_group() as tasks:
            tasks.start_soon(session.observe_batch, batch_of([step(10, 7), step(11, 8), step(12, 7)]))
            await waiting(session)
            with pytest.raises(ActorConflict, match="actor 7"):
                await session.observe_batch(batch_of([step(20, 9), step(21, 7)]))
            with pytest.raises(ActorConflict, match="actor 8"):
                await session.observe(step(22, 8))
            assert session.accepted_steps == 5
            agent.go.set()
        assert agent.numbers == [*range(5), 10, 11, 12]


async def test_a_session_that_fails_ends_the_wait_for_room() -> None:
    class Failing(Held):
        def observe(self, experiences: Sequence[Experience]) -> None:
            super().observe(experiences)
            raise RuntimeError("as it was set to")

    agent, refused = Failing(), False

    async def observe() -> None:
        nonlocal refused
        with pytest.raises(SessionFailed, match="as it was set to"):
            await session.observe_batch(batch(10, 3))
        refused = True

    session = TrainingSession(agent, queue_capacity=1)
    with anyio.fail_after(30), pytest.raises(SessionFailed, match="as it was set to"):
        async with session:
            try:
                await session.observe(step(0))
                while session.health().n_events_waiting:
                    await anyio.wait_all_tasks_blocked()
                await session.observe(step(1))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(observe)
                    await waiting(session)
                    agent.go.set()
            finally:
                agent.go.set()
    assert refused
    assert session.accepted_steps < 5


async def test_a_batch_in_lockstep_is_learned_when_the_call_returns() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, lockstep=True) as session:
        for first in (0, 10):
            await session.observe_batch(batch(first, 5))
            assert session.total_steps == agent.total_steps == first // 2 + 5
