"""Group commits: one flush for all, one at a time, and only what was accepted before it counts as durable."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from stoker import SessionClosed, SessionError
from stoker.service.durability import GroupCommit
from stoker.service.streams import StreamState
from stoker.service.table import Stream

pytestmark = pytest.mark.anyio

NEVER = 3600.0


class Disk:
    """Flushes that end when they are told to, or fail."""

    def __init__(self) -> None:
        self.running: list[anyio.Event] = []
        self.begun = anyio.Event()
        self.fails = False

    async def flush(self) -> None:
        self.running.append(anyio.Event())
        self.begun.set()
        await self.running[-1].wait()
        if self.fails:
            raise SessionClosed("flush", entered=True)

    async def end(self) -> None:
        self.begun = anyio.Event()
        self.running[-1].set()
        await wait_all_tasks_blocked()


def move(stream: Stream, commits: GroupCommit) -> None:
    stream.state = StreamState(stream.state.next + 1)
    commits.note(stream)


async def test_a_flush_makes_durable_what_was_accepted_before_it() -> None:
    disk, one, other = Disk(), Stream("a"), Stream("b")
    commits = GroupCommit(disk.flush, NEVER)
    waited: list[str] = []

    async def wait(name: str) -> None:
        await commits.wait()
        waited.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.run)
        move(one, commits)
        await wait_all_tasks_blocked()
        assert disk.running == [], "nobody waits, and the interval is long"
        tasks.start_soon(wait, "first")
        await wait_all_tasks_blocked()
        assert len(disk.running) == 1
        move(one, commits)
        move(other, commits)
        tasks.start_soon(wait, "second")
        tasks.start_soon(wait, "third")
        await wait_all_tasks_blocked()
        assert len(disk.running) == 1, "one at a time"
        await disk.end()
        assert waited == ["first"]
        assert (one.durable, other.durable) == (1, 0)
        assert len(disk.running) == 2
        await disk.end()
        assert sorted(waited) == ["first", "second", "third"]
        assert (one.durable, other.durable) == (2, 1)
        assert commits.n_commits == 2
        tasks.cancel_scope.cancel()


async def test_a_change_is_committed_within_the_interval() -> None:
    disk, stream = Disk(), Stream("a")
    commits = GroupCommit(disk.flush, 1e-3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.run)
        await wait_all_tasks_blocked()
        assert disk.running == [], "nothing to commit"
        for expected in (1, 2):
            move(stream, commits)
            with anyio.fail_after(10):
                await disk.begun.wait()
            await disk.end()
            assert stream.durable == expected
        tasks.cancel_scope.cancel()


async def test_actors_that_come_back_together_share_the_next_flush() -> None:
    disk, stream, now = Disk(), Stream("a"), [0.0]
    commits = GroupCommit(disk.flush, NEVER, lambda: now[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.run)
        for _ in range(3):
            tasks.start_soon(commits.wait)
        await wait_all_tasks_blocked()
        now[0] += NEVER  # it took long
        await disk.end()
        for n_back in (1, 2):
            move(stream, commits)
            tasks.start_soon(commits.wait)
            await wait_all_tasks_blocked()
            assert len(disk.running) == 1, n_back
        tasks.start_soon(commits.wait)
        await wait_all_tasks_blocked()
        assert len(disk.running) == 2
        await disk.end()  # at once
        tasks.start_soon(commits.wait)
        with anyio.fail_after(10):
            await disk.begun.wait()
        await disk.end()
        tasks.cancel_scope.cancel()
    assert stream.durable == 2


async def test_who_waits_when_the_session_ends_is_told() -> None:
    disk, stream = Disk(), Stream("a")
    commits = GroupCommit(disk.flush, NEVER)
    errors: list[SessionError] = []

    async def wait() -> None:
        try:
            await commits.wait()
        except SessionError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.run)
        move(stream, commits)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        tasks.start_soon(wait)  # for the next flush
        await wait_all_tasks_blocked()
        disk.fails = True
        await disk.end()
        await wait()  # after the end
    assert [type(error) for error in errors] == [SessionClosed] * 3
    assert stream.durable == 0


async def test_a_cancelled_waiter_changes_nothing() -> None:
    disk, stream = Disk(), Stream("a")
    commits = GroupCommit(disk.flush, NEVER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.run)
        move(stream, commits)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await commits.wait()
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        await disk.end()
        assert stream.durable == 1
        tasks.cancel_scope.cancel()
