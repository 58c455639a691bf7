"""The writer task: owns the disk while a session runs.

The session task hands it rows, replacements (files that always hold the latest value, such as the
metadata) and jobs (functions that publish something, such as a checkpoint). Rows of one batch are encoded
together and written with one call; replacements are written at most every so often; jobs run in the
writer's own thread, one after the other, while rows go on. A job starts when all rows handed in before it
are durable.

An error ends the task and comes out of ``run``: nothing is retried, nothing is dropped in silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any, assert_never

import anyio
import msgspec
from anyio import to_thread

from stoker.errors import first_error
from stoker.queues import BatchQueue
from stoker.replies import Reply
from stoker.threads import DedicatedThread
from stoker.writer import files
from stoker.writer.rows import RowLog

__all__ = ["Writer"]


class _Row(msgspec.Struct, frozen=True, gc=False):
    log: RowLog
    row: Any


class _Replace(msgspec.Struct, frozen=True):
    path: Path
    value: Any


class _Job(msgspec.Struct, frozen=True):
    work: Callable[[], None]
    reply: Reply[None] | None


class _Flush(msgspec.Struct, frozen=True):
    reply: Reply[None]


class Writer:
    """A bounded queue and the task that empties it onto the disk.

    Args:
        capacity: how many operations may wait; more makes the callers wait.
        sync_interval_s: rows are made durable at the latest this long after they were written.
        replace_interval_s: a replaced file is rewritten at most this often, and at every flush.
    """

    def __init__(
        self, *, capacity: int = 1024, sync_interval_s: float = 0.5, replace_interval_s: float = 1.0
    ) -> None:
        self._queue: BatchQueue[_Row | _Replace | _Job | _Flush] = BatchQueue(capacity)
        self._jobs: BatchQueue[_Job | _Flush] = BatchQueue(1)
        self._thread = DedicatedThread("stoker-writer")
        self._sync_interval_s = sync_interval_s
        self._replace_interval_s = replace_interval_s
        self._pending: dict[RowLog, list[Any]] = {}
        self._logs: set[RowLog] = set()
        self._latest: dict[Path, Any] = {}
        self._synced_at = self._replaced_at = time.monotonic()
        self.busy_s = 0.0
        """Seconds spent writing, over all of the disk's work."""
        self.n_done = 0
        """Operations that are finished; grows as long as the disk moves."""

    def __len__(self) -> int:
        return len(self._queue)

    async def append(self, log: RowLog, row: Any) -> None:
        """Hand in one row. Rows of one log keep their order."""
        operation = _Row(log, row)
        if not self._queue.offer(operation):
            await self._queue.put(operation)

    async def replace(self, path: Path, value: Any) -> None:
        """Let the file hold this value as JSON, soon; a later value may overtake it."""
        await self._queue.put(_Replace(path, value))

    async def submit(self, work: Callable[[], None], reply: Reply[None] | None = None) -> None:
        """Hand in a function for the writer's thread; the reply is set when it has returned."""
        await self._queue.put(_Job(work, reply))

    async def flush(self, reply: Reply[None]) -> None:
        """Set the reply when everything handed in before is durable."""
        await self._queue.put(_Flush(reply))

    def close(self, error: Callable[[], Exception] = anyio.ClosedResourceError) -> None:
        """Accept nothing more. ``run`` returns when what was accepted is durable."""
        self._queue.close(error)

    async def run(self) -> None:
        """Write until closed and drained.

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
        except BaseExceptionGroup as group:
            error = first_error(group)
            raise error from error.__cause__
        finally:
            self._jobs.close()
            self._thread.close()
            with anyio.CancelScope(shield=True):
                async with AsyncExitStack() as closing:  # one that cannot be closed keeps no other from it
                    for log in self._logs:
                        closing.push_async_callback(log.aclose)

    async def _take(self) -> list[_Row | _Replace | _Job | _Flush]:
        """The next batch; meanwhile what is due is made durable."""
        while True:
            due_s = self._due_s()
            with anyio.move_on_after(due_s):
                return await self._queue.take()
            await self._tend()

    def _due_s(self) -> float | None:
        """Seconds until something must be made durable, or None."""
        due: list[float] = []
        if any(log.unsynced for log in self._logs):
            due.append(self._synced_at + self._sync_interval_s)
        if self._latest:
            due.append(self._replaced_at + self._replace_interval_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    async def _write(self, batch: list[_Row | _Replace | _Job | _Flush]) -> None:
        for operation in batch:
            match operation:
                case _Row(log, row):
                    self._pending.setdefault(log, []).append(row)
                case _Replace(path, value):
                    self._latest[path] = value
                case _Job() | _Flush():
                    await self._settle()
                    await self._jobs.put(operation)
                case _:
                    assert_never(operation)
        await self._append_pending()
        self.n_done += len(batch)
        if self._due_s() == 0.0:
            await self._tend()

    async def _append_pending(self) -> None:
        pending, self._pending = self._pending, {}
        started = time.perf_counter()
        for log, rows in pending.items():
            self._logs.add(log)
            await log.append(rows)
        self.busy_s += time.perf_counter() - started

    async def _tend(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        if now >= self._synced_at + self._sync_interval_s:
            await self._sync()
        if now >= self._replaced_at + self._replace_interval_s:
            await self._replace_latest()

    async def _settle(self) -> None:
        """Make everything that was handed in durable."""
        await self._append_pending()
        await self._sync()
        await self._replace_latest()

    async def _sync(self) -> None:
        started = time.perf_counter()
        for log in self._logs:
            await log.sync()
        self._synced_at = time.monotonic()
        self.busy_s += time.perf_counter() - started

    async def _replace_latest(self) -> None:
        latest, self._latest = self._latest, {}
        started = time.perf_counter()
        for path, value in latest.items():
            await to_thread.run_sync(files.write_atomically, path, _json_writer(value))
        self._replaced_at = time.monotonic()
        self.busy_s += time.perf_counter() - started

    async def _run_jobs(self) -> None:
        while operations := await self._jobs.take():
            for operation in operations:
                match operation:
                    case _Job(work, reply):
                        started = time.perf_counter()
                        await self._thread.run(work, abandon_on_cancel=True)
                        self.busy_s += time.perf_counter() - started
                    case _Flush(reply):
                        pass
                    case _:
                        assert_never(operation)
                self.n_done += 1
                if reply is not None:
                    reply.set(None)


def _json_writer(value: Any) -> Callable[[IO[bytes]], int]:
    pretty = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return lambda file: file.write(pretty)
