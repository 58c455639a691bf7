"""The writer task: order, batches, replacements, jobs among rows, flush, failures, close."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stoker.errors import StokerError, WriteFailed
from stoker.replies import Reply
from stoker.writer import RowLog, Writer

pytestmark = pytest.mark.anyio
NEVER_S = 1000.0


class ToldLog(RowLog):
    """A log that says what was written in which batches."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[list[Any]] = []
        self.written = anyio.Event()
        self.synced = anyio.Event()

    async def append(self, rows: Sequence[Any]) -> None:
        await super().append(rows)
        self.batches.append(list(rows))
        self.written.set()

    async def sync(self) -> None:
        worth_it = self.unsynced
        await super().sync()
        if worth_it:
            self.synced.set()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Writer]:
    """A writer that is closed and drained at the end."""
    writer = Writer(**{"sync_interval_s": NEVER_S, "replace_interval_s": NEVER_S, **settings})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            yield writer
            writer.close()


async def flush(writer: Writer) -> None:
    reply: Reply[None] = Reply()
    await writer.flush(reply)
    await reply.wait()


def rows_in(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_rows_of_each_log_keep_their_order_and_a_batch_is_one_write(tmp_path: Path) -> None:
    logs = [ToldLog(tmp_path / f"{i}.jsonl") for i in range(2)]
    async with running() as writer:
        for k in range(100):  # all of them are there when the writer has its turn
            await writer.append(logs[k % 2], k)
        await flush(writer)
    assert [rows_in(log.path) for log in logs] == [list(range(0, 100, 2)), list(range(1, 100, 2))]
    assert [len(log.batches) for log in logs] == [1, 1]


async def test_a_small_queue_makes_callers_wait_and_loses_nothing(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    async with running(capacity=1) as writer:
        for k in range(50):
            await writer.append(log, k)
    assert rows_in(log.path) == list(range(50))


async def test_a_replaced_file_waits_for_its_interval_or_a_flush_or_the_close(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    log = ToldLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        for value in range(10):
            await writer.replace(path, {"value": value})
        await writer.append(log, 0)
        await log.written.wait()  # the batch with the values is done
        assert not path.exists(), "the interval is not over"
        await flush(writer)
        assert json.loads(path.read_text()) == {"value": 9}
        written = path.stat().st_ino
        await writer.replace(path, {"value": 10})
        log.written = anyio.Event()
        await writer.append(log, 1)
        await log.written.wait()
        assert path.stat().st_ino == written
    assert json.loads(path.read_text()) == {"value": 10}
    assert path.read_text() == '{\n  "value": 10\n}\n'


async def test_with_an_interval_of_zero_every_batch_replaces(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    async with running(replace_interval_s=0.0) as writer:
        await writer.replace(path, 1)
        while not path.exists():
            await checkpoint()
        await writer.replace(path, 2)
        while json.loads(path.read_text()) == 1:
            await checkpoint()
        assert json.loads(path.read_text()) == 2


async def test_rows_become_durable_by_themselves(tmp_path: Path) -> None:
    log = ToldLog(tmp_path / "rows.jsonl")
    async with running(sync_interval_s=0.001) as writer:
        await writer.append(log, 1)
        await log.synced.wait()
        assert not log.unsynced
        assert rows_in(log.path) == [1]


async def test_a_job_starts_when_earlier_rows_are_durable(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    seen: list[tuple[list[int], bool, dict[str, int], str]] = []

    def look() -> None:
        meta = json.loads((tmp_path / "m.json").read_text())
        seen.append((rows_in(log.path), log.unsynced, meta, threading.current_thread().name))

    async with running() as writer:
        for k in range(3):
            await writer.append(log, 2 * k)
            await writer.append(log, 2 * k + 1)
            await writer.replace(tmp_path / "m.json", {"k": k})
            done: Reply[None] = Reply()
            await writer.submit(look, done)
            await done.wait()
    assert seen == [(list(range(2 * k + 2)), False, {"k": k}, "stoker-writer") for k in range(3)]


async def test_jobs_run_one_after_the_other_in_order() -> None:
    ran: list[int] = []
    running_now: list[int] = []

    def job(k: int) -> Callable[[], None]:
        def work() -> None:
            running_now.append(k)
            assert running_now == [k]
            ran.append(k)
            running_now.remove(k)

        return work

    async with running() as writer:
        for k in range(20):
            await writer.submit(job(k))
    assert ran == list(range(20))


async def test_rows_go_on_while_a_long_job_runs_and_flush_waits_for_it(tmp_path: Path) -> None:
    log = ToldLog(tmp_path / "rows.jsonl")
    entered, let_go = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert let_go.wait(20)

    flushed: list[str] = []

    async def flush_and_tell(writer: Writer) -> None:
        await flush(writer)
        flushed.append("flush")

    async with running() as writer, anyio.create_task_group() as tasks:
        done: Reply[None] = Reply()
        await writer.submit(work, done)
        await anyio.to_thread.run_sync(entered.wait, 20)
        await writer.append(log, 1)
        await log.written.wait()
        assert rows_in(log.path) == [1]
        tasks.start_soon(flush_and_tell, writer)
        await anyio.wait_all_tasks_blocked()
        assert not done.is_set
        assert flushed == []
        let_go.set()
        await done.wait()
    assert flushed == ["flush"]


async def test_close_drains_everything(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    ran: list[int] = []
    async with running() as writer:
        for k in range(10):
            await writer.append(log, k)
            await writer.replace(tmp_path / "m.json", k)
            await writer.submit(lambda k=k: ran.append(k))
    assert rows_in(log.path) == ran == list(range(10))
    assert json.loads((tmp_path / "m.json").read_text()) == 9
    assert not log.unsynced
    with pytest.raises(anyio.ClosedResourceError):
        await writer.append(log, 11)


async def test_closed_with_an_error_it_says_that_error_to_those_who_come(tmp_path: Path) -> None:
    async with running() as writer:
        writer.close(lambda: StokerError("over"))
        with pytest.raises(StokerError, match="over"):
            await writer.append(RowLog(tmp_path / "x"), 1)


async def failing(writer: Writer, *calls: Callable[[], Any]) -> BaseException:
    """What ``run`` raises when these things were handed in; never a group."""
    with anyio.fail_after(20):
        for call in calls:
            await call()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - looked at by the tests
            await writer.run()
    return caught.value


def refuse(path: Path) -> None:
    raise WriteFailed(path, OSError(errno.ENOSPC, "No space left on device"))


async def test_a_row_on_a_full_disk_ends_it_with_the_cause() -> None:
    writer = Writer()
    error = await failing(writer, lambda: writer.append(RowLog(Path("/dev/full")), 1))
    assert type(error) is WriteFailed
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ENOSPC
    assert "/dev/full" in str(error)


async def test_a_job_that_fails_ends_it_with_the_cause_even_while_it_waits_for_work(tmp_path: Path) -> None:
    writer = Writer()
    error = await failing(writer, lambda: writer.submit(lambda: refuse(tmp_path / "step_1.pt")))
    assert type(error) is WriteFailed
    assert isinstance(error.__cause__, OSError)
    assert "step_1.pt" in str(error)


async def test_a_replacement_that_fails_ends_it(tmp_path: Path) -> None:
    (tmp_path / "m.json").mkdir()
    writer = Writer(replace_interval_s=0.0)
    error = await failing(writer, lambda: writer.replace(tmp_path / "m.json", 1))
    assert type(error) is WriteFailed
    assert isinstance(error.__cause__, IsADirectoryError)


async def test_what_a_job_raises_comes_out_as_it_is() -> None:
    writer = Writer()
    error = await failing(writer, lambda: writer.submit(lambda: int("x")))
    assert type(error) is ValueError


async def test_rows_before_a_failing_job_are_on_disk_and_the_logs_closed(tmp_path: Path) -> None:
    good = RowLog(tmp_path / "good.jsonl")
    unsyncable = RowLog(Path("/dev/null"))
    writer = Writer(sync_interval_s=NEVER_S)
    await failing(
        writer,
        lambda: writer.append(unsyncable, 1),
        lambda: writer.append(good, 1),
        lambda: writer.append(good, 2),
        lambda: writer.submit(lambda: refuse(tmp_path / "x")),
    )
    assert rows_in(good.path) == [1, 2]
    assert not good.unsynced, "a log that cannot be synced keeps no other from it"


async def test_a_cancelled_writer_still_syncs_and_closes_its_logs(tmp_path: Path) -> None:
    log = ToldLog(tmp_path / "rows.jsonl")
    writer = Writer(sync_interval_s=NEVER_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await writer.append(log, 1)
        await log.written.wait()
        assert log.unsynced
        tasks.cancel_scope.cancel()
    assert rows_in(log.path) == [1]
    assert not log.unsynced
