"""The writer task: order, batches, replacements, jobs among rows, flush, failures, close."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from anyio.lowlevel import checkpoint
from writing_parts import NEVER_S, PIECE, Fifo, HangingSync, flush, leave, running, until

from obstacles import Gate
from stoker.errors import StokerError, WriteFailed
from stoker.replies import Reply
from stoker.writer import AppendLog, RowLog, Writer, files

pytestmark = pytest.mark.anyio


class ToldData(AppendLog):
    """A log that says what was written with which calls, and how often it was synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pieces: list[bytes] = []
        self.n_syncs = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.pieces.append(data)

    def sync(self) -> None:
        has_new = self.unsynced_bytes > 0
        super().sync()
        self.n_syncs += has_new


class ToldLog(ToldData, RowLog):
    """One of rows."""


def rows_in(path: Path) -> list[Any]:
    return [json.loads(line)["k"] for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_replaced_file_waits_for_its_interval_or_a_flush_or_the_close(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    log = ToldLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        for value in range(10):
            await writer.replace(path, {"value": value})
        await writer.append_rows(log, [{"k": 0}])
        await until(lambda: log.pieces)  # the batch with the values is done
        assert not path.exists(), "the interval is not over"
        await flush(writer)
        assert json.loads(path.read_text()) == {"value": 9}
        written = path.stat().st_ino
        await writer.replace(path, {"value": 10})
        await writer.append_rows(log, [{"k": 1}])
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
        await writer.append_rows(log, [{"k": 1}])
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
            await writer.append_rows(log, [{"k": 2 * k}])
            await writer.append_rows(log, [{"k": 2 * k + 1}])
            await writer.replace(tmp_path / "m.json", {"k": k})
            done: Reply[None] = Reply()
            await writer.submit(look, done)
            await done.wait()
    assert seen == [(list(range(2 * k + 2)), False, {"k": k}, "stoker-writer") for k in range(3)]


async def test_close_drains_everything(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    ran: list[int] = []
    async with running() as writer:
        for k in range(10):
            await writer.append_rows(log, [{"k": k}])
            await writer.replace(tmp_path / "m.json", k)
            await writer.submit(lambda k=k: ran.append(k))
    assert rows_in(log.path) == ran == list(range(10))
    assert json.loads((tmp_path / "m.json").read_text()) == 9
    assert log.unsynced_bytes == 0
    with pytest.raises(anyio.ClosedResourceError):
        await writer.append_rows(log, [{"k": 11}])


async def test_closed_with_an_error_it_says_that_error_to_those_who_come(tmp_path: Path) -> None:
    async with running() as writer:
        writer.close(lambda: StokerError("over"))
        with pytest.raises(StokerError, match="over"):
            await writer.append_rows(RowLog(tmp_path / "x"), [{"k": 1}])


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
    error = await failing(writer, lambda: writer.append_rows(RowLog(Path("/dev/full")), [{"k": 1}]))
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
    assert type(await failing(other := Writer(), lambda: other.submit(lambda: int("x")))) is ValueError


async def test_a_replacement_that_fails_ends_it(tmp_path: Path) -> None:
    (tmp_path / "m.json").mkdir()
    writer = Writer(replace_interval_s=0.0)
    error = await failing(writer, lambda: writer.replace(tmp_path / "m.json", 1))
    assert type(error) is WriteFailed
    assert isinstance(error.__cause__, IsADirectoryError)


async def test_rows_before_a_failing_job_are_on_disk_and_the_logs_closed(tmp_path: Path) -> None:
    good = RowLog(tmp_path / "good.jsonl")
    unsyncable = RowLog(Path("/dev/null"))
    writer = Writer(sync_interval_s=NEVER_S)
    await failing(
        writer,
        lambda: writer.append_rows(unsyncable, [{"k": 1}]),
        lambda: writer.append_rows(good, [{"k": 1}]),
        lambda: writer.append_rows(good, [{"k": 2}]),
        lambda: writer.submit(lambda: refuse(tmp_path / "x")),
    )
    assert rows_in(good.path) == [1, 2]
    assert good.unsynced_bytes == 0, "a log that cannot be synced keeps no other from it"


async def test_a_cancelled_writer_still_syncs_and_closes_its_logs(tmp_path: Path) -> None:
    log = ToldLog(tmp_path / "rows.jsonl")
    writer = Writer(sync_interval_s=NEVER_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await writer.append_rows(log, [{"k": 1}])
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
            await writer.append_rows(log, [{"k": k}])
        await flush(writer)
        assert data.unsynced_bytes == log.unsynced_bytes == 0
    assert data.path.read_bytes() == b"".join(b"%d," % k for k in range(50))
    assert (len(data.pieces), len(log.pieces)) == (1, 1)
    assert rows_in(log.path) == list(range(50))


async def test_the_journal_is_written_before_the_rows_that_follow_from_it(tmp_path: Path) -> None:
    order: list[str] = []

    class Told(AppendLog):
        def write(self, data: bytes) -> None:
            super().write(data)
            order.append(self.path.name)

    class ToldRows(Told, RowLog):
        pass

    rows, journal = ToldRows(tmp_path / "rows.jsonl"), Told(tmp_path / "journal")
    async with running() as writer:
        await writer.append_rows(rows, [{"k": 1}])
        await writer.append_data(journal, b"x")
        await flush(writer)
    assert order == ["journal", "rows.jsonl"]


async def test_what_is_handed_in_during_a_commit_is_durable_by_the_next(tmp_path: Path) -> None:
    log = HangingSync(tmp_path / "journal")
    async with running() as writer:
        await writer.append_data(log, b"a")
        writer.note(1)
        first: Reply[None] = Reply()
        await writer.flush(first)
        await until(log.reached.is_set)
        await writer.append_data(log, b"b")
        writer.note(2)
        log.release.set()
        await first.wait()
        assert writer.durable == 1
        await flush(writer)
        assert writer.durable == 2


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


async def test_a_caller_that_is_cancelled_while_it_waits_for_room_takes_none(tmp_path: Path) -> None:
    data = AppendLog(tmp_path / "journal")
    writer = Writer(sync_interval_s=NEVER_S)
    piece = b"x" * (64 << 20)
    await writer.append_data(data, piece)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(writer.append_data, data, piece)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            await flush(writer)
            await writer.append_data(data, b"y")
            writer.close()
    assert data.path.stat().st_size == (64 << 20) + 1


async def test_a_caller_that_is_cancelled_while_it_waits_to_submit_takes_no_place() -> None:
    gate, ran = Gate(), Reply[None]()
    async with running() as writer:
        await writer.submit(gate)
        for _ in range(31):
            await writer.submit(int)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            for _ in range(32):
                tasks.start_soon(writer.submit, int)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        gate.release.set()
        await writer.submit(int, ran)  # type: ignore[arg-type]
        await ran.wait()


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

    def sync(self) -> None:
        self.begun.set()
        assert self.other.begun.wait(20)
        super().sync()


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
        assert writer.activities() == []
        await writer.submit(lambda: gate.wait(20) and None, name="writing step_4000.pt")
        await until(writer.activities)
        (longest,) = writer.activities()
        assert longest.words == "writing step_4000.pt"
        assert before <= longest.since <= time.monotonic()
        await writer.append_data(one, b"x")
        flushed: Reply[None] = Reply()
        await writer.flush(flushed)
        await until(one.begun.is_set)
        assert writer.activities()[0] == longest
        gate.set()
        await until(lambda: longest not in writer.activities())
        one.other.begun.set()
        await flushed.wait()
        assert writer.activities() == []


# What waits ---------------------------------------------------------------------------------------


async def test_rows_are_written_and_durable_during_a_job_whatever_is_queued_behind_it(tmp_path: Path) -> None:
    log, data, gate = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal"), Gate()
    ran: list[str] = []
    async with running(sync_interval_s=0.0) as writer:
        await writer.submit(gate)
        await until(gate.reached.is_set)
        replies: list[Reply[None]] = [Reply() for _ in range(4)]
        for k, reply in enumerate(replies):
            await writer.append_rows(log, [{"k": k}])
            await writer.append_data(data, b"%d" % k)
            if k == 2:
                await writer.submit(lambda: ran.append("second"), reply)
            else:
                await writer.flush(reply)
            await until(lambda n=k: rows_in(log.path) == list(range(n + 1)))
        await writer.append_rows(log, [{"k": 4}])
        await until(lambda: len(rows_in(log.path)) == 5)
        await until(lambda: log.unsynced_bytes == data.unsynced_bytes == 0)
        assert data.path.read_bytes() == b"0123"
        assert not any(reply.is_set for reply in replies), "a flush waits for the jobs before it"
        assert ran == [], "jobs come one after the other"
        gate.release.set()
        for reply in replies:
            await reply.wait()
        assert ran == ["second"]


async def test_a_flush_is_answered_behind_the_jobs_before_it_and_not_behind_later_ones(
    tmp_path: Path,
) -> None:
    first, later = Gate(), Gate()
    one, two = Reply[None](), Reply[None]()
    async with running() as writer:
        await writer.submit(first)
        await writer.flush(one)
        await writer.submit(later)
        await writer.flush(two)
        first.release.set()
        await one.wait()
        await until(later.reached.is_set)
        assert not two.is_set
        later.release.set()
        await two.wait()


async def test_many_jobs_make_the_caller_wait_and_not_the_rows(tmp_path: Path) -> None:
    gate, log = Gate(), RowLog(tmp_path / "rows.jsonl")
    submitted: list[int] = []
    ran: list[int] = []

    async def submit_all(writer: Writer) -> None:
        for k in range(40):
            await writer.submit(lambda k=k: ran.append(k))
            submitted.append(k)

    async with running(sync_interval_s=0.0) as writer:
        await writer.submit(gate)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit_all, writer)
            await until(lambda: len(submitted) == 31)
            await writer.append_rows(log, [{"k": 1}])
            await until(lambda: rows_in(log.path) == [1])
            assert len(submitted) == 31
            gate.release.set()
    assert ran == list(range(40))


async def test_who_waits_to_submit_is_told_of_the_end() -> None:
    writer = Writer()
    told: list[str] = []

    async def submit_all() -> None:
        with pytest.raises(StokerError, match="over"):
            for _ in range(40):  # more than may wait
                await writer.submit(int)  # type: ignore[arg-type]
        told.append("told")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit_all)
            await anyio.wait_all_tasks_blocked()
            writer.close(lambda: StokerError("over"))
    assert told == ["told"]


async def test_a_flush_does_not_wait_for_more_and_takes_all_in_order(tmp_path: Path) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    async with running(linger_s=NEVER_S) as writer:
        for n in range(1, 4):
            for k in range(10):
                await writer.append_data(data, b"%d" % k)
                if k % 3 == 0:
                    await anyio.wait_all_tasks_blocked()  # the next one finds the writer lingering
                await writer.append_rows(log, [{"k": k}])
            assert rows_in(log.path) == list(range(10)) * (n - 1), "they wait for others"
            reply: Reply[None] = Reply()
            await writer.flush(reply)
            await reply.wait()
            assert rows_in(log.path) == list(range(10)) * n
            assert data.path.read_bytes() == b"0123456789" * n
            assert log.unsynced_bytes == data.unsynced_bytes == 0


async def test_a_job_knows_of_what_lingered(tmp_path: Path) -> None:
    data = AppendLog(tmp_path / "journal")
    seen: list[tuple[bytes, int]] = []
    async with running() as writer:
        await writer.append_data(data, b"1")
        await anyio.wait_all_tasks_blocked()
        await writer.append_data(data, b"2")
        done: Reply[None] = Reply()
        await writer.submit(lambda: seen.append((data.path.read_bytes(), data.unsynced_bytes)), done)
        await done.wait()
    assert seen == [(b"12", 0)]


@pytest.mark.parametrize("sizes", [[70_000], [30_000, 5, 40_000, 7, 70_000]])
async def test_many_bytes_wait_no_longer_and_keep_their_order(tmp_path: Path, sizes: list[int]) -> None:
    data = AppendLog(tmp_path / "journal")
    pieces = [bytes([k]) * size for k, size in enumerate(sizes)]
    async with running(linger_s=NEVER_S) as writer:
        for k, piece in enumerate(pieces):
            await writer.append_data(data, piece)
            if k == 0:
                await anyio.wait_all_tasks_blocked()
        await until(lambda: data.path.exists() and data.path.stat().st_size >= 70_000)
    assert data.path.read_bytes() == b"".join(pieces)


async def test_closing_writes_what_lingers(tmp_path: Path) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    async with running(linger_s=NEVER_S) as writer:
        await writer.append_rows(log, [{"k": 1}])
        await anyio.wait_all_tasks_blocked()
        await writer.append_data(data, b"x")
        assert not data.path.exists()
    assert (rows_in(log.path), data.path.read_bytes()) == ([1], b"x")


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_writer_that_is_cancelled_or_fails_writes_what_lingers(tmp_path: Path, end: str) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    writer, gate = Writer(linger_s=NEVER_S), Gate()

    def fail() -> None:
        gate()
        raise KeyError("told")

    async def run() -> None:
        try:
            await writer.run()
        except KeyError:
            assert end == "failed"

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await writer.submit(fail)
            await until(gate.reached.is_set)
            await writer.append_rows(log, [{"k": 1}])
            await anyio.wait_all_tasks_blocked()
            await writer.append_data(data, b"x")
            if end == "cancelled":
                tasks.cancel_scope.cancel()
            else:
                gate.release.set()
    gate.release.set()
    assert await writer.settle(20)
    assert (rows_in(log.path), data.path.read_bytes()) == ([1], b"x")


# Files that hold the latest value ---------------------------------------------------------------------


def value_in(path: Path) -> Any:
    return json.loads(path.read_text())


async def test_who_waits_alone_for_a_flush_finds_the_latest_value_each_time(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with running() as writer:
        for value in range(20):
            await writer.replace(path, value)
            reply: Reply[None] = Reply()
            await writer.flush(reply)
            await reply.wait()
            assert value_in(path) == value


async def test_flushes_that_several_wait_for_may_find_the_latest_value_later(tmp_path: Path) -> None:
    path, log = tmp_path / "m.json", RowLog(tmp_path / "rows.jsonl")

    async def flush_together(writer: Writer, value: int) -> None:
        await writer.append_rows(log, [{"k": value}])
        await writer.replace(path, value)
        replies: list[Reply[None]] = [Reply() for _ in range(3)]
        await writer.flush(*replies)
        for reply in replies:
            await reply.wait()
        assert rows_in(log.path)[-1] == value
        assert log.unsynced_bytes == 0

    async with running(linger_s=0.01) as writer:
        await flush_together(writer, 1)
        await until(lambda: path.exists() and value_in(path) == 1)
    async with running(linger_s=NEVER_S) as writer:
        await flush_together(writer, 2)
        assert value_in(path) == 1
        done: Reply[None] = Reply()
        found: list[int] = []
        await writer.submit(lambda: found.append(value_in(path)), done)
        await done.wait()
        assert found == [2], "a job knows of the latest"
        await flush_together(writer, 3)
    assert value_in(path) == 3, "closing leaves nothing behind"


# A disk that hangs --------------------------------------------------------------------------------


async def test_a_cancelled_writer_comes_back_from_a_log_that_hangs_and_says_when_it_is_done(
    fifo: Fifo, tmp_path: Path
) -> None:
    writer = Writer(sync_interval_s=NEVER_S)
    log, good = AppendLog(fifo.path), RowLog(tmp_path / "good.jsonl")

    async def fill() -> None:
        await writer.append_rows(good, [{"k": 1}])
        reply: Reply[None] = Reply()
        await writer.flush(reply)
        await reply.wait()
        await writer.append_rows(good, [{"k": 2}])
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


async def test_a_writer_cancelled_within_a_commit_writes_nothing_behind_the_gap(
    fifo: Fifo, tmp_path: Path
) -> None:
    hanging, behind = AppendLog(fifo.path), AppendLog(tmp_path / "journal")
    writer = Writer(sync_interval_s=NEVER_S)
    with anyio.fail_after(20):
        await writer.append_data(hanging, PIECE)
        await writer.append_data(behind, b"first")
        await writer.flush()
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()
            tasks.start_soon(run_within, writer, scope)
            await until(fifo.is_begun)
            await writer.append_data(behind, b"second")
            scope.cancel()
            await fifo.read(len(PIECE))
    assert not behind.path.exists(), "the first piece never had its turn"


async def run_within(writer: Writer, scope: anyio.CancelScope) -> None:
    with scope, contextlib.suppress(WriteFailed):  # a pipe cannot be synced
        await writer.run()


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
            await writer.append_rows(RowLog(Path("/dev/full")), [{"k": 1}])
        raise errors[0]
    assert not await writer.settle(0.01)
    release.set()
    assert await writer.settle(20)


async def test_a_drained_writer_is_settled(tmp_path: Path) -> None:
    writer = Writer()
    assert await writer.settle(0)
    await writer.append_rows(RowLog(tmp_path / "rows.jsonl"), [{"k": 1}])
    await writer.replace(tmp_path / "m.json", 1)
    await writer.submit(int)  # type: ignore[arg-type]
    writer.close()
    with anyio.fail_after(20):
        await writer.run()
    assert await writer.settle(0)


# What is told ---------------------------------------------------------------------------------------


# Activities ---------------------------------------------------------------------------------------


async def test_a_slow_job_makes_progress_and_a_stuck_one_does_not_though_rows_flow(tmp_path: Path) -> None:
    steps = [threading.Semaphore(0), threading.Semaphore(0)]
    log = RowLog(tmp_path / "rows.jsonl")

    def slowly(file: Any) -> None:
        for _ in range(3):
            assert steps[0].acquire(timeout=20)
            file.write(b"x" * 1000)
            steps[1].release()
        assert steps[0].acquire(timeout=20)

    async with running(sync_interval_s=0.0) as writer:

        def progress() -> object:
            (job,) = [one for one in writer.activities() if one.words == "writing step_1.pt"]
            return job.progress

        await writer.submit(
            lambda: files.write_atomically(tmp_path / "step_1.pt", slowly), name="writing step_1.pt"
        )
        await until(writer.activities)
        assert progress() == 0
        for k in range(3):
            steps[0].release()
            await until(lambda: steps[1].acquire(blocking=False))
            await until(lambda n=k: progress() == 1000 * (n + 1))
        await writer.append_rows(log, [{"k": 1}])
        await until(lambda: rows_in(log.path))
        assert progress() == 3000
        steps[0].release()
    assert writer.activities() == []
    assert writer.busy_s > 0.0


async def test_a_log_makes_progress_within_a_piece(fifo: Fifo) -> None:
    log, writer = AppendLog(fifo.path), Writer()

    async def run() -> None:
        with pytest.raises(WriteFailed, match="Invalid argument"):  # a FIFO cannot be synced
            await writer.run()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await writer.append_data(log, b"p" * (3 << 20))
            for k in range(3):
                await until(lambda n=k: [one.progress for one in writer.activities()] == [n << 20])
                await fifo.read(1 << 20)
            writer.close()


async def test_other_threads_may_look_at_any_moment(tmp_path: Path) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []

    def look(writer: Writer) -> None:
        try:
            while not ended.is_set():
                assert [writer.activities(), writer.busy_s]
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    async with running() as writer:
        thread = threading.Thread(daemon=True, target=look, args=(writer,))
        thread.start()
        for k in range(30):
            log = AppendLog(tmp_path / str(k))
            await writer.append_data(log, b"x")
            await writer.retire(log)
            await flush(writer)
        ended.set()
        thread.join()
    assert failures == []
