"""Threads for a disk that hangs: left at once, in order all the same, and known to be busy."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from stoker.writer.disk_threads import DiskThread

pytestmark = pytest.mark.anyio


class Gate:
    """A call that hangs until it is let go."""

    def __init__(self) -> None:
        self.reached, self.release = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.release.wait(20)


async def leave(call: Any, reached: threading.Event) -> None:
    """Cancel a call while the disk is at it."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.to_thread.run_sync(reached.wait, 20)
            tasks.cancel_scope.cancel()


async def test_calls_run_in_order_and_errors_come_back() -> None:
    thread = DiskThread("stoker-test")
    ran: list[object] = []
    promised = [thread.submit(ran.append, k) for k in range(3)]
    with pytest.raises(ValueError, match="invalid literal"):
        await thread.run(int, "x")
    assert await thread.run(int, "3") == 3
    await thread.run(ran.append, threading.current_thread().name)
    await thread.run(lambda: ran.append(threading.current_thread().name))
    assert ran == [0, 1, 2, "MainThread", "stoker-test"]
    assert all(one.done() for one in promised)
    assert thread.is_idle
    assert isinstance(thread.submit(int, "y").exception(20), ValueError)
    thread.shutdown()


async def test_who_is_cancelled_leaves_at_once_and_what_waited_is_skipped_unless_it_is_kept() -> None:
    thread, gate = DiskThread("stoker-test"), Gate()
    ran: list[str] = []
    await leave(lambda: thread.run(gate), gate.reached)
    assert not thread.is_idle
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
    assert thread.is_idle
    assert await thread.settle(0), "at once"
    thread.shutdown()


async def test_it_ends_when_told_and_begins_again_behind_what_hangs() -> None:
    thread, gate = DiskThread("stoker-test"), Gate()
    await thread.run(int)
    name = "stoker-test"
    (first,) = [one for one in threading.enumerate() if one.name == name]
    thread.shutdown()
    first.join(20)
    assert not first.is_alive()
    await leave(lambda: thread.run(gate), gate.reached)
    thread.shutdown()
    ran: list[bool] = []
    later = thread.submit(lambda: ran.append(gate.release.is_set()))
    gate.release.set()
    later.result(20)
    assert ran == [True], "not beside it, in a thread of its own"
    assert all(one.daemon for one in threading.enumerate() if one.name == name)
    thread.shutdown()


async def test_a_prepared_call_takes_its_turn_when_another_thread_hands_it_in() -> None:
    first, second, gate = DiskThread("stoker-first"), DiskThread("stoker-second"), Gate()
    ran: list[str] = []
    call = second.prepare(ran.append, "prepared")
    held = first.prepare(gate)
    first.hand_in(held)
    first.hand_in(first.prepare(second.hand_in, call))
    await second.run(ran.append, "earlier")
    gate.release.set()
    with anyio.fail_after(20):
        await call.wait()
        await held.wait()
    assert ran == ["earlier", "prepared"]
    first.shutdown()
    second.shutdown()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_a_call_that_comes_back_when_its_loop_is_gone_is_no_error(anyio_backend: str) -> None:
    thread, gate = DiskThread("stoker-test"), Gate()

    async def leave_it() -> None:
        thread.hand_in(thread.prepare(gate))
        assert gate.reached.wait(20)

    anyio.run(leave_it, backend=anyio_backend)
    gate.release.set()
    assert thread.submit(int, "3").result(20) == 3
    thread.shutdown()
