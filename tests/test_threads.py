"""The dedicated thread: one thread, in order, with errors, cancellation and calls that hang."""

from __future__ import annotations

import threading

import anyio
import pytest

from obstacles import Gate
from stoker.threads import DedicatedThread, ThreadCall

pytestmark = pytest.mark.anyio


async def leave(thread: DedicatedThread, gate: Gate) -> None:
    """Cancel a call while it hangs."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(thread.run, gate)
            await anyio.to_thread.run_sync(gate.reached.wait, 20)
            tasks.cancel_scope.cancel()


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


async def test_errors_are_raised_and_the_thread_continues() -> None:
    thread = DedicatedThread("stoker-test")

    def fail() -> None:
        raise KeyError("raised")

    for _ in range(2):
        with pytest.raises(KeyError, match="raised"):
            await thread.run(fail)
    assert await thread.run(int, "3") == 3
    assert thread.since is None
    thread.close()


async def test_a_cancelled_caller_leaves_at_once_and_what_waited_is_skipped_unless_it_is_kept() -> None:
    thread, gate = DedicatedThread("stoker-test"), Gate()
    ran: list[str] = []
    assert await thread.settle(0), "it never ran"
    await leave(thread, gate)
    assert not thread.is_idle
    assert thread.since is not None
    with anyio.move_on_after(0):
        await thread.run(ran.append, "skipped")
    with anyio.move_on_after(0):
        await thread.run(ran.append, "kept", is_kept=True)
    dropped = thread.submit(ran.append, "dropped")
    assert dropped.cancel()
    assert not await thread.settle(0.01)
    gate.release.set()
    assert await thread.settle(20)
    assert ran == ["kept"]
    assert thread.since is None
    assert thread.is_idle
    assert await thread.settle(0), "at once"
    thread.close()


async def test_a_call_that_hangs_is_seen_also_when_closed_and_nothing_overtakes_it() -> None:
    gate = Gate()
    name = f"stoker-hanging-{id(gate)}"  # the thread of another test may not have ended yet
    thread = DedicatedThread(name)
    await leave(thread, gate)
    thread.close()
    thread.close()
    assert thread.since is not None
    (running,) = [one for one in threading.enumerate() if one.name == name]
    with pytest.raises(RuntimeError, match=f"'{name}' was closed"):
        await thread.run(int, "3")
    gate.release.set()
    running.join(20)
    assert not running.is_alive()
    assert thread.since is None


async def test_released_it_ends_and_starts_again_behind_a_call_that_hangs() -> None:
    gate = Gate()
    name = f"stoker-released-{id(gate)}"
    thread = DedicatedThread(name)
    thread.release()
    await thread.run(int)
    (first,) = [one for one in threading.enumerate() if one.name == name]
    thread.release()
    first.join(20)
    assert not first.is_alive()
    await leave(thread, gate)
    thread.release()
    thread.release()
    later = thread.submit(gate.release.is_set)
    gate.release.set()
    assert later.result(20), "not beside it, in another thread"
    assert all(one.daemon for one in threading.enumerate() if one.name == name)
    thread.close()


async def test_another_thread_may_hand_a_call_in_and_futures_are_fulfilled() -> None:
    first, second, gate = DedicatedThread("stoker-first"), DedicatedThread("stoker-second"), Gate()
    ran: list[str] = []
    call = ThreadCall(ran.append, "handed in")
    first.submit(gate)
    first.submit(second.hand_in, call)
    await second.run(ran.append, "earlier")
    gate.release.set()
    with anyio.fail_after(20):
        await call.wait()
    assert ran == ["earlier", "handed in"]
    assert isinstance(second.submit(int, "y").exception(20), ValueError)
    first.close()
    second.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_a_call_that_returns_when_its_loop_has_ended_is_no_error(anyio_backend: str) -> None:
    thread, gate = DedicatedThread("stoker-test"), Gate()

    async def leave_it() -> None:
        thread.hand_in(ThreadCall(gate))
        assert gate.reached.wait(20)

    anyio.run(leave_it, backend=anyio_backend)
    gate.release.set()
    assert thread.submit(int, "3").result(20) == 3
    thread.close()
