"""The writer task: owns the disk while a session runs.

The session task hands it rows, bytes for logs, replacements (files that always hold the latest value, such
as the metadata) and jobs (functions that publish something, such as a checkpoint). What one batch has for a
log is written with one call, and all logs are made durable together (``committing``); replacements are
written beside that (``replacing``); jobs run in the writer's own thread, one after the other, while rows go
on. Within a log order is kept; a job starts when everything handed in before it is durable.

An error ends the task and comes out of ``run``: nothing is retried, nothing is dropped in silence. A disk
that hangs holds threads only: a task that is cancelled ends, and ``settle`` tells whether they came back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import anyio
from anyio import get_cancelled_exc_class

import stoker.writer.files as files
from stoker.errors import first_error
from stoker.queues import BatchQueue
from stoker.replies import Reply
from stoker.threads import DedicatedThread
from stoker.writer.activities import Activities, Activity
from stoker.writer.committing import commit, written_bytes
from stoker.writer.logs import AppendLog, Log
from stoker.writer.operations import Data, Flush, Job, Operation, Replace, Retire
from stoker.writer.replacing import Replacer, metered
from stoker.writer.rows import RowLog, encode_in_turns

__all__ = ["Writer"]

_PIECE_BYTES = 1 << 20
_WAITING_BYTES = 64 << 20
_LINGER_S = 0.05
"""Rows and bytes wait this long for others, to be written with one call; a flush does not wait."""
_LINGER_BYTES = 64 << 10
"""So many of them wait no longer."""
_LAG_S = 0.05
"""So long after it was last rewritten a replaced file may be behind flushes that several wait for."""
_WAITING_JOBS = 32
_CANCELLED_S, _LEAVE_S = 1.0, 10.0
"""So long a task that was cancelled, or ends otherwise, waits for its logs; then their threads are left."""


class Writer:
    """A bounded queue and the task that empties it onto the disk.

    Args:
        capacity: how many operations may wait; more makes the callers wait.
        sync_interval_s: what a log took is made durable at the latest this long after it was written.
        sync_bytes: and as soon as the logs together have taken this much, in bytes.
        replace_interval_s: a replaced file is rewritten at most this often, and at a flush: at each where
            one caller waits, every 50 ms where several do.
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
        self._n_answers = 0  # jobs and flushes that ``_run_jobs`` has yet to answer
        self._job_thread = DedicatedThread("stoker-writer")
        self._sync_interval_s = sync_interval_s
        self._sync_bytes = sync_bytes
        self._data: dict[Log, list[bytes]] = {}
        self._data_bytes = 0  # handed in and not yet written
        self._room: anyio.Event | None = None  # of those who wait for it
        self._pending_since: float | None = None  # since when rows or bytes wait to be written
        self._is_lingering = False  # whether the task sleeps until they are to be
        self._is_appending = False  # stays so where that was broken off
        self._closed = False
        self._logs: set[Log] = set()
        self._synced_at = time.monotonic()
        self._activities = Activities()
        self._replacer = Replacer(self._activities, replace_interval_s)
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
        """Hand in one row, as ``append_rows`` does."""
        await self.append_rows(log, (row,))

    async def append_rows(self, log: RowLog, rows: Sequence[Any]) -> None:
        """Hand in rows, encoded here. Those of one log keep their order; waits as ``append_data`` does."""
        await self._hand_in(log, await encode_in_turns(rows))

    async def append_data(self, log: AppendLog, data: bytes) -> None:
        """Hand in bytes. The bytes of one log keep their order; waits while 64 MiB wait to be written."""
        await self._hand_in(log, data)

    async def _hand_in(self, log: Log, data: bytes) -> None:
        while self._data_bytes >= _WAITING_BYTES and not self._closed:
            await self._wait_for_room()
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
            await self._wait_for_room()
        self._n_jobs += 1
        try:
            await self._queue.put(Job(work, reply, name))
        except BaseException:
            self._take_off(n_jobs=1)
            raise

    async def flush(self, *replies: Reply[None]) -> None:
        """Set the replies when everything handed in before is durable, and readable where it replaces a file.

        Only where several wait for the same flush may replaced files be behind it, by 50 ms and the time that
        writing them takes.
        """
        await self._queue.put(Flush([*replies]))

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
                tasks.start_soon(self._replacer.run)
                while batch := await self._take():
                    await self._write(batch)
                await self._settle()
                await self._replacer.durable()
                self._replacer.close()
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
        settling = [self._job_thread.settle, self._replacer.settle, *(log.settle for log in self._logs)]
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
        self._job_thread.release()
        self._replacer.shutdown()
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
        if (replace_at := self._replacer.due_at) is not None:
            due.append(replace_at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    async def _write(self, batch: Sequence[Operation]) -> None:
        """Take all rows and bytes of a batch first, so that one sync serves all who wait for one."""
        others: list[Retire | Job | Flush] = []
        for operation in batch:
            match operation:
                case Data(log, data):
                    self._data.setdefault(log, []).append(data)
                case Replace(path, value):
                    self._replacer.put(path, value)
                case Flush(replies) if others and isinstance(others[-1], Flush):
                    others[-1].replies.extend(replies)
                case Retire() | Job() | Flush():
                    others.append(operation)
                case _:
                    assert_never(operation)
        if self._pending_since is None and self._data:
            self._pending_since = time.monotonic()
        if others:
            await self._settle_for(others)
        elif self._data_bytes >= _LINGER_BYTES:
            await self._append_pending()
        for operation in others:
            match operation:
                case Retire(log):
                    with self._activities.at(f"closing {log.path.name}"):
                        await log.aclose()
                    self._logs.discard(log)
                case Flush(replies) if not self._n_answers:
                    _answer(replies)
                case Job() | Flush():
                    self._n_answers += 1
                    await self._jobs.put(operation)
        self.n_done += len(batch)
        if self._due_s() == 0.0:
            await self._tend()

    async def _append_pending(self) -> None:
        """Write what waits, one log after the other; it is not durable by that."""
        self._is_appending = True
        for log, pieces in self._take_pending().items():
            with self._activities.at(f"writing {log.path.name}", partial(written_bytes, log)):
                for joined in _joined(pieces):
                    await log.append_bytes(joined)
                    self._take_off(n_bytes=len(joined))
        self._is_appending = False

    def _take_pending(self) -> dict[Log, list[bytes]]:
        self._pending_since = None
        data, self._data = self._data, {}
        self._logs.update(data)
        # The journal before the rows that follow from it.
        return dict(sorted(data.items(), key=lambda item: isinstance(item[0], RowLog)))

    async def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def _take_off(self, *, n_bytes: int = 0, n_jobs: int = 0) -> None:
        """Let those in who wait for room, now that there is so much less to do."""
        self._data_bytes -= n_bytes
        self._n_jobs -= n_jobs
        room, self._room = self._room, None
        if room is not None:
            room.set()

    async def _tend(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        if self._pending_since is not None and now >= self._pending_since + _LINGER_S:
            await self._append_pending()
        unsynced_bytes = sum(log.unsynced_bytes for log in self._logs)
        if now >= self._synced_at + self._sync_interval_s or unsynced_bytes >= self._sync_bytes:
            await self._commit({})
        if (replace_at := self._replacer.due_at) is not None and now >= replace_at:
            self._replacer.begin()

    async def _settle_for(self, waiting: Sequence[Retire | Job | Flush]) -> None:
        """Make everything that was handed in durable, and replaced files as new as these must find them."""
        n_replies = sum(len(one.replies) for one in waiting if isinstance(one, Flush))
        has_job = any(isinstance(one, Job) for one in waiting)
        may_lag = n_replies > 1 and time.monotonic() < self._replacer.began_at + _LAG_S
        if has_job or (n_replies and not may_lag):
            self._replacer.begin()  # beside the logs
            await self._settle()
            await (self._replacer.durable() if has_job else self._replacer.readable())
        else:
            if n_replies:
                self._replacer.hurry(_LAG_S)
            await self._settle()

    async def _settle(self) -> None:
        """Make everything that the logs were handed durable."""
        if self._data_bytes > _PIECE_BYTES:
            await self._append_pending()
        self._is_appending = True
        await self._commit(self._take_pending())
        self._is_appending = False

    async def _commit(self, data: Mapping[Log, Sequence[bytes]]) -> None:
        pieces = {log: b"".join(several) for log, several in data.items()}
        for log in sorted(self._logs, key=lambda log: log.path):
            if log not in pieces and log.unsynced_bytes:
                pieces[log] = b""
        if pieces:
            await commit(pieces, self._activities)
            self._take_off(n_bytes=sum(map(len, pieces.values())))
        self._synced_at = time.monotonic()

    async def _run_jobs(self) -> None:
        while operations := await self._jobs.take():
            for operation in operations:
                match operation:
                    case Job(work, reply, name):
                        meter = files.Meter()
                        with self._activities.at(name, partial(getattr, meter, "n_bytes")):
                            await self._job_thread.run(metered, meter, work)
                        self._take_off(n_jobs=1)
                        replies = [] if reply is None else [reply]
                    case Flush(replies):
                        pass
                    case _:
                        assert_never(operation)
                self.n_done += 1
                self._n_answers -= 1
                _answer(replies)


def _answer(replies: Sequence[Reply[None]]) -> None:
    for reply in replies:
        reply.set(None)


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
