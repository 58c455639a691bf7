"""The writer task: owns the disk while a session runs.

The session task hands it rows, bytes for logs, replacements (files that always hold the latest value, like
the metadata) and jobs (functions that publish something, like a checkpoint). All logs are made durable
together, with one write each (group commit); replacements are written beside that; jobs run in a thread of
their own, one after the other, while rows are written. A log keeps its order; a job starts when everything
handed in before it is durable.

An error ends the task and comes out of ``run``: nothing is retried, nothing is dropped in silence. A disk
that hangs blocks threads only: a cancelled task ends, and ``settle`` returns whether the threads are done.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio import get_cancelled_exc_class
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from stoker.errors import first_error
from stoker.replies import Reply
from stoker.stalls import Activity
from stoker.telemetry import Buckets, Spans, StateClock, span_of
from stoker.writer.logs import AppendLog, DiskThread, commit
from stoker.writer.replacing import Replacer
from stoker.writer.rows import RowLog, encode_cooperatively

WRITER_STATES = ("idle", "writing", "committing", "finishing")
"""It waits for something to write; writes; writes and syncs; waits for other files and closes logs."""
JOB_STATES = ("idle", "writing")
IDLE, WRITING, COMMITTING, FINISHING = range(len(WRITER_STATES))

_COMMITS_NS = tuple(bound * 1e6 for bound in (1.0, 2.5, 5.0, 10.0, 25.0, 100.0, 500.0, 2500.0, 10_000.0))
_WAITING_BYTES = 64 << 20
_WAITING_JOBS = 32
_LINGER_BYTES = 64 << 10
_CANCELLED_S, _LEAVE_S = 1.0, 10.0
"""How long a task that was cancelled, or ends otherwise, waits for its logs; then it leaves their threads."""


class _Request(msgspec.Struct, frozen=True):
    """A flush, or a job: ``work``, which begins when everything handed in before is durable."""

    replies: Sequence[Reply[None]]
    work: Callable[[], None] | None = None
    name: str = ""


class Writer:
    """What waits to be written, and the task that writes it.

    Args:
        linger_s: rows and bytes wait this long for others, up to 64 KiB, to be written with one call; a flush
            does not wait. Where several callers wait for the same flush, a replaced file may be this old.
        sync_interval_s: what a log took is made durable at the latest this long after it was written.
        sync_bytes: and as soon as the logs together have taken this much, in bytes.
        replace_interval_s: a replaced file is rewritten at most this often, and at a flush.
        spans: traces commits; None: they are not traced.

    Attributes:
        clock, job_clock: what the task does with rows, journal and replaced files; and what its jobs do,
            beside that.
        commit_ns: how long commits took.
        durable: the newest ``note`` of which everything handed in before is durable.
    """

    def __init__(
        self,
        *,
        linger_s: float = 0.05,
        sync_interval_s: float = 0.5,
        sync_bytes: int = 4 << 20,
        replace_interval_s: float = 1.0,
        spans: Spans | None = None,
    ) -> None:
        self._spans = spans
        self._linger_s = linger_s
        self._sync_interval_s = sync_interval_s
        self._sync_bytes = sync_bytes
        # Handed in and not yet taken:
        self._pieces: dict[AppendLog, list[bytes]] = {}
        self._pieces_since = 0.0
        self._requests: list[_Request] = []
        self._retired: list[AppendLog] = []
        self._error: Callable[[], Exception] | None = None  # once closed: what callers get
        # Not yet written or run; callers wait for room:
        self._n_bytes = self._n_jobs = 0
        self._room = anyio.Event()
        # The task:
        self._news = anyio.Event()
        self._is_busy = False
        self._is_writing = False  # stays so where that was broken off
        self._logs: set[AppendLog] = set()
        self._n_unsynced = 0
        self._synced_at = time.monotonic()
        self._undurable_since: float | None = None
        self._noted: Any = None
        self.durable: Any = None
        self._replacer = Replacer(replace_interval_s)
        self._jobs: deque[_Request] = deque()  # and the flushes behind them
        self._job_thread = DiskThread("stoker-writer")
        self._retired_s = 0.0
        self.clock: StateClock = StateClock(WRITER_STATES)
        self.job_clock: StateClock = StateClock(JOB_STATES)
        self.commit_ns: Buckets = Buckets(_COMMITS_NS)

    def __len__(self) -> int:
        """Logs, flushes and jobs that wait while the task is busy with others."""
        return len(self._pieces) + len(self._requests) if self._is_busy else 0

    @property
    def busy_s(self) -> float:
        """Seconds that the disk has worked, over all threads."""
        return self._retired_s + sum(thread.busy_s for thread in self._threads())

    def activities(self) -> list[Activity]:
        """What the writer's threads are doing, the longest first. From any thread."""
        found = [activity for thread in self._threads() if (activity := thread.activity) is not None]
        return sorted(found, key=lambda activity: activity.since)

    def _threads(self) -> list[DiskThread]:
        logs = list(self._logs)  # copied in one step: this may be another thread
        return [self._job_thread, self._replacer.thread, *(log.thread for log in logs)]

    async def append_rows(self, log: RowLog, rows: Sequence[Any]) -> None:
        """Hand in rows, encoded here. Those of one log keep their order; waits as ``append_data`` does."""
        await self.append_data(log, await encode_cooperatively(rows))

    async def append_data(self, log: AppendLog, data: bytes) -> None:
        """Hand in bytes. The bytes of one log keep their order; waits while 64 MiB wait to be written."""
        await self._wait_while(lambda: self._n_bytes >= _WAITING_BYTES)
        self.put_data(log, data)

    @property
    def is_closed(self) -> bool:
        """Whether it accepts nothing more."""
        return self._error is not None

    def put_data(self, log: AppendLog, data: bytes) -> None:
        """Hand in bytes without waiting for room: for rows whose number is bounded otherwise."""
        self._raise_if_closed()
        if not self._pieces:
            self._pieces_since = now = time.monotonic()
            self._undurable_since = self._undurable_since or now
            self._news.set()
        self._pieces.setdefault(log, []).append(data)
        self._n_bytes += len(data)
        if self._n_bytes >= _LINGER_BYTES:
            self._news.set()

    def note(self, value: Any, *, is_durable: bool = False) -> None:
        """Let ``durable`` become this when all that was handed in before is durable; or at once."""
        self._noted = value
        if is_durable:
            self.durable = value

    @property
    def lag_s(self) -> float:
        """For how long the oldest bytes that are not durable have been here; 0: all are."""
        since = self._undurable_since
        return 0.0 if since is None else time.monotonic() - since

    async def retire(self, log: AppendLog) -> None:
        """Let a log that is complete be made durable and closed, after all that was handed in before."""
        self._raise_if_closed()
        self._retired.append(log)
        self._news.set()

    async def replace(self, path: Path, value: Any) -> None:
        """Let the file hold this value as JSON, soon; a later value may overtake it."""
        self._raise_if_closed()
        if self._replacer.put(path, value):
            self._news.set()

    async def submit(
        self, work: Callable[[], None], reply: Reply[None] | None = None, *, name: str = "running a job"
    ) -> None:
        """Hand in a function for the writer's thread; the reply is set when it has returned.

        Waits while 32 of them wait to be run.

        Args:
            work: what to run.
            reply: who waits for it.
            name: what ``activities`` say meanwhile, for example ``writing step_4000.pt``.
        """
        await self._wait_while(lambda: self._n_jobs >= _WAITING_JOBS)
        self._n_jobs += 1
        self._requests.append(_Request([] if reply is None else [reply], work, name))
        self._news.set()

    async def flush(self, *replies: Reply[None]) -> None:
        """Set the replies when everything handed in before is durable, and readable where it replaces a file.

        Only where several wait for the same flush may replaced files be behind it, by ``linger_s`` and the
        time that writing them takes.
        """
        self._raise_if_closed()
        self._requests.append(_Request(replies))
        self._news.set()

    def close(self, error: Callable[[], Exception] = anyio.ClosedResourceError) -> None:
        """Accept nothing more. ``run`` returns when what was accepted is durable.

        Args:
            error: makes what callers get from now on, also those that wait for room.
        """
        self._error = self._error or error
        self._news.set()
        self._room.set()

    async def run(self) -> None:
        """Write until closed and drained.

        Cancelled, it ends at once, or within two seconds where the disk hangs: see ``settle``.

        Raises:
            WriteFailed: The disk refused; what was handed in and not yet flushed may not be durable.
        """
        try:
            async with anyio.create_task_group() as tasks:
                is_last = False
                while not is_last:
                    self.clock.enter(IDLE)
                    await self._wait()
                    is_last, self._is_busy = self._error is not None, True
                    await self._round(tasks, is_last=is_last)
                    self._is_busy = False
        except BaseException as error:
            first = first_error(error)
            refused = await self._end(_LEAVE_S if isinstance(first, Exception) else _CANCELLED_S)
            if refused and isinstance(first, (get_cancelled_exc_class(), asyncio.CancelledError)):
                first = refused[0]
            if first is error:
                raise
            raise first from first.__cause__
        for refusal in await self._end(_LEAVE_S):
            raise refusal

    async def settle(self, timeout_s: float) -> bool:
        """Wait at most that long until no thread of it touches the disk; return whether that is so.

        To be called after ``run`` has returned or raised.
        """
        with anyio.move_on_after(timeout_s):
            for thread in self._threads():
                await thread.settle(math.inf)
            return True
        return False

    # Waiting ------------------------------------------------------------------------------------------

    def _raise_if_closed(self) -> None:
        if self._error is not None:
            raise self._error()

    async def _wait_while(self, is_full: Callable[[], bool]) -> None:
        while is_full() and self._error is None:
            await self._room.wait()
        self._raise_if_closed()

    def _make_room(self) -> None:
        if self._error is None:
            room, self._room = self._room, anyio.Event()
            room.set()

    async def _wait(self) -> None:
        """Return when there is something to do."""
        while not (self._requests or self._retired or self._error):
            self._news = anyio.Event()
            due_s = self._due_at() - time.monotonic()
            if due_s <= 0:
                await checkpoint()
                return
            with anyio.move_on_after(due_s):
                await self._news.wait()

    def _due_at(self) -> float:
        """When something must be written or made durable, in seconds of ``time.monotonic``."""
        due_at = self._replacer.due_at
        if self._pieces:
            linger_s = self._linger_s if self._n_bytes < _LINGER_BYTES else 0
            due_at = min(due_at, self._pieces_since + linger_s)
        return min(due_at, self._sync_due_at())

    def _sync_due_at(self) -> float:
        if not self._n_unsynced:
            return math.inf
        return self._synced_at + (self._sync_interval_s if self._n_unsynced < self._sync_bytes else 0)

    # Writing ------------------------------------------------------------------------------------------

    async def _round(self, tasks: TaskGroup, *, is_last: bool) -> None:
        """Write what was handed in so far, as one commit if a caller waits for it or a sync is due."""
        requests, self._requests = self._requests, []
        retired, self._retired = self._retired, []
        now = time.monotonic()
        has_job = is_last or any(request.work for request in requests)
        n_flushing = sum(len(request.replies) for request in requests if request.work is None)
        if n_flushing > 1:
            self._replacer.hurry(self._linger_s)
        is_durable = bool(is_last or requests or retired or now >= self._sync_due_at())
        if has_job or n_flushing == 1:
            self._replacer.begin()
            async with anyio.create_task_group() as both:
                both.start_soon(self._replacer.make_durable if has_job else self._replacer.write)
                await self._write_logs(is_durable=is_durable)
            tasks.start_soon(self._replacer.sync)  # beside what comes next
        else:
            if now >= self._replacer.due_at:
                self._replacer.begin()
                tasks.start_soon(self._replacer.make_durable)
            await self._write_logs(is_durable=is_durable)
        for log in retired:
            await log.aclose()
            self._logs.discard(log)
            self._retired_s += log.thread.busy_s
        for request in requests:
            if request.work is None and not self._jobs:
                _answer(request)
                continue
            self._jobs.append(request)
            if len(self._jobs) == 1:
                tasks.start_soon(self._run_jobs)

    async def _write_logs(self, *, is_durable: bool) -> None:
        taken, self._pieces = self._pieces, {}
        noted = self._noted
        self._logs.update(taken)
        # The journal before the rows that follow from it.
        pieces = {log: b"".join(taken[log]) for log in sorted(taken, key=lambda log: isinstance(log, RowLog))}
        n_bytes = sum(map(len, pieces.values()))
        self._is_writing = True
        began = self.clock.enter(COMMITTING if is_durable else WRITING)
        if is_durable:
            behind = {log: b"" for log in self._logs if log.unsynced_bytes and log not in pieces}
            if logs := pieces | behind:
                with span_of(self._spans, "stoker.commit", {"stoker.bytes": n_bytes}):
                    await commit(logs)
                self.commit_ns.add(time.perf_counter_ns() - began)
            self._n_unsynced = 0
            self._synced_at = time.monotonic()
            self.durable = noted
            self._undurable_since = self._pieces_since if self._pieces else None
        else:
            for log, data in pieces.items():
                await log.append(data)
            self._n_unsynced += n_bytes
        self._is_writing = False
        self.clock.enter(FINISHING)
        self._n_bytes -= n_bytes
        self._make_room()

    async def _run_jobs(self) -> None:
        while self._jobs:
            request = self._jobs[0]
            if request.work is not None:
                self.job_clock.enter(WRITING)
                await self._job_thread.work(request.name, request.work)
                self.job_clock.enter(IDLE)
                self._n_jobs -= 1
                self._make_room()
            self._jobs.popleft()
            _answer(request)

    async def _end(self, patience_s: float) -> list[Exception]:
        """Write what still lingers and close the logs; for each wait no longer than that.

        Returns:
            What the disk refused. One log that cannot be closed keeps no other from it.
        """
        refused: list[Exception] = []

        async def attempt(call: Callable[[], Any]) -> None:
            try:
                await call()
            except Exception as error:  # noqa: BLE001 - raised by ``run``
                refused.append(error)

        with anyio.move_on_after(patience_s, shield=True):
            if not self._is_writing:  # else it would be put behind a gap
                await attempt(partial(self._write_logs, is_durable=False))
        with anyio.move_on_after(patience_s, shield=True):
            async with anyio.create_task_group() as tasks:
                for log in self._logs:
                    tasks.start_soon(attempt, log.aclose)
        self._n_bytes = self._n_jobs = 0
        self._make_room()
        self._job_thread.release()
        self._replacer.thread.release()
        return refused


def _answer(request: _Request) -> None:
    for reply in request.replies:
        reply.set(None)
