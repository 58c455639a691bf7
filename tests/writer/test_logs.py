"""Logs: whole pieces, durable when asked for, several at once; what a failed sync and a disk that hangs do.

The disk hangs for real: a FIFO takes no more bytes until somebody reads them.
"""

from __future__ import annotations

import asyncio
import errno
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import to_thread
from writing_parts import PIECE, Fifo, HangingSync, leave, until

from obstacles import few_files_left, files_of_at_most
from stoker.errors import RunFenced, WriteFailed
from stoker.writer import AppendLog
from stoker.writer.fencing import fence, unfence
from stoker.writer.logs import commit

pytestmark = pytest.mark.anyio


async def sync(log: AppendLog) -> None:
    await commit({log: b""})


async def test_pieces_come_one_behind_the_other_also_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a")
    log = AppendLog(path)
    assert not (tmp_path / "none").exists()
    for piece in (b"b", b"", b"\0\n\xff"):
        await log.append(piece)
    await log.aclose()
    await log.append(b"c")
    await log.aclose()
    await log.aclose()
    assert path.read_bytes() == b"ab\0\n\xffc"


async def test_nothing_is_made_before_the_first_piece(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    await sync(log)
    await log.aclose()
    assert not log.path.exists()


async def test_it_knows_how_much_is_not_durable(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    assert log.unsynced_bytes == 0
    await log.append(b"123")
    await log.append(b"45")
    assert log.unsynced_bytes == 5
    await sync(log)
    assert log.unsynced_bytes == 0
    await log.append(b"6")
    assert log.unsynced_bytes == 1
    await log.aclose()
    assert log.unsynced_bytes == 0


async def test_pieces_of_several_tasks_stay_whole_and_in_each_tasks_order(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")

    async def write(writer: int) -> None:
        for k in range(10):
            await log.append(f"{writer}{k}".encode() * 500)
            if k % 4 == 0:
                await sync(log)

    async with anyio.create_task_group() as tasks:
        for writer in range(6):
            tasks.start_soon(write, writer)
    await log.aclose()
    data = log.path.read_bytes()
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    assert all(piece == piece[:2] * 500 for piece in pieces)
    for writer in range(6):
        mine = [int(piece[1:2]) for piece in pieces if piece[:1] == str(writer).encode()]
        assert mine == list(range(10))


async def test_a_failed_sync_poisons_it_for_good(tmp_path: Path) -> None:
    log = AppendLog(Path("/dev/null"))  # takes every byte and refuses to sync
    await log.append(b"lost")
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await sync(log)
    for _ in range(2):
        for again in (partial(sync, log), partial(log.append, b"more")):
            with pytest.raises(WriteFailed, match="/dev/null: Invalid argument") as caught:
                await again()
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EINVAL
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await log.aclose()
    await log.aclose()
    for again in (partial(sync, log), partial(log.append, b"more")):  # closing does not heal it
        with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
            await again()


async def test_a_full_device_is_a_typed_error() -> None:
    log = AppendLog(Path("/dev/full"))
    with pytest.raises(WriteFailed, match=r"/dev/full: No space left") as caught:
        await log.append(b"piece")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(WriteFailed):  # nothing can be taken back from a device: what follows would be lost
        await log.append(b"piece")
    with pytest.raises(WriteFailed):
        await log.aclose()


async def test_a_piece_that_is_taken_in_part_is_taken_back_and_may_come_again(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    await log.append(b"a" * 1000)
    with files_of_at_most(1500):
        with pytest.raises(WriteFailed, match="File too large"):
            await log.append(b"b" * 1000)
        assert log.path.read_bytes() == b"a" * 1000
        assert log.unsynced_bytes == 1000
        await log.append(b"c" * 500)
    await log.append(b"d" * 1000)
    await log.aclose()
    assert log.path.read_bytes() == b"a" * 1000 + b"c" * 500 + b"d" * 1000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB, where root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (mounted := subprocess.run(mount, capture_output=True, check=False)).returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_leaves_the_last_whole_piece(small_disk: Path) -> None:
    log = AppendLog(small_disk / "log")
    await log.append(b"a" * 40_000)
    with pytest.raises(WriteFailed, match="No space left on device"):
        await log.append(b"b" * 40_000)
    await log.append(b"c" * 10_000)
    await log.aclose()
    assert log.path.read_bytes() == b"a" * 40_000 + b"c" * 10_000


async def test_a_missing_directory_is_a_typed_error(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "none" / "log")
    with pytest.raises(WriteFailed, match="none/log: No such file"):
        await log.append(b"x")
    log.path.parent.mkdir()
    await log.append(b"x")  # what was in the way is mended
    await log.aclose()
    assert log.path.read_bytes() == b"x"


async def test_it_goes_on_though_all_threads_of_the_user_wait_for_it(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    go_on = threading.Event()
    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, go_on.wait)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(20):
                await log.append(b"x")
                await sync(log)
                await log.aclose()
            go_on.set()
    finally:
        go_on.set()
        limiter.total_tokens = before
    assert log.path.read_bytes() == b"x"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
async def test_it_goes_on_though_the_loops_own_threads_wait_for_it(
    tmp_path: Path, anyio_backend: object
) -> None:
    log = AppendLog(tmp_path / "log")
    go_on = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, go_on.wait)
    with anyio.fail_after(20):
        await log.append(b"x")
        await log.aclose()
    go_on.set()
    await waiting
    assert log.path.read_bytes() == b"x"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
async def test_a_task_cancelled_by_asyncio_itself_leaves_whole_pieces(
    tmp_path: Path, anyio_backend: object
) -> None:
    log = AppendLog(tmp_path / "log")
    await log.append(b"0" * 100_000)
    for k in range(1, 30):
        writing = asyncio.create_task(log.append(str(k % 10).encode() * 100_000))
        for _ in range(k % 4):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        if k % 5 == 0:
            syncing = asyncio.create_task(sync(log))
            await asyncio.sleep(0)
            syncing.cancel()
            await asyncio.wait([syncing])
    await log.append(b"e" * 100_000)
    await log.aclose()
    data = log.path.read_bytes()
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    assert all(piece == piece[:1] * 100_000 for piece in pieces)
    assert (pieces[0][:1], pieces[-1][:1]) == (b"0", b"e")


# A disk that hangs ----------------------------------------------------------------------------------


async def test_a_piece_that_was_left_in_the_middle_is_finished_before_anything_else(fifo: Fifo) -> None:
    log = AppendLog(fifo.path)
    await leave(lambda: log.append(PIECE), fifo.is_begun)
    assert not await log.thread.settle(0.01)
    with anyio.move_on_after(0.01):
        await log.append(b"never begun")
    with anyio.move_on_after(0.01):
        await log.aclose()
    async with anyio.create_task_group() as tasks:

        async def again() -> None:
            with pytest.raises(WriteFailed, match="Invalid argument"):  # a FIFO cannot be synced
                await log.append(b"again")

        tasks.start_soon(again)
        assert await fifo.read(len(PIECE)) == PIECE
    assert await log.thread.settle(20)
    assert fifo.rest() == b""


async def test_what_becomes_of_a_piece_that_was_left_holds_for_all_that_comes(fifo: Fifo) -> None:
    log = AppendLog(fifo.path)
    await leave(lambda: log.append(PIECE), fifo.is_begun)
    fifo.close()  # nobody will read the rest: the write fails, and a FIFO takes nothing back
    assert await log.thread.settle(20)
    for call in (partial(log.append, b"x"), partial(sync, log), log.aclose, partial(log.append, b"x")):
        with pytest.raises(WriteFailed, match="Broken pipe"):
            await call()


async def test_a_sync_that_hangs_is_left_at_once_and_closing_comes_behind_it(tmp_path: Path) -> None:
    log = HangingSync(tmp_path / "log")
    await log.append(b"x")
    await leave(partial(sync, log), log.reached.is_set)
    with anyio.move_on_after(0.01):
        await log.aclose()
    assert log.unsynced_bytes == 1, "nothing is said to be durable that is not"
    log.release.set()
    await log.append(b"y")
    assert log.unsynced_bytes == 1
    await log.aclose()
    assert log.path.read_bytes() == b"xy"


async def test_a_piece_that_was_left_while_its_file_opens_is_written_and_the_file_opened_once(
    tmp_path: Path,
) -> None:
    entered, release = threading.Event(), threading.Event()
    n_prepared = 0

    class HangingOpen(AppendLog):
        def _prepare(self) -> None:
            nonlocal n_prepared
            n_prepared += 1
            entered.set()
            assert release.wait(20)

    log = HangingOpen(tmp_path / "log")
    await leave(lambda: log.append(b"left"), entered.is_set)
    release.set()
    await log.append(b"x")
    await log.aclose()
    assert n_prepared == 1
    assert log.path.read_bytes() == b"leftx"


def test_a_file_whose_directory_cannot_be_made_durable_is_not_open_and_is_opened_again(
    tmp_path: Path,
) -> None:
    file = AppendLog(tmp_path / "log")
    with few_files_left(1), pytest.raises(WriteFailed, match="Too many open files"):
        file.write(b"x")
    file.write(b"y")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"y"


def test_a_sync_that_ends_when_the_directory_was_lost_confirms_nothing(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    log.write(b"x")

    def lost() -> None:
        raise RunFenced(tmp_path, 1, "another process")

    fence(tmp_path, lost)
    try:
        with pytest.raises(RunFenced):
            log.sync()
    finally:
        unfence(tmp_path)
    log.close()


def test_a_sync_counts_its_time_from_its_own_beginning(tmp_path: Path) -> None:
    file = AppendLog(tmp_path / "log")
    file.write(b"x")
    writing, began_at = file.thread.doing
    file.sync()
    assert (writing, file.thread.doing[0]) == ("writing log", "syncing log")
    assert began_at < file.thread.doing[1], "a sync behind a long write does not look stuck from the start"
    file.close()


# Commits --------------------------------------------------------------------------------------------


class Gated(AppendLog):
    """A log that waits before it writes, or before it syncs, until it is let go."""

    def __init__(self, path: Path, *, before: str) -> None:
        super().__init__(path)
        self.reached, self.release = threading.Event(), threading.Event()
        self._before = before

    def _wait(self) -> None:
        self.reached.set()
        assert self.release.wait(20)

    def _prepare(self) -> None:
        if self._before == "write":
            self._wait()

    def sync(self) -> None:
        if self._before == "sync":
            self._wait()
        super().sync()


def content(*logs: AppendLog) -> list[bytes]:
    return [log.path.read_bytes() if log.path.exists() else b"" for log in logs]


async def close(*logs: AppendLog) -> None:
    for log in logs:
        try:
            await log.aclose()
        except WriteFailed:
            assert log.path.parent == Path("/dev"), log


async def test_all_of_it_is_written_and_durable_and_what_was_there_before_too(tmp_path: Path) -> None:
    logs = [AppendLog(tmp_path / str(k)) for k in range(3)]
    await logs[1].append(b"before ")
    for _ in range(2):
        await commit({logs[0]: b"0", logs[1]: b"", logs[2]: b"2"})
    assert content(*logs) == [b"00", b"before ", b"22"]
    assert [log.unsynced_bytes for log in logs] == [0, 0, 0]
    await close(*logs)


async def test_of_nothing_it_is_done_at_once() -> None:
    await commit({})


async def test_a_log_is_written_behind_the_one_before_it_and_synced_beside_it(tmp_path: Path) -> None:
    journal, rows = Gated(tmp_path / "journal", before="sync"), AppendLog(tmp_path / "rows")
    early = Gated(tmp_path / "early", before="write")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commit, {early: b"e", journal: b"j", rows: b"r"})
        await until(early.reached.is_set)
        assert content(early, journal, rows) == [b"", b"", b""]
        assert early.thread.activity is not None
        assert early.thread.activity.words == "writing early"
        assert journal.thread.activity is rows.thread.activity is None
        early.release.set()
        await until(lambda: content(rows) == [b"r"] and rows.unsynced_bytes == early.unsynced_bytes == 0)
        assert (content(journal), journal.unsynced_bytes) == ([b"j"], 1)
        assert journal.thread.activity is not None
        journal.release.set()
    assert journal.unsynced_bytes == 0
    assert journal.thread.activity is None
    await close(early, journal, rows)


async def test_behind_a_log_that_cannot_be_written_none_takes_anything(tmp_path: Path) -> None:
    before, behind = AppendLog(tmp_path / "before"), AppendLog(tmp_path / "behind")
    full = AppendLog(Path("/dev/full"))
    with pytest.raises(WriteFailed, match="/dev/full"):
        await commit({before: b"b", full: b"x", behind: b"y"})
    assert await behind.thread.settle(20)
    assert content(before, behind) == [b"b", b""]
    assert before.unsynced_bytes == 0
    await close(before, full, behind)


async def test_a_log_that_cannot_be_synced_keeps_no_other_from_it(tmp_path: Path) -> None:
    slow, last = Gated(tmp_path / "slow", before="write"), AppendLog(tmp_path / "last")
    null = AppendLog(Path("/dev/null"))
    told: list[WriteFailed] = []

    async def run() -> None:
        with pytest.raises(WriteFailed, match="/dev/null") as caught:
            await commit({null: b"x", slow: b"s", last: b"l"})
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
            await commit({log: data})
    await close(log)


async def test_cancelled_it_leaves_at_once_and_what_had_not_its_turn_never_has(tmp_path: Path) -> None:
    hanging, behind = Gated(tmp_path / "hanging", before="write"), AppendLog(tmp_path / "behind")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, {hanging: b"h", behind: b"b"})
            await until(hanging.reached.is_set)
            tasks.cancel_scope.cancel()
    hanging.release.set()
    assert await hanging.thread.settle(20)
    assert await behind.thread.settle(20)
    assert content(hanging, behind) == [b"h", b""]
    assert hanging.unsynced_bytes == 0
    await hanging.append(b"!")
    await hanging.aclose()
    assert content(hanging) == [b"h!"]


async def test_closing_comes_behind_a_piece_that_was_begun_though_nobody_waits(tmp_path: Path) -> None:
    log = Gated(tmp_path / "log", before="write")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, {log: b"1"})
            await until(log.reached.is_set)
            tasks.start_soon(commit, {log: b"2"})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    log.release.set()
    await log.aclose()
    assert content(log) == [b"1"]
    assert str(log.path) not in [file.path for file in psutil.Process().open_files()]
