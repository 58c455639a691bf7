"""A commit: all logs at once, each written behind the one before it, and no further than the disk allows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from stoker.errors import WriteFailed
from stoker.writer import AppendLog, Log
from stoker.writer.activities import Activities
from stoker.writer.committing import commit

pytestmark = pytest.mark.anyio


class Gated(AppendLog):
    """A log that waits before it writes, or before it syncs, until it is let go."""

    def __init__(self, path: Path, *, before: str) -> None:
        super().__init__(path)
        self.reached, self.release = threading.Event(), threading.Event()
        self._before = before

    def _wait(self) -> None:
        self.reached.set()
        assert self.release.wait(20)

    def _commit_it(self, data: bytes, written: Callable[[], None]) -> None:
        if self._before == "write":
            self._wait()
        super()._commit_it(data, written)

    def _sync_it(self) -> None:
        if self._before == "sync":
            self._wait()
        super()._sync_it()


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of other people's state
            await anyio.sleep(0.001)


def content(*logs: Log) -> list[bytes]:
    return [log.path.read_bytes() if log.path.exists() else b"" for log in logs]


async def close(*logs: Log) -> None:
    for log in logs:
        try:
            await log.aclose()
        except WriteFailed:
            assert log.path.parent == Path("/dev"), log


async def test_all_of_it_is_written_and_durable_and_what_was_there_before_too(tmp_path: Path) -> None:
    logs = [AppendLog(tmp_path / str(k)) for k in range(3)]
    await logs[1].append(b"before ")
    for _ in range(2):
        await commit({logs[0]: b"0", logs[1]: b"", logs[2]: b"2"}, Activities())
    assert content(*logs) == [b"00", b"before ", b"22"]
    assert [log.unsynced_bytes for log in logs] == [0, 0, 0]
    await close(*logs)


async def test_of_nothing_it_is_done_at_once() -> None:
    await commit({}, Activities())


async def test_a_log_is_written_behind_the_one_before_it_and_synced_beside_it(tmp_path: Path) -> None:
    journal, rows = Gated(tmp_path / "journal", before="sync"), AppendLog(tmp_path / "rows")
    early = Gated(tmp_path / "early", before="write")
    activities = Activities()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commit, {early: b"e", journal: b"j", rows: b"r"}, activities)
        await until(early.reached.is_set)
        assert content(early, journal, rows) == [b"", b"", b""]
        assert activities.now()[0].words == "writing early"
        early.release.set()
        await until(lambda: "writing early" not in str(activities.now()) and early.unsynced_bytes == 0)
        await until(lambda: content(rows) == [b"r"] and rows.unsynced_bytes == 0)
        assert (content(journal), journal.unsynced_bytes) == ([b"j"], 1)
        await until(lambda: activities.now()[0].words == "syncing journal")
        journal.release.set()
    assert journal.unsynced_bytes == 0
    assert activities.now() == []
    assert activities.n_bytes == 3
    await close(early, journal, rows)


async def test_behind_a_log_that_cannot_be_written_none_takes_anything(tmp_path: Path) -> None:
    before, behind = AppendLog(tmp_path / "before"), AppendLog(tmp_path / "behind")
    full = AppendLog(Path("/dev/full"))
    with pytest.raises(WriteFailed, match="/dev/full"):
        await commit({before: b"b", full: b"x", behind: b"y"}, Activities())
    assert await behind.settle(20)
    assert content(before, behind) == [b"b", b""]
    assert before.unsynced_bytes == 0
    await close(before, full, behind)


async def test_a_log_that_cannot_be_synced_keeps_no_other_from_it(tmp_path: Path) -> None:
    slow, last = Gated(tmp_path / "slow", before="write"), AppendLog(tmp_path / "last")
    null = AppendLog(Path("/dev/null"))
    told: list[WriteFailed] = []

    async def run() -> None:
        with pytest.raises(WriteFailed, match="/dev/null") as caught:
            await commit({null: b"x", slow: b"s", last: b"l"}, Activities())
        told.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(slow.reached.is_set)
        slow.release.set()
    assert isinstance(told[0].__cause__, OSError)
    assert content(slow, last) == [b"s", b"l"]
    assert slow.unsynced_bytes == last.unsynced_bytes == 0
    await close(null, slow, last)


async def test_a_log_that_was_refused_once_is_refused_for_good() -> None:
    log = AppendLog(Path("/dev/null"))
    for data in (b"x", b"", b"y"):
        with pytest.raises(WriteFailed, match="Invalid argument"):
            await commit({log: data}, Activities())
    await close(log)


async def test_cancelled_it_leaves_at_once_and_what_had_not_its_turn_never_has(tmp_path: Path) -> None:
    hanging, behind = Gated(tmp_path / "hanging", before="write"), AppendLog(tmp_path / "behind")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, {hanging: b"h", behind: b"b"}, Activities())
            await until(hanging.reached.is_set)
            tasks.cancel_scope.cancel()
    hanging.release.set()
    assert await hanging.settle(20)
    assert await behind.settle(20)
    assert content(hanging, behind) == [b"h", b""]
    assert hanging.unsynced_bytes == 0
    await hanging.append(b"!")
    await hanging.aclose()
    assert content(hanging) == [b"h!"]


async def test_what_a_log_was_asked_for_comes_before_its_closing_though_nobody_waits(tmp_path: Path) -> None:
    log = Gated(tmp_path / "log", before="write")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, {log: b"1"}, Activities())
            await until(log.reached.is_set)
            tasks.start_soon(commit, {log: b"2"}, Activities())
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    log.release.set()
    await log.aclose()
    assert content(log) == [b"12"]
    assert str(log.path) not in [file.path for file in psutil.Process().open_files()]
