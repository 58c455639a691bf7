"""The writer task: order, batches, replacements, jobs among rows, flush, failures, close."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from anyio.lowlevel import checkpoint

from stoker.errors import StokerError, WriteFailed
from stoker.replies import Reply
from stoker.writer import AppendLog, Log, RowLog, Writer

pytestmark = pytest.mark.anyio
NEVER_S = 1000.0


class Told(Log):
    """A log that says what was written with which calls, and how often it was synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pieces: list[bytes] = []
        self.n_syncs = 0

    async def append_bytes(self, data: bytes) -> None:
        await super().append_bytes(data)
        self.pieces.append(data)

    def _commit_it(self, data: bytes, written: Callable[[], None]) -> None:
        if data:
            self.pieces.append(data)
        super()._commit_it(data, written)

    def _sync_it(self) -> None:
        super()._sync_it()
        self.n_syncs += 1


class ToldLog(Told, RowLog):
    """One of rows."""


class ToldData(Told, AppendLog):
    """One of bytes."""


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - of other people's state
        await anyio.sleep(0.001)


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
    return [json.loads(line)["k"] for line in path.read_text().splitlines()]


async def test_rows_of_each_log_keep_their_order_and_a_batch_is_one_write(tmp_path: Path) -> None:
    logs = [ToldLog(tmp_path / f"{i}.jsonl") for i in range(2)]
    async with running() as writer:
        for k in range(100):  # all of them are there when the writer has its turn
            await writer.append(logs[k % 2], {"k": k})
        await flush(writer)
    assert [rows_in(log.path) for log in logs] == [list(range(0, 100, 2)), list(range(1, 100, 2))]
    assert [len(log.pieces) for log in logs] == [1, 1]


async def test_a_small_queue_makes_callers_wait_and_loses_nothing(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    async with running(capacity=1) as writer:
        for k in range(50):
            await writer.append(log, {"k": k})
    assert rows_in(log.path) == list(range(50))


async def test_a_replaced_file_waits_for_its_interval_or_a_flush_or_the_close(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    log = ToldLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        for value in range(10):
            await writer.replace(path, {"value": value})
        await writer.append(log, {"k": 0})
        await until(lambda: log.pieces)  # the batch with the values is done
        assert not path.exists(), "the interval is not over"
        await flush(writer)
        assert json.loads(path.read_text()) == {"value": 9}
        written = path.stat().st_ino
        await writer.replace(path, {"value": 10})
        await writer.append(log, {"k": 1})
        await until(lambda: len(log.pieces) == 2)
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
        await writer.append(log, {"k": 1})
        await until(lambda: log.n_syncs)
        assert log.unsynced_bytes == 0
        assert rows_in(log.path) == [1]


async def test_a_job_starts_when_earlier_rows_are_durable(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    seen: list[tuple[list[int], bool, dict[str, int], str]] = []

    def look() -> None:
        meta = json.loads((tmp_path / "m.json").read_text())
        seen.append((rows_in(log.path), log.unsynced_bytes > 0, meta, threading.current_thread().name))

    async with running() as writer:
        for k in range(3):
            await writer.append(log, {"k": 2 * k})
            await writer.append(log, {"k": 2 * k + 1})
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
        await writer.append(log, {"k": 1})
        await until(lambda: log.pieces)
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
            await writer.append(log, {"k": k})
            await writer.replace(tmp_path / "m.json", k)
            await writer.submit(lambda k=k: ran.append(k))
    assert rows_in(log.path) == ran == list(range(10))
    assert json.loads((tmp_path / "m.json").read_text()) == 9
    assert log.unsynced_bytes == 0
    with pytest.raises(anyio.ClosedResourceError):
        await writer.append(log, {"k": 11})


async def test_closed_with_an_error_it_says_that_error_to_those_who_come(tmp_path: Path) -> None:
    async with running() as writer:
        writer.close(lambda: StokerError("over"))
        with pytest.raises(StokerError, match="over"):
            await writer.append(RowLog(tmp_path / "x"), {"k": 1})


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
    error = await failing(writer, lambda: writer.append(RowLog(Path("/dev/full")), {"k": 1}))
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
        lambda: writer.append(unsyncable, {"k": 1}),
        lambda: writer.append(good, {"k": 1}),
        lambda: writer.append(good, {"k": 2}),
        lambda: writer.submit(lambda: refuse(tmp_path / "x")),
    )
    assert rows_in(good.path) == [1, 2]
    assert good.unsynced_bytes == 0, "a log that cannot be synced keeps no other from it"


async def test_a_cancelled_writer_still_syncs_and_closes_its_logs(tmp_path: Path) -> None:
    log = ToldLog(tmp_path / "rows.jsonl")
    writer = Writer(sync_interval_s=NEVER_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await writer.append(log, {"k": 1})
        await until(lambda: log.pieces)
        assert log.unsynced_bytes > 0
        tasks.cancel_scope.cancel()
    assert rows_in(log.path) == [1]
    assert log.unsynced_bytes == 0


async def test_bytes_keep_their_order_and_a_batch_is_one_write(tmp_path: Path) -> None:
    data, log = ToldData(tmp_path / "journal"), ToldLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        for k in range(50):
            await writer.append_data(data, b"%d," % k)
            await writer.append(log, {"k": k})
        await flush(writer)
        assert data.unsynced_bytes == log.unsynced_bytes == 0
    assert data.path.read_bytes() == b"".join(b"%d," % k for k in range(50))
    assert (len(data.pieces), len(log.pieces)) == (1, 1)
    assert rows_in(log.path) == list(range(50))


async def test_large_pieces_are_not_put_together(tmp_path: Path) -> None:
    data = ToldData(tmp_path / "journal")
    sizes = [10, 20, 3_000_000, 5, 600_000, 600_000, 1]
    async with running() as writer:
        for k, size in enumerate(sizes):
            await writer.append_data(data, bytes([k]) * size)
    assert [len(piece) for piece in data.pieces] == [30, 3_000_000, 600_005, 600_001]
    assert data.path.read_bytes() == b"".join(bytes([k]) * size for k, size in enumerate(sizes))


async def test_many_bytes_make_the_caller_wait_until_they_are_written(tmp_path: Path) -> None:
    data = AppendLog(tmp_path / "journal")
    writer = Writer(sync_interval_s=NEVER_S)
    put: list[int] = []

    async def hand_in() -> None:
        for k in range(3):
            await writer.append_data(data, bytes([k]) * (40 << 20))
            put.append(k)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hand_in)
            await anyio.wait_all_tasks_blocked()
            assert put == [0, 1], "80 MiB wait already"
            tasks.start_soon(writer.run)
            while len(put) < 3:
                await checkpoint()
            writer.close()
    assert data.path.stat().st_size == 120 << 20


async def test_who_waits_for_room_is_told_when_the_writer_ends(tmp_path: Path) -> None:
    data = AppendLog(Path("/dev/full"))
    writer = Writer()
    piece = b"x" * (40 << 20)
    told: list[str] = []

    async def hand_in() -> None:
        with pytest.raises(StokerError, match="over"):
            while True:
                await writer.append_data(data, piece)
        told.append("told")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hand_in)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(WriteFailed):
                await writer.run()
            await anyio.wait_all_tasks_blocked()
            assert told == [], "it waits for room again"
            writer.close(lambda: StokerError("over"))
    assert told == ["told"]


async def test_a_retired_log_is_durable_and_closed_and_opens_again_if_it_must(tmp_path: Path) -> None:
    first, second = ToldData(tmp_path / "0"), ToldData(tmp_path / "1")
    async with running() as writer:
        await writer.append_data(first, b"a")
        await writer.append_data(second, b"b")
        await writer.retire(first)
        await flush(writer)
        assert first.n_syncs == 1
        n_descriptors = len(open_files(tmp_path))
        assert n_descriptors == 1, "only the second is open"
        await writer.append_data(first, b"c")
        await flush(writer)
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"ac", b"b")
    assert open_files(tmp_path) == []


def open_files(directory: Path) -> list[str]:
    """The files below a directory that this process has open."""
    return [file.path for file in psutil.Process().open_files() if Path(file.path).is_relative_to(directory)]


async def test_a_log_that_was_never_written_can_be_retired(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "none")
    async with running() as writer:
        await writer.retire(log)
    assert not log.path.exists()


async def test_enough_bytes_are_made_durable_at_once(tmp_path: Path) -> None:
    data = ToldData(tmp_path / "journal")
    async with running(sync_bytes=1000) as writer:
        await writer.append_data(data, b"x" * 999)
        await until(lambda: data.pieces)
        await anyio.wait_all_tasks_blocked()
        assert data.unsynced_bytes == 999
        await writer.append_data(data, b"x")
        await until(lambda: data.n_syncs)
        assert data.unsynced_bytes == 0


async def test_bytes_of_several_logs_count_together(tmp_path: Path) -> None:
    logs = [ToldData(tmp_path / str(k)) for k in range(4)]
    async with running(sync_bytes=1000) as writer:
        for log in logs:
            await writer.append_data(log, b"x" * 250)
        for log in logs:
            await until(lambda log=log: log.n_syncs)
        assert [log.unsynced_bytes for log in logs] == [0] * 4


async def test_many_flushes_cost_one_sync(tmp_path: Path) -> None:
    data = ToldData(tmp_path / "journal")
    replies: list[Reply[None]] = [Reply() for _ in range(50)]
    async with running() as writer:
        for reply in replies:
            await writer.append_data(data, b"x")
            await writer.flush(reply)
        for reply in replies:
            await reply.wait()
        assert data.unsynced_bytes == 0
        assert data.n_syncs == 1
    assert data.path.read_bytes() == b"x" * 50


class MeetingLog(AppendLog):
    """A log whose sync waits until the other one's has begun."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun = threading.Event()
        self.other = self

    def _sync_it(self) -> None:
        self.begun.set()
        assert self.other.begun.wait(20)
        super()._sync_it()


async def test_all_logs_are_synced_at_the_same_time(tmp_path: Path) -> None:
    one, two = MeetingLog(tmp_path / "1"), MeetingLog(tmp_path / "2")
    one.other, two.other = two, one
    async with running() as writer:
        await writer.append_data(one, b"1")
        await writer.append_data(two, b"2")
        await flush(writer)
        assert one.unsynced_bytes == two.unsynced_bytes == 0


async def test_a_failed_sync_of_one_log_ends_it_with_the_cause(tmp_path: Path) -> None:
    writer = Writer(sync_interval_s=0.0)
    good = AppendLog(tmp_path / "good")
    error = await failing(
        writer,
        lambda: writer.append_data(good, b"x"),
        lambda: writer.append_data(AppendLog(Path("/dev/null")), b"x"),
    )
    assert type(error) is WriteFailed
    assert "/dev/null" in str(error)
    assert open_files(tmp_path) == []


async def test_it_says_what_it_is_doing_and_since_when(tmp_path: Path) -> None:
    gate = threading.Event()
    one = MeetingLog(tmp_path / "train_episodes.jsonl")
    one.other = MeetingLog(tmp_path / "never")
    before = time.monotonic()
    async with running() as writer:
        assert writer.doing is None
        await writer.submit(lambda: gate.wait(20) and None, name="writing step_4000.pt")
        while writer.doing is None:
            await checkpoint()
        words, since = writer.doing
        assert words == "writing step_4000.pt"
        assert before <= since <= time.monotonic()
        await writer.append_data(one, b"x")
        flushed: Reply[None] = Reply()
        await writer.flush(flushed)
        await until(one.begun.is_set)
        assert writer.doing == (words, since), "what takes longest"
        gate.set()
        while writer.doing[0] == words:
            await checkpoint()
        assert writer.doing[0] == "syncing train_episodes.jsonl"
        one.other.begun.set()
        await flushed.wait()
        assert writer.doing is None
