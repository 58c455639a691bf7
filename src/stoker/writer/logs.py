"""Logs: files that grow by whole pieces, shared by tasks, durable when asked for.

``AppendLog`` takes bytes; ``RowLog`` (in ``rows``) takes rows too. The writer task owns most of them and
makes them durable together with ``commit``; without a writer they are used directly.

What a kill or a power cut leaves is a prefix of the pieces, perhaps with one torn piece behind it.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
from aiofiles.threadpool.binary import AsyncFileIO

import stoker.writer.files as files
from stoker.errors import WriteFailed
from stoker.stalls import Activity
from stoker.threads import DedicatedThread, ThreadCall, on_asyncio
from stoker.writer.fencing import check_fence
from stoker.writer.metering import Meter, metered

_WRITE_BYTES = 1 << 20
"""The size of one write, so that the progress of a large piece can be seen."""
_PATIENCE_S = 10.0
"""How long the other logs may take once one was refused."""


class DiskThread(DedicatedThread):
    """A thread that works on the disk, and what it does there, for any thread to read."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.meter: Meter = Meter()
        """The bytes that its calls have written, also the running one."""
        self.doing: tuple[str, float] = "", 0.0
        """What the running call does, or the last one did, and since when, in monotonic seconds."""

    @property
    def activity(self) -> Activity | None:
        """What is being done, for example ``syncing train_episodes.jsonl``; None: nothing."""
        since, (words, doing_since) = self.since, self.doing
        return None if since is None else Activity(words, max(since, doing_since), self.meter.n_bytes)

    def begin(self, words: str) -> None:
        """Say what the running call does from now on."""
        self.doing = words, time.monotonic()

    async def work(self, words: str, function: Callable[[], object]) -> None:
        """Call the function there, as ``run`` does, and count what it writes."""
        await self.run(self._work, words, function)

    def _work(self, words: str, function: Callable[[], object]) -> None:
        self.begin(words)
        metered(self.meter, function)


class AppendLog:
    """A file that grows by whole pieces. Safe for several tasks.

    The first piece opens it, and makes it durably if it is missing; so does the first one after ``aclose``.
    A piece that cannot be written whole (a full disk) is taken back, so that the file ends with the last
    whole piece, and ``WriteFailed`` is raised. When a sync fails, the system may have dropped what it could
    not write, and would call the next sync a success: from then on every call raises that ``WriteFailed``.

    The log's own thread does everything, in order. A caller that is cancelled while the disk is busy leaves
    at once; a piece that was begun is finished before any later one, so none is ever put behind half a piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread: DiskThread = DiskThread("stoker-log")
        """Every call to the file is made here."""
        self._awaited = AsyncFileIO(cast("Any", self), None, self.thread)
        self._raw: io.FileIO | None = None
        self._end = self._durable = 0
        self._refusal: OSError | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last sync, in bytes."""
        return self._end - self._durable

    async def append(self, data: bytes) -> None:
        """Write the bytes behind what is there, with one write.

        Raises:
            WriteFailed: The disk refused; none of these bytes is in the file.
        """
        if on_asyncio():
            await self._awaited.write(data)
        else:  # aiofiles knows asyncio only
            await self.thread.run(self.write, data)

    async def aclose(self) -> None:
        """Make every piece durable and close the file; it is closed even where that is refused.

        Cancelled while it waits for the disk: the file is closed anyway, when the disk answers.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        if self.thread.is_idle and self._raw is None:  # in this order: a call may be about to open it
            return
        try:
            await self.thread.run(self.close, is_kept=True)
        finally:
            self.thread.release()

    # In the thread ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write the piece behind what is there."""
        self._raise_if_refused()
        self.thread.begin(f"writing {self.path.name}")
        rest = memoryview(data)
        raw = self._raw or self._open()
        check_fence(self.path)
        with files.refusals_of(self.path):
            try:
                while rest.nbytes:
                    n_taken = raw.write(rest[:_WRITE_BYTES])
                    self.thread.meter.n_bytes += n_taken
                    rest = rest[n_taken:]
            except OSError as error:
                try:
                    raw.truncate(self._end)
                except OSError:
                    self._refusal = error  # a piece behind the torn one would never be read
                raise
        self._end += len(data)

    def sync(self) -> None:
        """Return when all that was appended is durable."""
        self._raise_if_refused()
        self.thread.begin(f"syncing {self.path.name}")
        if self._raw is None or not self.unsynced_bytes:
            return
        with files.refusals_of(self.path):
            try:
                files.fdatasync(self._raw.fileno())
            except OSError as error:
                self._refusal = error
                raise
        self._durable = self._end
        check_fence(self.path)

    def close(self) -> None:
        """Make all durable and close; it is closed even where that is refused."""
        try:
            self.sync()
        finally:
            self.thread.begin(f"closing {self.path.name}")
            raw, self._raw = self._raw, None
            if raw is not None:
                with files.refusals_of(self.path):
                    raw.close()

    def _prepare(self) -> None:
        """Called each time before the file is opened."""

    def _open(self) -> io.FileIO:
        self._prepare()
        with files.refusals_of(self.path):
            raw = io.FileIO(self.path, "ab")
            try:
                self._end = self._durable = os.fstat(raw.fileno()).st_size
                # Also if the file was there: the process that made it may have been killed before this.
                files.sync_directory(self.path.parent)
            except BaseException:
                raw.close()
                raise
        self._raw = raw
        return raw

    def _raise_if_refused(self) -> None:
        if self._refusal is not None:
            raise WriteFailed(self.path, self._refusal)


async def commit(pieces: Mapping[AppendLog, bytes]) -> None:
    """Write these bytes, and make them and all that the logs took before durable, all logs at once.

    Each log's thread writes and syncs without the event loop in between, and lets the next log's thread
    begin between the two. So the logs are written in their order, a journal before the rows that follow from
    it, and synced at the same time: the disk takes hardly longer for several than for one.

    Cancelled, it leaves at once: the log that is being written is finished, those behind it take nothing.

    Args:
        pieces: what each log takes, in the order in which they are written; perhaps nothing.

    Raises:
        WriteFailed: The disk refused, for this log first. A log that cannot be made durable keeps no other
            from it; behind one that could not be written none has taken anything.
    """
    waiting = iter(pieces.items())
    calls: list[ThreadCall[None]] = []  # one for each log that was begun
    has_left = False  # then logs that are not being written yet take nothing

    def begin_next() -> None:
        if not has_left and (following := next(waiting, None)) is not None:
            log, data = following
            calls.append(ThreadCall(take_part, log, data, is_kept=True))
            log.thread.hand_in(calls[-1])

    def take_part(log: AppendLog, data: bytes) -> None:
        if not has_left:
            if data:
                log.write(data)
            begin_next()
            log.sync()

    begin_next()
    refused: Exception | None = None
    with anyio.CancelScope() as scope:
        try:
            for call in calls:  # each log adds the call of the next one before its own call returns
                try:
                    await call.wait()
                except Exception as error:  # noqa: BLE001 - raised below
                    refused = refused or error
                    scope.deadline = min(scope.deadline, anyio.current_time() + _PATIENCE_S)
        finally:
            has_left = True
    if refused is not None:
        raise refused
