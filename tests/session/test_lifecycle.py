"""Opening and closing a session: from any task, cancelled at any point, twice, or never."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

import launching
from stoker import (
    EpisodeStatus,
    Experience,
    RunLocked,
    SessionClosed,
    SessionError,
    SessionFailed,
    TrainingRun,
    TrainingSession,
)
from stoker.testing import FakeAgent

PATIENCE_S = 30.0


def step(k: int, actor_id: int = 0) -> Experience:
    return Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, actor_id)


class SlowToRestore(FakeAgent):
    """An agent whose restore waits until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_restoring, self.go = threading.Event(), threading.Event()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.is_restoring.set()
        assert self.go.wait(PATIENCE_S), "nobody let it go on"
        super().load_state_dict(dict(state))


async def trained_run(root: Path) -> TrainingRun:
    run = await TrainingRun.create("begun", root=root)
    async with TrainingSession(SlowToRestore(), run) as session:
        await session.observe(step(0))
    return await TrainingRun.resume(run.directory)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    with anyio.fail_after(PATIENCE_S):
        while not is_so():
            await anyio.wait_all_tasks_blocked()


async def in_another_task(call: Any, *args: Any) -> None:
    """Await a call in a task that has ended when this returns, and raise what it raises."""
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            await call(*args)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    for error in errors:
        raise error


@pytest.mark.anyio
async def test_one_task_opens_another_uses_and_a_third_closes(tmp_path: Path) -> None:
    run = await TrainingRun.create("hooks", root=tmp_path)
    session = TrainingSession(FakeAgent(), run)
    await session.close()  # nothing to close yet
    await in_another_task(session.open)
    await in_another_task(session.observe, step(0))
    await in_another_task(session.close)
    await session.close()
    assert session.total_steps == 1
    assert run.checkpoint_steps() == [1]
    assert run.holder() is None
    with pytest.raises(SessionClosed):
        await session.observe(step(1))
    with pytest.raises(SessionError, match="opened once"):
        await session.open()


@pytest.mark.anyio
async def test_several_tasks_that_close_all_wait_for_the_end(tmp_path: Path) -> None:
    run = await TrainingRun.create("closers", root=tmp_path)
    session = TrainingSession(FakeAgent(), run)
    await session.open()
    await session.observe(step(0))
    saved: list[list[int]] = []

    async def close() -> None:
        await session.close()
        saved.append(run.checkpoint_steps())

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(close)
    assert saved == [[1]] * 3


@pytest.mark.anyio
async def test_an_open_session_that_fails_is_free_again_and_says_so_to_everybody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("fails", root=tmp_path)
    session = TrainingSession(FakeAgent(fail_at=1), run)
    await session.open()
    await session.observe(step(0))
    await until(lambda: run.holder() is None)  # without anybody closing it
    assert session.is_done
    with pytest.raises(SessionFailed, match="the agent failed"):
        await session.observe(step(1))
    for _ in range(2):
        with pytest.raises(SessionFailed, match="the agent failed"):
            await session.close()
    assert [record.message.split(":")[0] for record in caplog.records] == ["the agent failed"]


@pytest.mark.anyio
async def test_opening_that_is_cancelled_leaves_run_and_agent_free(tmp_path: Path) -> None:
    run = await trained_run(tmp_path)
    agent = SlowToRestore()
    session = TrainingSession(agent, run)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.open)
        await until(agent.is_restoring.is_set)
        tasks.cancel_scope.cancel()
        agent.go.set()
    assert run.holder() is None
    async with session:  # also tried again
        assert session.total_steps == 1
    async with TrainingSession(agent, run):
        pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_native_cancellation_of_opening_waits_for_the_thread_that_restores(tmp_path: Path) -> None:
    run = await trained_run(tmp_path)
    agent = SlowToRestore()
    session = TrainingSession(agent, run)
    task = asyncio.get_running_loop().create_task(session.open())
    await until(agent.is_restoring.is_set)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done(), "the agent is still written to"
    assert run.holder() is not None
    agent.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.holder() is None
    async with session:
        assert session.total_steps == 1


@pytest.mark.anyio
async def test_a_restore_that_hangs_keeps_run_and_agent_until_it_returns_and_no_caller(
    tmp_path: Path,
) -> None:
    run = await trained_run(tmp_path)
    agent = SlowToRestore()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(TrainingSession(agent, run, stall_timeout_s=0.05).open)
            await until(agent.is_restoring.is_set)
            tasks.cancel_scope.cancel()
        with pytest.raises(RunLocked):
            await TrainingSession(FakeAgent(), run).open()
        with pytest.raises(
            SessionError,
            match=f"SlowToRestore is in another open session .*{run.directory}",
        ):
            await TrainingSession(agent).open()
        agent.go.set()
        await until(lambda: run.holder() is None)
    async with TrainingSession(agent, run):
        pass


@pytest.mark.anyio
async def test_an_agent_is_in_one_open_session_and_a_copy_in_another() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent):
        with pytest.raises(SessionError, match=r"FakeAgent is in another open session \(without a run\)"):
            await TrainingSession(agent).open()
        async with TrainingSession(copy.deepcopy(agent)):
            pass
    async with TrainingSession(agent):
        pass


@pytest.mark.anyio
async def test_a_run_is_in_one_open_session(tmp_path: Path) -> None:
    run = await TrainingRun.create("once", root=tmp_path)
    agent = FakeAgent()
    async with TrainingSession(FakeAgent(), run):
        for other in (run, await TrainingRun.resume(run.directory)):
            with pytest.raises(RunLocked, match=str(run.directory)):
                await TrainingSession(agent, other).open()
    async with TrainingSession(agent, run):
        pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_block_may_be_left_by_another_task_once_the_first_has_ended(tmp_path: Path) -> None:
    run = await TrainingRun.create("fixture", root=tmp_path)
    session = TrainingSession(FakeAgent(), run)
    loop = asyncio.get_running_loop()
    await loop.create_task(session.__aenter__())
    await session.observe(step(0))
    await loop.create_task(session.__aexit__(None, None, None))  # type: ignore[arg-type]
    assert run.checkpoint_steps() == [1]


@pytest.mark.anyio
async def test_a_block_that_another_task_leaves_meanwhile_is_closed_and_refused_by_name(
    tmp_path: Path,
) -> None:
    run = await TrainingRun.create("stolen", root=tmp_path)
    session = TrainingSession(FakeAgent(), run)
    with pytest.raises(SessionError, match=r"`async with session` .*session.open\(\) and session.close\(\)"):
        async with session:
            await session.observe(step(0))
            body = session._body
            await in_another_task(session.__aexit__, None, None, None)
            session._body = body  # ends its scope
    assert run.checkpoint_steps() == [1]
    assert run.holder() is None


@pytest.mark.anyio
async def test_a_failure_cancels_the_block_and_nothing_around_it() -> None:
    reached = False
    with anyio.CancelScope() as outer:
        with pytest.raises(SessionFailed, match="the agent failed"):
            async with TrainingSession(FakeAgent(fail_at=1)) as session:
                await session.observe(step(0))
                await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        reached = True
    assert reached
    assert not outer.cancel_called


NEVER_CLOSED = """
import asyncio, sys, anyio
from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.testing import FakeAgent

async def main(root):
    run = await TrainingRun.create("never", root=root)
    session = TrainingSession(FakeAgent(), run)
    await session.open()
    await session.observe(Experience(0, 0, 1.0, 1, EpisodeStatus.TERMINATED, 0))
    await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
    await session.flush()
    return session

match sys.argv[1]:
    case "run":
        asyncio.run(main(sys.argv[2]))
    case "dropped":
        asyncio.new_event_loop().run_until_complete(main(sys.argv[2]))
    case "kept":
        loop = asyncio.new_event_loop()
        session = loop.run_until_complete(main(sys.argv[2]))
    case backend:
        anyio.run(main, sys.argv[2], backend=backend)
"""


@pytest.mark.parametrize("how", ["run", "dropped", "kept", "trio"])
def test_a_session_that_is_never_closed_is_told_and_what_was_flushed_is_there(
    how: str, tmp_path: Path
) -> None:
    ended = (launching if how in ("dropped", "trio") else subprocess).run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", NEVER_CLOSED, how, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"a TrainingSession of {tmp_path}" in ended.stderr
    assert "was never closed" in ended.stderr

    async def look() -> None:
        run = await TrainingRun.resume(tmp_path / "never")
        assert run.holder() is None
        assert (await run.read_train_episodes())["episode"].tolist() == [1]
        if how == "trio":  # whose system tasks outlive the main one
            assert run.checkpoint_steps() == [1]
        async with TrainingSession(FakeAgent(), run):
            pass

    anyio.run(look)


def test_an_event_loop_that_ends_with_an_open_session_leaves_agent_and_run_free(tmp_path: Path) -> None:
    agent = FakeAgent()

    async def begin() -> TrainingSession:
        session = TrainingSession(agent, await TrainingRun.create("open", root=tmp_path))
        await session.open()
        for k in range(50):
            await session.observe(step(k))
        return session

    async def again() -> None:
        async with TrainingSession(agent, await TrainingRun.resume(tmp_path / "open")):
            pass

    session = asyncio.run(begin())  # cancels every task, those of the session too
    with pytest.raises(SessionFailed, match="close the session before its event loop ends"):
        asyncio.run(session.close())
    asyncio.run(again())
