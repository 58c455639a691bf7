"""A latch is set once and wakes every task that waits for it, whatever becomes of the others."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from stoker.latch import Latch

pytestmark = pytest.mark.anyio


async def test_all_are_woken_in_the_order_in_which_they_came() -> None:
    latch, woken = Latch(), list[int]()

    async def wait(k: int) -> None:
        await latch.wait()
        woken.append(k)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for k in range(100):
                tasks.start_soon(wait, k)
            await anyio.wait_all_tasks_blocked()
            assert (woken, latch.is_set) == ([], False)
            latch.set()
            latch.set()
    assert sorted(woken) == list(range(100))
    assert latch.is_set


async def test_who_comes_later_does_not_wait_but_can_be_cancelled() -> None:
    latch = Latch()
    latch.set()
    with anyio.fail_after(20):
        await latch.wait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await latch.wait()
    assert scope.cancelled_caught


async def test_a_cancelled_task_wakes_nobody_and_is_forgotten() -> None:
    latch, woken = Latch(), list[str]()

    async def wait(name: str) -> None:
        await latch.wait()
        woken.append(name)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as stays:
            async with anyio.create_task_group() as gives_up:
                gives_up.start_soon(wait, "gives up")
                stays.start_soon(wait, "stays")
                await anyio.wait_all_tasks_blocked()
                gives_up.cancel_scope.cancel()
            assert woken == []
            latch.set()
    assert woken == ["stays"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
async def test_a_native_cancellation_reaches_only_its_task() -> None:
    latch = Latch()

    async def wait() -> None:
        await latch.wait()

    gives_up, stays = asyncio.create_task(wait()), asyncio.create_task(wait())
    await anyio.wait_all_tasks_blocked()
    gives_up.cancel()
    latch.set()  # before the cancelled task had its turn
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    with anyio.fail_after(20):
        await stays
