"""The writer task: owns the disk while a session runs.

The session task hands it rows, bytes for logs, replacements (files that always hold the latest value, such
as the metadata) and jobs (functions that publish something, such as a checkpoint). What one batch has for a
log is written with one call, and all logs are made durable together; replacements are written at most every
so often; jobs run in the writer's own thread, one after the other, while rows go on. Within a log order is
kept; a job starts when everything handed in before it is durable.

An error ends the task and comes out of ``run``: nothing is retried, nothing is dropped in silence. A disk
that hangs holds threads only: a task that is cancelled ends, and ``settle`` tells whether they came back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, assert_never

import anyio
import msgspec
from anyio import get_cancelled_exc_class

from stoker.errors import first_error
from stoker.queues import BatchQueue
from stoker.replies import Reply
from stoker.writer import files
from stoker.writer.activities import Activities, Activity
from stoker.writer.disk_threads import DiskThread
from stoker.writer.logs import AppendLog, Log
from stoker.writer.operations import Data, Flush, Job, Operation, Replace, Retire, Row
from stoker.writer.rows import RowLog

__all__ = ["Writer"]

_PIECE_BYTES = 1 << 20
_WAITING_BYTES = 64 << 20
_LINGER_S = 0.05
"""Rows and bytes wait this long for others, to be written with one call; a flush does not wait."""
_LINGER_BYTES = 64 << 10
_LINGER_ROWS = 1024
"""So many of them wait no longer."""
_WAITING_JOBS = 32
_CANCELLED_S, _LEAVE_S = 1.0, 10.0
"""So long a task that was cancelled, or ends otherwise, waits for its logs; then their threads are left."""


class Writer:
    """A bounded queue and the task that empties it onto the disk.

    Args:
        capacity: how many operations may wait; more makes the callers wait.
        sync_interval_s: what a log took is made durable at the latest this long after it was written.
        sync_bytes: and as soon as the logs together have taken this much, in bytes.
        replace_interval_s: a replaced file is rewritten at most this often, and at every flush.
    """

    def __init__(
        self,
        *,
        capacity: int = 1024,
        sync_interval_s: float = 0.5,
        sync_bytes: int = 4 << 20,
        replace_interval_s: float = 1.0,
    ) -> None:
        self._queue: BatchQueue[Operation] = BatchQueue(capacity)
        # Without bound here, where rows would wait for room behind a long job; ``submit`` bounds the jobs.
        self._jobs: BatchQueue[Job | Flush] = BatchQueue(1 << 30)
        self._n_jobs = 0  # handed in and not yet done
        self._job_thread = DiskThread("stoker-writer")
        self._replace_thread = DiskThread("stoker-replace")
        self._sync_interval_s = sync_interval_s
        self._sync_bytes = sync_bytes
        self._replace_interval_s = replace_interval_s
        self._rows: dict[RowLog, list[Any]] = {}
        self._data: dict[AppendLog, list[bytes]] = {}
        self._data_bytes = 0  # handed in and not yet written
        self._room = anyio.Event()
        self._pending_since: float | None = None  # since when rows or bytes wait to be written
        self._is_lingering = False  # whether the task sleeps until they are to be
        self._is_appending = False  # stays so where that was broken off
        self._closed = False
        self._logs: set[Log] = set()
        self._latest: dict[Path, Any] = {}
        self._synced_at = self._replaced_at = time.monotonic()
        self._activities = Activities()
        self.n_done = 0
        """Operations that are finished."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """Seconds spent writing, over all of the disk's work that has come back."""
        return self._activities.busy_s

    @property
    def doing(self) -> tuple[str, float] | None:
        """What it is at for longest, such as ``syncing train_episodes.jsonl``, and since when.

        The time is that of ``time.monotonic``. None while nothing is done. From any thread, as the other two.
        """
        return next(((one.words, one.since) for one in self.activities()), None)

    def activities(self) -> list[Activity]:
        """All that it is at, the longest first: logs, replaced files and a job at the same time."""
        return self._activities.now()

    @property
    def progress(self) -> tuple[int, int]:
        """Operations done and bytes written; changes as long as anything of it moves."""
        return self.n_done, self._activities.n_bytes + sum(one.progress for one in self.activities())

    async def append(self, log: RowLog, row: Any) -> None:
        """Hand in one row. Rows of one log keep their order."""
        operation = Row(log, row)
        if not self._queue.offer(operation):
            await self._queue.put(operation)

    async def append_data(self, log: AppendLog, data: bytes) -> None:
        """Hand in bytes. The bytes of one log keep their order; waits while 64 MiB wait to be written."""
        while self._data_bytes >= _WAITING_BYTES and not self._closed:
            await self._room.wait()
        self._data_bytes += len(data)
        if self._is_lingering and not (len(self._queue) or self._closed or self._data_bytes >= _LINGER_BYTES):
            self._data.setdefault(log, []).append(data)  # it will be looked at soon: no need to wake anybody
            return
        try:
            await self._queue.put(Data(log, data))
        except BaseException:
            self._take_off(n_bytes=len(data))
            raise

    async def retire(self, log: Log) -> None:
        """Let a log that is complete be made durable and closed, after all that was handed in before."""
        await self._queue.put(Retire(log))

    async def replace(self, path: Path, value: Any) -> None:
        """Let the file hold this value as JSON, soon; a later value may overtake it."""
        await self._queue.put(Replace(path, value))

    async def submit(
        self, work: Callable[[], None], reply: Reply[None] | None = None, *, name: str = "running a job"
    ) -> None:
        """Hand in a function for the writer's thread; the reply is set when it has returned.

        Waits while 32 of them wait to be run.

        Args:
            work: what to run.
            reply: who waits for it.
            name: what ``doing`` says meanwhile, such as ``writing step_4000.pt``.
        """
        while self._n_jobs >= _WAITING_JOBS and not self._closed:
            await self._room.wait()
        self._n_jobs += 1
        try:
            await self._queue.put(Job(work, reply, name))
        except BaseException:
            self._take_off(n_jobs=1)
            raise

    async def flush(self, reply: Reply[None]) -> None:
        """Set the reply when everything handed in before is durable."""
        await self._queue.put(Flush([reply]))

    def close(self, error: Callable[[], Exception] = anyio.ClosedResourceError) -> None:
        """Accept nothing more. ``run`` returns when what was accepted is durable."""
        self._queue.close(error)
        self._closed = True
        self._take_off()

    async def run(self) -> None:
        """Write until closed and drained.

        Cancelled, it ends at once, or within two seconds where the disk hangs: see ``settle``.

        Raises:
            WriteFailed: The disk refused; what was handed in and not yet flushed may not be durable.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run_jobs)
                while batch := await self._take():
                    await self._write(batch)
                await self._settle()
                self._jobs.close()
        except BaseException as error:
            first = first_error(error)
            refused = await self._end(_LEAVE_S if isinstance(first, Exception) else _CANCELLED_S)
            if refused and isinstance(first, (get_cancelled_exc_class(), asyncio.CancelledError)):
                raise refused[0] from refused[0].__cause__
            if first is error:
                raise
            raise first from first.__cause__
        for refusal in await self._end(_LEAVE_S):
            raise refusal

    async def settle(self, timeout_s: float) -> bool:
        """Wait until no thread of it touches the disk, but no longer than that; say whether that is so.

        After ``run`` has come back, however it did.
        """
        settling = [self._job_thread.settle, self._replace_thread.settle, *(log.settle for log in self._logs)]
        settled: list[bool] = []

        async def settle(one: Callable[[float], Any]) -> None:
            settled.append(await one(timeout_s))

        async with anyio.create_task_group() as tasks:
            for one in settling:
                tasks.start_soon(settle, one)
        return all(settled)

    async def _end(self, patience_s: float) -> list[Exception]:
        """Write what still lingers and close the logs; for each wait no longer than that.

        Returns:
            What the disk refused. One log that cannot be closed keeps no other from it.
        """
        refused: list[Exception] = []
        self._jobs.close()
        with anyio.move_on_after(patience_s, shield=True):
            if not self._is_appending:  # else it would be put behind a gap
                try:
                    await self._append_pending()
                except Exception as error:  # noqa: BLE001 - raised by ``run``
                    refused.append(error)
        with anyio.move_on_after(patience_s, shield=True):
            async with anyio.create_task_group() as tasks:
                for log in self._logs:
                    tasks.start_soon(self._close, log, refused)
        self._take_off(n_bytes=self._data_bytes, n_jobs=self._n_jobs)
        self._job_thread.shutdown()
        self._replace_thread.shutdown()
        return refused

    async def _close(self, log: Log, refused: list[Exception]) -> None:
        with self._activities.at(f"closing {log.path.name}"):
            try:
                await log.aclose()
            except Exception as error:  # noqa: BLE001 - raised by ``run``
                refused.append(error)

    async def _take(self) -> list[Operation]:
        """The next batch; meanwhile what is due is made durable."""
        while True:
            due_s = self._due_s()
            self._is_lingering = self._pending_since is not None and not len(self._queue)
            try:
                with anyio.move_on_after(due_s):
                    return await self._queue.take()
            finally:
                self._is_lingering = False
            await self._tend()

    def _due_s(self) -> float | None:
        """Seconds until something must be made durable, or None."""
        due: list[float] = []
        if unsynced_bytes := sum(log.unsynced_bytes for log in self._logs):
            if unsynced_bytes >= self._sync_bytes:
                return 0.0
            due.append(self._synced_at + self._sync_interval_s)
        if self._pending_since is not None:
            due.append(self._pending_since + _LINGER_S)
        if self._latest:
            due.append(self._replaced_at + self._replace_interval_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    async def _write(self, batch: Sequence[Operation]) -> None:
        """Take all rows and bytes of a batch first, so that one sync serves all who wait for one."""
        others: list[Retire | Job | Flush] = []
        for operation in batch:
            match operation:
                case Row(log, row):
                    self._rows.setdefault(log, []).append(row)
                case Data(log, data):
                    self._data.setdefault(log, []).append(data)
                case Replace(path, value):
                    self._latest[path] = value
                case Flush(replies) if others and isinstance(others[-1], Flush):
                    others[-1].replies.extend(replies)
                case Retire() | Job() | Flush():
                    others.append(operation)
                case _:
                    assert_never(operation)
        if self._pending_since is None and (self._rows or self._data):
            self._pending_since = time.monotonic()
        if others:
            await self._settle()
        elif self._data_bytes >= _LINGER_BYTES or sum(map(len, self._rows.values())) >= _LINGER_ROWS:
            await self._append_pending()
        for operation in others:
            if isinstance(operation, Retire):
                with self._activities.at(f"closing {operation.log.path.name}"):
                    await operation.log.aclose()
                self._logs.discard(operation.log)
            else:
                await self._jobs.put(operation)
        self.n_done += len(batch)
        if self._due_s() == 0.0:
            await self._tend()

    async def _append_pending(self) -> None:
        self._is_appending = True
        self._pending_since = None
        rows, self._rows = self._rows, {}
        data, self._data = self._data, {}
        for log, pieces in data.items():  # the journal before the rows that follow from it
            self._logs.add(log)
            with self._activities.at(f"writing {log.path.name}", partial(_written_bytes, log)):
                for joined in _joined(pieces):
                    await log.append(joined)
                    self._take_off(n_bytes=len(joined))
        for log, several in rows.items():
            self._logs.add(log)
            with self._activities.at(f"writing {log.path.name}", partial(_written_bytes, log)):
                await log.append(several)
        self._is_appending = False

    def _take_off(self, *, n_bytes: int = 0, n_jobs: int = 0) -> None:
        """Let those in who wait for room, now that there is so much less to do."""
        self._data_bytes -= n_bytes
        self._n_jobs -= n_jobs
        room, self._room = self._room, anyio.Event()
        room.set()

    async def _tend(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        if self._pending_since is not None and now >= self._pending_since + _LINGER_S:
            await self._append_pending()
        unsynced_bytes = sum(log.unsynced_bytes for log in self._logs)
        if now >= self._synced_at + self._sync_interval_s or unsynced_bytes >= self._sync_bytes:
            await self._sync()
        if now >= self._replaced_at + self._replace_interval_s:
            await self._replace_latest()

    async def _settle(self) -> None:
        """Make everything that was handed in durable."""
        await self._append_pending()
        await self._sync()
        await self._replace_latest()

    async def _sync(self) -> None:
        """Make all logs durable at once: the disk takes hardly longer for several than for one."""
        due = sorted((log for log in self._logs if log.unsynced_bytes), key=lambda log: log.path)
        if due:
            with self._activities.at("syncing " + ", ".join(log.path.name for log in due)):
                async with anyio.create_task_group() as tasks:
                    for log in due:
                        tasks.start_soon(log.sync)
        self._synced_at = time.monotonic()

    async def _replace_latest(self) -> None:
        latest, self._latest = self._latest, {}
        for path, value in latest.items():
            meter = files.Meter()
            with self._activities.at(f"writing {path.name}", partial(getattr, meter, "n_bytes")):
                work = partial(files.write_atomically, path, _json_writer(value))
                await self._replace_thread.run(_metered, meter, work)
        self._replaced_at = time.monotonic()

    async def _run_jobs(self) -> None:
        while operations := await self._jobs.take():
            for operation in operations:
                match operation:
                    case Job(work, reply, name):
                        meter = files.Meter()
                        with self._activities.at(name, partial(getattr, meter, "n_bytes")):
                            await self._job_thread.run(_metered, meter, work)
                        self._take_off(n_jobs=1)
                        replies = [] if reply is None else [reply]
                    case Flush(replies):
                        pass
                    case _:
                        assert_never(operation)
                self.n_done += 1
                for reply in replies:
                    reply.set(None)


def _written_bytes(log: Log) -> int:
    return log.written_bytes


def _metered(meter: files.Meter, work: Callable[[], None]) -> None:
    with files.metered(meter):
        work()


def _joined(pieces: Sequence[bytes]) -> Generator[bytes]:
    """The pieces in order, small ones put together."""
    together: list[bytes] = []
    n_bytes = 0
    for piece in pieces:
        if together and n_bytes + len(piece) > _PIECE_BYTES:
            yield b"".join(together)
            together, n_bytes = [], 0
        together.append(piece)
        n_bytes += len(piece)
    if together:
        yield together[0] if len(together) == 1 else b"".join(together)


def _json_writer(value: Any) -> Callable[[IO[bytes]], int]:
    pretty = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return lambda file: file.write(pretty)
