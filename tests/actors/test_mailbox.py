"""A mailbox: nothing is lost or reordered, whoever posts, and nobody waits for what is there."""

from __future__ import annotations

import threading

import anyio
import pytest

from stoker.actors.mailbox import Mailbox

pytestmark = pytest.mark.anyio


async def test_messages_of_many_threads_arrive_each_threads_in_order() -> None:
    mailbox: Mailbox[tuple[int, int]] = Mailbox()
    threads = [
        threading.Thread(daemon=True, target=lambda n=n: [mailbox.post((n, k)) for k in range(500)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    with anyio.fail_after(30):
        got = [await mailbox.take() for _ in range(2000)]
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [k for m, k in got if m == n] == list(range(500))
    assert mailbox.take_now() is None


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    with anyio.move_on_after(0):
        await mailbox.take()
    mailbox.post(1)
    mailbox.post(2)
    assert mailbox.take_now() == 1
    assert await mailbox.take() == 2


def test_posting_to_a_loop_that_has_ended_does_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    waiting = threading.Event()

    async def wait() -> None:
        async def take() -> None:
            waiting.set()
            await mailbox.take()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(wait)
    assert waiting.is_set()
    mailbox.post(3)
    assert mailbox.take_now() == 3
