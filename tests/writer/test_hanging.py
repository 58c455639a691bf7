"""A disk that hangs: who is cancelled comes back, what was begun is done in order, and all of it is told.

The disk hangs for real: a FIFO takes no more bytes until somebody reads them.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.errors import WriteFailed
from stoker.replies import Reply
from stoker.writer import AppendLog, RowLog, Writer, files

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs"),
]
NEVER_S = 1000.0
PIECE = b"p" * 300_000  # more than a FIFO holds


class Fifo:
    """A file that hangs in the middle of a large piece until it is read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_begun(self) -> bool:
        """Whether there is something to read, or nothing will ever come again."""
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def rest(self) -> bytes:
        """What is there when whoever wrote has closed it."""
        return os.read(self._descriptor, 1 << 20)

    async def read(self, n_bytes: int) -> bytes:
        data = b""
        with anyio.fail_after(20):
            while len(data) < n_bytes:
                if self.is_begun():
                    data += os.read(self._descriptor, n_bytes - len(data))
                await anyio.sleep(0.001)
        return data


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


class HangingSync(AppendLog):
    """A log whose file hangs in its sync until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reached, self.release = threading.Event(), threading.Event()

    def _sync_it(self) -> None:
        self.reached.set()
        assert self.release.wait(20)
        super()._sync_it()


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of other people's state
            await anyio.sleep(0.001)


async def leave(call: Any, is_reached: Any) -> None:
    """Cancel a call in the middle."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(is_reached)
            tasks.cancel_scope.cancel()


# Logs -----------------------------------------------------------------------------------------------


async def test_a_piece_that_was_left_in_the_middle_is_finished_before_anything_else(fifo: Fifo) -> None:
    log = AppendLog(fifo.path)
    await leave(lambda: log.append(PIECE), fifo.is_begun)
    assert not await log.settle(0.01)
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
    assert await log.settle(20)
    assert fifo.rest() == b""


async def test_what_becomes_of_a_piece_that_was_left_holds_for_all_that_comes(fifo: Fifo) -> None:
    log = AppendLog(fifo.path)
    await leave(lambda: log.append(PIECE), fifo.is_begun)
    fifo.close()  # nobody will read the rest: the write fails, and a FIFO takes nothing back
    assert await log.settle(20)
    for call in (lambda: log.append(b"x"), log.sync, log.aclose, log.sync, lambda: log.append(b"x")):
        with pytest.raises(WriteFailed, match="Broken pipe"):
            await call()


async def test_a_sync_that_hangs_is_left_at_once_and_closing_comes_behind_it(tmp_path: Path) -> None:
    log = HangingSync(tmp_path / "log")
    await log.append(b"x")
    await leave(log.sync, log.reached.is_set)
    with anyio.move_on_after(0.01):
        await log.aclose()
    assert log.unsynced_bytes == 1, "nothing is said to be durable that is not"
    log.release.set()
    await log.append(b"y")
    assert log.unsynced_bytes == 1
    await log.aclose()
    assert log.path.read_bytes() == b"xy"


async def test_an_opening_that_was_left_is_not_begun_twice(tmp_path: Path) -> None:
    entered, release = threading.Event(), threading.Event()
    n_prepared = 0

    class HangingOpen(AppendLog):
        def _prepare(self) -> None:
            nonlocal n_prepared
            n_prepared += 1
            entered.set()
            assert release.wait(20)

    log = HangingOpen(tmp_path / "log")
    await leave(lambda: log.append(b"never"), entered.is_set)
    release.set()
    await log.append(b"x")
    await log.aclose()
    assert n_prepared == 1
    assert log.path.read_bytes() == b"x"


# The writer -----------------------------------------------------------------------------------------


async def test_a_cancelled_writer_comes_back_from_a_log_that_hangs_and_says_when_it_is_done(
    fifo: Fifo, tmp_path: Path
) -> None:
    writer = Writer(sync_interval_s=NEVER_S)
    log, good = AppendLog(fifo.path), RowLog(tmp_path / "good.jsonl")

    async def fill() -> None:
        await writer.append(good, {"k": 1})
        reply: Reply[None] = Reply()
        await writer.flush(reply)
        await reply.wait()
        await writer.append(good, {"k": 2})
        await writer.append_data(log, PIECE)

    async def run_and_fill() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            tasks.start_soon(fill)

    await leave(run_and_fill, fifo.is_begun)
    assert b'"k":1' in good.path.read_bytes()
    assert not await writer.settle(0.01)
    assert await fifo.read(len(PIECE)) == PIECE
    assert await writer.settle(20)


async def test_a_cancelled_writer_comes_back_from_a_job_that_hangs(tmp_path: Path) -> None:
    writer, reached, release = Writer(), threading.Event(), threading.Event()

    def work() -> None:
        reached.set()
        assert release.wait(20)

    await writer.submit(work)
    await leave(writer.run, reached.is_set)
    assert not await writer.settle(0.01)
    release.set()
    assert await writer.settle(20)


async def test_a_cancelled_writer_comes_back_from_a_sync_that_hangs(tmp_path: Path) -> None:
    log, writer = HangingSync(tmp_path / "log"), Writer(sync_interval_s=0.0)
    await writer.append_data(log, b"x")
    await leave(writer.run, log.reached.is_set)
    assert not await writer.settle(0.01)
    log.release.set()
    assert await writer.settle(20)
    assert log.path.read_bytes() == b"x"
    assert log.unsynced_bytes == 0, "closed, and durable before that"


async def test_a_writer_that_failed_is_settled_when_its_other_threads_are(tmp_path: Path) -> None:
    writer, reached, release = Writer(), threading.Event(), threading.Event()

    def work() -> None:
        reached.set()
        assert release.wait(20)

    with anyio.fail_after(20), pytest.raises(WriteFailed, match="/dev/full"):
        async with anyio.create_task_group() as tasks:
            await writer.submit(work)

            async def run() -> None:
                try:
                    await writer.run()
                except WriteFailed as error:
                    tasks.cancel_scope.cancel()
                    errors.append(error)

            errors: list[WriteFailed] = []
            tasks.start_soon(run)
            await until(reached.is_set)
            await writer.append(RowLog(Path("/dev/full")), {"k": 1})
        raise errors[0]
    assert not await writer.settle(0.01)
    release.set()
    assert await writer.settle(20)


async def test_a_drained_writer_is_settled(tmp_path: Path) -> None:
    writer = Writer()
    assert await writer.settle(0)
    await writer.append(RowLog(tmp_path / "rows.jsonl"), {"k": 1})
    await writer.replace(tmp_path / "m.json", 1)
    await writer.submit(int)  # type: ignore[arg-type]
    writer.close()
    with anyio.fail_after(20):
        await writer.run()
    assert await writer.settle(0)


# What is told ---------------------------------------------------------------------------------------


async def test_a_slow_job_moves_on_and_a_stuck_one_does_not_though_rows_flow(tmp_path: Path) -> None:
    steps = [threading.Semaphore(0), threading.Semaphore(0)]
    log = RowLog(tmp_path / "rows.jsonl")

    def slowly(file: Any) -> None:
        for _ in range(3):
            assert steps[0].acquire(timeout=20)
            file.write(b"x" * 1000)
            steps[1].release()
        assert steps[0].acquire(timeout=20)

    writer = Writer(sync_interval_s=0.0)

    def of_job() -> int:
        (job,) = [one for one in writer.activities() if one.words == "writing step_1.pt"]
        return job.progress

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            work = lambda: files.write_atomically(tmp_path / "step_1.pt", slowly)  # noqa: E731
            await writer.submit(work, name="writing step_1.pt")
            await until(lambda: writer.doing)
            assert of_job() == 0
            for k in range(3):
                before = writer.progress
                steps[0].release()
                await until(lambda: steps[1].acquire(blocking=False))
                await until(lambda n=k: of_job() == 1000 * (n + 1))
                assert writer.progress != before
            before = writer.progress
            await writer.append(log, {"k": 1})
            await until(lambda: log.path.exists() and log.path.read_bytes())
            await until(lambda: writer.progress != before)
            assert of_job() == 3000
            steps[0].release()
            writer.close()
    assert writer.activities() == []
    assert writer.progress[1] == 3000 + log.path.stat().st_size


async def test_a_log_moves_on_within_a_piece(fifo: Fifo) -> None:
    log, writer = AppendLog(fifo.path), Writer()

    def progress() -> int:
        return max((one.progress for one in writer.activities()), default=0)

    async def run() -> None:
        with pytest.raises(WriteFailed, match="Invalid argument"):  # a FIFO cannot be synced
            await writer.run()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await writer.append_data(log, b"p" * (3 << 20))
            await fifo.read(1 << 20)
            await until(lambda: progress() == 1 << 20)
            before = writer.progress
            await fifo.read(1 << 20)
            await until(lambda: progress() == 2 << 20)
            assert writer.progress != before
            await fifo.read(1 << 20)
            writer.close()


async def test_other_threads_may_look_at_any_moment() -> None:
    writer = Writer()
    ended = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not ended.is_set():
                assert [writer.doing, writer.activities(), writer.progress]
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(daemon=True, target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for k in range(20_000):
            with writer._activities.at(f"writing {k}"), writer._activities.at("syncing"):
                pass
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
