"""The dedicated thread: one thread, in order, errors come back, cancellation as promised."""

from __future__ import annotations

import threading

import anyio
import pytest

from stoker.threads import DedicatedThread

pytestmark = pytest.mark.anyio


async def test_calls_run_in_order_on_one_thread_of_that_name() -> None:
    thread = DedicatedThread("stoker-test")
    ran: list[tuple[int, str, int]] = []

    def call(k: int) -> int:
        ran.append((k, threading.current_thread().name, threading.get_ident()))
        return 2 * k

    assert [await thread.run(call, k) for k in range(5)] == [0, 2, 4, 6, 8]
    assert [k for k, _, _ in ran] == list(range(5))
    assert {name for _, name, _ in ran} == {"stoker-test"}
    assert len({ident for _, _, ident in ran}) == 1
    thread.close()


async def test_errors_come_back_and_the_thread_goes_on() -> None:
    thread = DedicatedThread("stoker-test")

    def fail() -> None:
        raise KeyError("told")

    for _ in range(2):
        with pytest.raises(KeyError, match="told"):
            await thread.run(fail)
    assert await thread.run(int, "3") == 3
    thread.close()


async def test_an_abandoned_call_goes_on_unseen_and_a_waiting_one_is_skipped() -> None:
    thread = DedicatedThread("stoker-test")
    entered, let_go = threading.Event(), threading.Event()
    ran: list[str] = []

    def call() -> None:
        entered.set()
        assert let_go.wait(20)
        ran.append("first")

    async def abandon(function: object) -> None:
        await thread.run(function)  # type: ignore[arg-type]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(abandon, call)
        await anyio.to_thread.run_sync(entered.wait, 20)
        tasks.start_soon(abandon, lambda: ran.append("second"))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ran == []
    assert not await thread.settle(0.0), "the first has not come back"
    let_go.set()
    assert await thread.settle(20)
    assert ran == ["first"]
    thread.close()


async def test_settling_and_closing_what_never_ran() -> None:
    thread = DedicatedThread("stoker-test")
    assert await thread.settle(0.0)
    thread.close()


async def test_a_call_that_hangs_is_seen_until_it_returns_also_when_closed_and_nothing_overtakes_it() -> None:
    thread = DedicatedThread("stoker-test")
    entered, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert let_go.wait(20)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(thread.run, hang)
        await anyio.to_thread.run_sync(entered.wait, 20)
        assert not await thread.settle(0.01)
        tasks.cancel_scope.cancel()
    thread.close()
    thread.close()
    assert thread.since is not None
    with pytest.raises(RuntimeError, match="'stoker-test' was closed"):
        await thread.run(int, "3")
    let_go.set()
    with anyio.fail_after(20):
        while thread.since is not None:
            await anyio.wait_all_tasks_blocked()


async def test_a_call_that_raises_is_over() -> None:
    thread = DedicatedThread("stoker-test")
    with pytest.raises(ValueError, match="invalid"):
        await thread.run(int, "no")
    assert thread.since is None
    thread.close()
