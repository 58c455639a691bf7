"""Waiting for the next evaluation ends with the session, one way or the other."""

from __future__ import annotations

import anyio
import pytest

from stoker import EpisodeStatus, Experience, SessionClosed, SessionFailed, TrainingSession
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


def step(k: int) -> Experience:
    return Experience(k, 0, 1.0, k, EpisodeStatus.CONTINUING)


async def wait_in(session: TrainingSession, told: list[BaseException]) -> None:
    """An evaluator outside the session's care."""
    try:
        while True:
            await session.next_evaluation()
    except (SessionClosed, SessionFailed) as error:
        told.append(error)


@pytest.mark.parametrize("n_waiting", [1, 3])
async def test_those_who_wait_are_told_when_the_session_is_left(n_waiting: int) -> None:
    told: list[BaseException] = []
    with anyio.fail_after(20):
        async with (
            anyio.create_task_group() as outside,
            TrainingSession(FakeAgent(), eval_freq=10) as session,
        ):
            for _ in range(n_waiting):
                outside.start_soon(wait_in, session, told)
            await session.observe_many([step(k) for k in range(25)])
            await session.flush()
            await anyio.wait_all_tasks_blocked()
            assert told == []
    assert [type(error) for error in told] == [SessionClosed] * n_waiting
    with pytest.raises(SessionClosed, match="has been left"):
        await session.next_evaluation()


async def test_who_waits_is_told_that_a_stopped_training_has_no_more() -> None:
    got: list[object] = []
    async with TrainingSession(FakeAgent(), eval_freq=10) as session:

        async def wait() -> None:
            got.append(await session.next_evaluation())

        with anyio.fail_after(5):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                session.stop()
    assert got == [None]


async def test_those_who_wait_are_told_when_the_session_fails() -> None:
    told: list[BaseException] = []
    with anyio.fail_after(20):
        async with anyio.create_task_group() as outside:
            with pytest.raises(SessionFailed):
                async with TrainingSession(FakeAgent(fail_at=5), eval_freq=10) as session:
                    outside.start_soon(wait_in, session, told)
                    await anyio.wait_all_tasks_blocked()
                    await session.observe_many([step(k) for k in range(5)])
                    await anyio.sleep_forever()
    assert [type(error) for error in told] == [SessionFailed]


async def test_several_who_wait_share_the_snapshots_out() -> None:
    async with TrainingSession(FakeAgent(), eval_freq=10) as session:
        got: list[int] = []

        async def wait() -> None:
            got.append((await session.next_evaluation()).total_steps)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(wait)
                waiting.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await session.observe_many([step(k) for k in range(10)])
                await session.flush()
                await anyio.wait_all_tasks_blocked()
                await session.observe_many([step(k) for k in range(10)])
        assert got == [10, 20]
