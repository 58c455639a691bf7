"""Logs of bytes: whole pieces, durable when asked for, of no more use after a failed sync."""

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
import pytest
from anyio import to_thread

from obstacles import files_of_at_most
from stoker.errors import WriteFailed
from stoker.writer import AppendLog

pytestmark = pytest.mark.anyio


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
    await log.sync()
    await log.aclose()
    assert not log.path.exists()


async def test_it_knows_how_much_is_not_durable(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log")
    assert log.unsynced_bytes == 0
    await log.append(b"123")
    await log.append(b"45")
    assert log.unsynced_bytes == 5
    await log.sync()
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
                await log.sync()

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
        await log.sync()
    for _ in range(2):
        for again in (log.sync, partial(log.append, b"more")):
            with pytest.raises(WriteFailed, match="/dev/null: Invalid argument") as caught:
                await again()
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.EINVAL
    with pytest.raises(WriteFailed, match="/dev/null: Invalid argument"):
        await log.aclose()
    await log.aclose()
    for again in (log.sync, partial(log.append, b"more")):  # closing does not heal it
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
                await log.sync()
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
            syncing = asyncio.create_task(log.sync())
            await asyncio.sleep(0)
            syncing.cancel()
            await asyncio.wait([syncing])
    await log.append(b"e" * 100_000)
    await log.aclose()
    data = log.path.read_bytes()
    pieces = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    assert all(piece == piece[:1] * 100_000 for piece in pieces)
    assert (pieces[0][:1], pieces[-1][:1]) == (b"0", b"e")
