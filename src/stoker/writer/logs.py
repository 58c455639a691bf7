"""Logs: files that grow by whole pieces, shared by tasks, durable when asked for.

``AppendLog`` takes bytes; ``RowLog`` (in ``rows``) takes rows too. The writer task owns most of them and
makes them durable together with ``commit``; without a writer they are used directly.

What a kill or a power cut leaves is a prefix of the pieces, perhaps with one torn piece behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
from aiofiles.threadpool.binary import AsyncFileIO

from stoker.stalls import Activity
from stoker.threads import DedicatedThread, ThreadCall, on_asyncio
from stoker.writer.files import PieceFile

__all__ = ["AppendLog", "commit"]

_PATIENCE_S = 10.0
"""How long the other logs may take once one was refused."""


class AppendLog:
    """A file that only grows. Safe for several tasks; opened at the first piece, and again after ``aclose``.

    After a failed sync every later call raises that ``WriteFailed``; nothing is retried (see ``PieceFile``).

    The log's own thread does everything, in order. A caller that is cancelled while the disk is busy leaves
    at once; what was begun is finished all the same, before anything that comes later. So no piece is ever
    put behind half a piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = DedicatedThread("stoker-log")
        """Every call to the file is made here."""
        self._file = PieceFile(path, self._prepare)
        self._awaited = AsyncFileIO(cast("Any", self._file), None, self.thread)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last sync, in bytes."""
        return self._file.unsynced_bytes

    @property
    def activity(self) -> Activity | None:
        """What the log is doing, for example ``syncing train_episodes.jsonl``; None: nothing."""
        since, file = self.thread.since, self._file
        return None if since is None else Activity(f"{file.doing} {self.path.name}", since, file.n_written)

    async def append(self, data: bytes) -> None:
        """Write the bytes behind what is there, with one write.

        Raises:
            WriteFailed: The disk refused; none of these bytes is in the file.
        """
        if on_asyncio():
            await self._awaited.write(data)
        else:  # aiofiles knows asyncio only
            await self.thread.run(self._file.write, data)

    async def aclose(self) -> None:
        """Make every piece durable and close the file; it is closed even where that is refused.

        Cancelled while it waits for the disk: that is done all the same, when the disk comes back.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        if self.thread.is_idle and not self._file.is_open:  # in this order: a call may be about to open it
            return
        try:
            await self.thread.run(self._file.close, is_kept=True)
        finally:
            self.thread.release()

    # In the thread ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Called each time before the file is opened."""

    def _sync(self) -> None:
        self._file.sync()

    def take_part(self, data: bytes, chain: _Chain, begin_next: Callable[[], None]) -> None:
        """Take part in a commit: write unless the chain is broken, let the next log begin, then sync."""
        try:
            if chain.is_broken:
                return
            if data:
                self._file.write(data)
        except BaseException:
            chain.is_broken = True
            raise
        finally:
            begin_next()
        self._sync()


class _Chain:
    """What the logs of one commit know of each other."""

    def __init__(self) -> None:
        self.is_broken = False
        """Whether a log could not be written, or nobody waits any more: those behind it take nothing."""


async def commit(pieces: Mapping[AppendLog, bytes]) -> None:
    """Write these bytes, and make them and all that the logs took before durable, all logs at once.

    Each log's thread writes and syncs without the event loop in between, and lets the next log's thread
    begin between the two. So the logs are written in their order, a journal before the rows that follow from
    it, and synced at the same time: the disk takes hardly longer for several than for one.

    Cancelled, it leaves at once: the log that is being written is finished all the same, those behind it take
    nothing.

    Args:
        pieces: what each log takes, in the order in which they are written; perhaps nothing.

    Raises:
        WriteFailed: The disk refused, for this log first. A log that cannot be made durable keeps no other
            from it; behind one that could not be written none has taken anything.
    """
    chain = _Chain()
    calls: list[ThreadCall[None]] = []
    begin: Callable[[], None] = _nothing
    for log, data in reversed(list(pieces.items())):
        calls.append(ThreadCall(log.take_part, data, chain, begin, is_kept=True))
        begin = partial(log.thread.hand_in, calls[-1])
    begin()
    refused: Exception | None = None
    with anyio.CancelScope() as scope:
        try:
            for call in reversed(calls):
                try:
                    await call.wait()
                except Exception as error:  # noqa: BLE001 - raised below
                    refused = refused or error
                    scope.deadline = min(scope.deadline, anyio.current_time() + _PATIENCE_S)
        finally:
            chain.is_broken = True
    if refused is not None:
        raise refused


def _nothing() -> None:
    """What comes behind the last log."""
