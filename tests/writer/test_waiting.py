"""What waits in the writer: rows and bytes for each other, jobs for rows, flushes for jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from obstacles import Gate
from stoker.errors import StokerError
from stoker.replies import Reply
from stoker.writer import AppendLog, RowLog, Writer, task

pytestmark = pytest.mark.anyio
NEVER_S = 1000.0


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Writer]:
    """A writer that is closed and drained at the end."""
    writer = Writer(**{"sync_interval_s": NEVER_S, "replace_interval_s": NEVER_S, **settings})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run)
            yield writer
            writer.close()


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and bytes wait for others for as long as a test may take."""
    monkeypatch.setattr(task, "_LINGER_S", NEVER_S)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - of other people's state
        await anyio.sleep(0.001)


def rows_in(path: Path) -> list[Any]:
    return [json.loads(line)["k"] for line in path.read_text().splitlines()] if path.exists() else []


async def test_rows_are_written_and_durable_during_a_job_whatever_is_queued_behind_it(tmp_path: Path) -> None:
    log, data, gate = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal"), Gate()
    ran: list[str] = []
    async with running(sync_interval_s=0.0) as writer:
        await writer.submit(gate)
        await until(gate.reached.is_set)
        replies: list[Reply[None]] = [Reply() for _ in range(4)]
        for k, reply in enumerate(replies):
            await writer.append(log, {"k": k})
            await writer.append_data(data, b"%d" % k)
            if k == 2:
                await writer.submit(lambda: ran.append("second"), reply)
            else:
                await writer.flush(reply)
            await until(lambda n=k: rows_in(log.path) == list(range(n + 1)))
        await writer.append(log, {"k": 4})
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
            await writer.append(log, {"k": 1})
            await until(lambda: rows_in(log.path) == [1])
            assert len(submitted) == 31
            gate.release.set()
    assert ran == list(range(40))


async def test_who_waits_to_submit_is_told_of_the_end() -> None:
    writer = Writer()
    told: list[str] = []

    async def submit_all() -> None:
        with pytest.raises(StokerError, match="over"):
            while True:
                await writer.submit(int)  # type: ignore[arg-type]
        told.append("told")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit_all)
            await anyio.wait_all_tasks_blocked()
            writer.close(lambda: StokerError("over"))
    assert told == ["told"]


@pytest.mark.usefixtures("lingering")
async def test_a_flush_does_not_wait_for_more_and_takes_all_in_order(tmp_path: Path) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    async with running() as writer:
        for n in range(1, 4):
            for k in range(10):
                await writer.append_data(data, b"%d" % k)
                if k % 3 == 0:
                    await anyio.wait_all_tasks_blocked()  # the next one finds the writer lingering
                await writer.append(log, {"k": k})
            assert rows_in(log.path) == list(range(10)) * (n - 1), "they wait for others"
            reply: Reply[None] = Reply()
            await writer.flush(reply)
            await reply.wait()
            assert rows_in(log.path) == list(range(10)) * n
            assert data.path.read_bytes() == b"0123456789" * n
            assert log.unsynced_bytes == data.unsynced_bytes == 0


@pytest.mark.usefixtures("lingering")
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


@pytest.mark.usefixtures("lingering")
@pytest.mark.parametrize(
    "sizes", [[70_000], [40_000, 30_000], [1, 70_000, 1], [30_000, 5, 40_000, 7, 70_000]]
)
async def test_many_bytes_wait_no_longer_and_keep_their_order(tmp_path: Path, sizes: list[int]) -> None:
    data = AppendLog(tmp_path / "journal")
    pieces = [bytes([k]) * size for k, size in enumerate(sizes)]
    async with running() as writer:
        for k, piece in enumerate(pieces):
            await writer.append_data(data, piece)
            if k == 0:
                await anyio.wait_all_tasks_blocked()
        await until(lambda: data.path.exists() and data.path.stat().st_size >= 70_000)
    assert data.path.read_bytes() == b"".join(pieces)


@pytest.mark.usefixtures("lingering")
async def test_many_rows_wait_no_longer(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        for k in range(700):
            await writer.append(log, {"k": k, "filled": "x" * 100})
        await until(lambda: len(rows_in(log.path)) >= 500)
    assert rows_in(log.path) == list(range(700))


@pytest.mark.usefixtures("lingering")
async def test_closing_writes_what_lingers(tmp_path: Path) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    async with running() as writer:
        await writer.append(log, {"k": 1})
        await anyio.wait_all_tasks_blocked()
        await writer.append_data(data, b"x")
        assert not data.path.exists()
    assert (rows_in(log.path), data.path.read_bytes()) == ([1], b"x")


@pytest.mark.usefixtures("lingering")
@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_a_writer_that_is_cancelled_or_fails_writes_what_lingers(tmp_path: Path, end: str) -> None:
    log, data = RowLog(tmp_path / "rows.jsonl"), AppendLog(tmp_path / "journal")
    writer, gate = Writer(), Gate()

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
            await writer.append(log, {"k": 1})
            await anyio.wait_all_tasks_blocked()
            await writer.append_data(data, b"x")
            if end == "cancelled":
                tasks.cancel_scope.cancel()
            else:
                gate.release.set()
    gate.release.set()
    assert await writer.settle(20)
    assert (rows_in(log.path), data.path.read_bytes()) == ([1], b"x")


async def test_many_rows_at_once_keep_their_place_among_others(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "rows.jsonl")
    async with running() as writer:
        await writer.append(log, {"k": 0})
        await writer.append_rows(log, [{"k": k} for k in range(1, 100)])
        await writer.append(log, {"k": 100})
    assert rows_in(log.path) == list(range(101))


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


async def test_flushes_that_several_wait_for_find_the_latest_value_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "m.json", RowLog(tmp_path / "rows.jsonl")

    async def flush_together(writer: Writer, value: int) -> None:
        await writer.append(log, {"k": value})
        await writer.replace(path, value)
        replies: list[Reply[None]] = [Reply() for _ in range(3)]
        await writer.flush(*replies)
        for reply in replies:
            await reply.wait()
        assert rows_in(log.path)[-1] == value
        assert log.unsynced_bytes == 0

    monkeypatch.setattr(task, "_LAG_S", 0.0)
    async with running() as writer:
        await flush_together(writer, 1)
        assert value_in(path) == 1, "it was not rewritten just now"
        monkeypatch.setattr(task, "_LAG_S", NEVER_S)
        await flush_together(writer, 2)
        assert value_in(path) == 1
        monkeypatch.setattr(task, "_LAG_S", 0.01)
        await flush_together(writer, 3)
        await until(lambda: value_in(path) == 3)
        monkeypatch.setattr(task, "_LAG_S", NEVER_S)
        await flush_together(writer, 4)
        done: Reply[None] = Reply()
        found: list[int] = []
        await writer.submit(lambda: found.append(value_in(path)), done)
        await done.wait()
        assert found == [4], "a job knows of the latest"
        await flush_together(writer, 5)
    assert value_in(path) == 5, "closing leaves nothing behind"
