"""The gate of a training step by step: how many steps are begun, and who waits for whom."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from stoker import EpisodeStatus, SessionError
from stoker.actors import StepMetrics
from stoker.trainer.gate import StepGate

pytestmark = pytest.mark.anyio


def step_of(actor_id: str) -> StepMetrics:
    return StepMetrics(
        actor_id=actor_id,
        total_steps=1,
        episode=0,
        episode_step=1,
        reward=0.0,
        episode_reward=0.0,
        exploration=None,
        episode_over=False,
        status=EpisodeStatus.CONTINUING,
    )


class Users:
    """Actors and a caller at a gate, each in its own task."""

    def __init__(self, gate: StepGate, tasks: Any) -> None:
        self.gate = gate
        self.begun: list[str] = []
        self.refused: list[str] = []
        self.fetched: list[str | None] = []
        self._tasks = tasks

    async def enter(self, *actor_ids: str) -> None:
        for actor_id in actor_ids:
            self._tasks.start_soon(self._enter, actor_id)
        await anyio.wait_all_tasks_blocked()

    async def fetch(self, ahead: int) -> None:
        self._tasks.start_soon(self._fetch, ahead)
        await anyio.wait_all_tasks_blocked()

    async def add(self, actor_id: str) -> None:
        await self.gate.add(step_of(actor_id))
        await anyio.wait_all_tasks_blocked()

    async def _enter(self, actor_id: str) -> None:
        (self.begun if await self.gate.enter(actor_id) else self.refused).append(actor_id)

    async def _fetch(self, ahead: int) -> None:
        step = await self.gate.fetch(ahead)
        self.fetched.append(None if step is None else str(step.actor_id))


@asynccontextmanager
async def users_of(remaining: float = math.inf) -> AsyncGenerator[Users]:
    async with anyio.create_task_group() as tasks:
        yield Users(StepGate(lambda: remaining), tasks)
        tasks.cancel_scope.cancel()


async def test_steps_under_way_count_among_those_that_may_be_ahead() -> None:
    async with users_of() as users:
        await users.enter("a", "b", "c")
        assert users.begun == [], "none is asked for"
        await users.fetch(2)
        assert len(users.begun) == 2
        await users.add(users.begun[0])
        assert users.fetched == users.begun[:1]
        await users.fetch(2)
        await users.enter("d", "e")
        assert len(users.begun) == 3, "one is under way still"


async def test_no_more_steps_are_asked_for_than_the_session_accepts() -> None:
    async with users_of(remaining=1) as users:
        await users.enter("a", "b", "c")
        await users.fetch(3)
        assert len(users.begun) == 1
    async with users_of(remaining=0) as users:
        await users.fetch(3)
        assert users.fetched == [None]


async def test_a_step_that_is_given_back_is_done_by_another_actor() -> None:
    async with users_of() as users:
        await users.enter("a")
        await users.fetch(1)
        users.gate.give_back("a")
        users.gate.give_back("a")  # it has none any more
        await users.enter("b", "c")
        assert len(users.begun) == 2


async def test_an_actor_that_asks_twice_has_one_step() -> None:
    async with users_of() as users:
        await users.enter("a")
        await users.fetch(1)
        await users.enter("a")
        assert users.begun == ["a", "a"]
        await users.add("a")
        await users.enter("a")
        assert users.begun == ["a", "a"], "the next step is not asked for"


async def test_a_call_that_was_cancelled_leaves_the_gate_to_the_next() -> None:
    async with users_of() as users:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await users.gate.fetch(1)
        await users.enter("a")
        await users.fetch(1)
        with pytest.raises(SessionError, match="another call waits"):
            await users.gate.fetch(1)
        await users.add("a")
        assert users.fetched == ["a"]


async def test_a_shut_gate_refuses_who_waits_and_reports_what_is_under_way() -> None:
    async with users_of() as users:
        await users.enter("a")
        await users.fetch(1)
        await users.enter("b")
        users.gate.shut()
        await anyio.wait_all_tasks_blocked()
        assert (users.begun, users.refused, users.fetched) == (["a"], ["b"], [])
        await users.add("a")
        assert users.fetched == ["a"]
        await users.fetch(1)
        assert users.fetched == ["a"], "it may still be told of a step"
        users.gate.close()
        await anyio.wait_all_tasks_blocked()
        assert users.fetched == ["a", None]
