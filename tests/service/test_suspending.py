from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from stoker.service.suspending import after_turns, begun, finished

pytestmark = pytest.mark.anyio


async def run(coroutine: Coroutine[Any, Any, Any], waits: Callable[[], object]) -> Any:
    is_over, result = begun(coroutine)
    if not is_over and result is None:
        is_over, result = await after_turns(coroutine)
    if is_over:
        return result
    waits()
    return await finished(coroutine, result)


async def test_a_coroutine_that_does_not_wait_is_over_at_once() -> None:
    async def answer() -> int:
        return 7

    noted: list[str] = []
    assert await run(answer(), lambda: noted.append("waits")) == 7
    assert noted == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_turn_for_other_tasks_is_no_wait() -> None:
    turns: list[str] = []

    async def answer() -> int:
        for _ in range(3):
            await asyncio.sleep(0)
        return len(turns)

    async def other() -> None:
        for _ in range(3):
            turns.append("turn")
            await asyncio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        assert await run(answer(), lambda: turns.append("waits")) == 3
    assert "waits" not in turns


async def test_one_that_waits_goes_on_when_it_may_and_its_answer_comes_back() -> None:
    event = anyio.Event()
    noted: list[str] = []

    async def answer() -> str:
        await event.wait()
        await anyio.lowlevel.checkpoint()
        return "answered"

    async def set_event() -> None:
        event.set()

    async with anyio.create_task_group() as tasks:

        def waits() -> None:
            noted.append("waits")
            tasks.start_soon(set_event)

        assert await run(answer(), waits) == "answered"
    assert noted == ["waits"]


async def test_a_cancelled_wait_is_cancelled_inside_and_may_clean_up() -> None:
    seen: list[str] = []

    async def stuck() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise

    with anyio.CancelScope() as scope:
        await run(stuck(), scope.cancel)
    assert scope.cancelled_caught
    assert seen == ["cancelled"]


async def test_a_scope_within_it_may_time_out() -> None:
    async def limited() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return "moved on"

    assert await run(limited(), lambda: None) == "moved on"


async def test_an_error_behind_a_wait_is_raised() -> None:
    async def failing() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run(failing(), lambda: None)
