"""A reply is set once, reaches each task that waits for it, and is dropped when none waits."""

from __future__ import annotations

import anyio
import pytest

from stoker.replies import Reply

pytestmark = pytest.mark.anyio


async def test_the_first_answer_stands() -> None:
    reply: Reply[int] = Reply()
    assert not reply.is_set
    reply.set(1)
    reply.set(2)
    reply.fail(KeyError())
    assert reply.is_set
    assert await reply.wait() == await reply.wait() == 1


async def test_an_error_is_raised_where_it_is_awaited() -> None:
    reply: Reply[int] = Reply()
    reply.fail(KeyError("gone"))
    reply.set(1)
    with pytest.raises(KeyError, match="gone"):
        await reply.wait()


async def test_a_cancelled_wait_gets_no_answer_and_the_others_do() -> None:
    reply: Reply[int] = Reply()
    async with anyio.create_task_group() as stays:
        async with anyio.create_task_group() as gives_up:
            gives_up.start_soon(reply.wait)
            stays.start_soon(reply.wait)
            await anyio.wait_all_tasks_blocked()
            gives_up.cancel_scope.cancel()
        reply.set(1)
    assert await reply.wait() == 1
