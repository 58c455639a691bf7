"""Logs: files that grow by whole pieces, shared by tasks, durable when asked for.

``AppendLog`` takes bytes; ``RowLog`` (in ``rows``) takes rows. The writer task owns most of them and makes
them durable together; without a writer they are used directly.

What a kill or a power cut leaves is a prefix of the pieces, perhaps with one torn piece behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import aiofiles.threadpool
import anyio

from stoker.threads import DedicatedThread, ThreadCall, on_asyncio
from stoker.writer.piece_file import PieceFile

__all__ = ["AppendLog", "Log"]


class Log:
    """A file that only grows. Safe for several tasks; opened at the first piece, and again after ``aclose``.

    After a failed sync it is of no more use: the system may have dropped what it could not write, and a
    second try would call that a success. Every later call raises that ``WriteFailed``; nothing is retried.

    Everything is done by the log's thread, in order. A caller that is cancelled while the disk is busy
    leaves at once: what was begun is done to its end all the same, before anything that comes later, and what
    it finds out holds for all that comes later. So nothing is ever put behind half a piece.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = anyio.Lock()
        self._thread = DedicatedThread("stoker-log")
        # Both are set in the thread, whether or not a caller still waits.
        self._file: PieceFile | None = None
        self._former: PieceFile | None = None  # the last one that was closed
        self._is_syncing = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last ``sync``, in bytes; 0 while it is closed."""
        file = self._file
        return 0 if file is None else file.unsynced_bytes

    @property
    def written_bytes(self) -> int:
        """How much has reached the file since it was opened; grows also within a piece."""
        file = self._file
        return 0 if file is None else file.n_written

    @property
    def doing(self) -> str:
        """What a commit of it is at: ``writing <name>`` or ``syncing <name>``."""
        return f"{'syncing' if self._is_syncing else 'writing'} {self.path.name}"

    async def append_bytes(self, data: bytes) -> None:
        """Write the bytes behind what is there, with one write.

        Raises:
            WriteFailed: The disk refused; none of these bytes is in the file.
        """
        async with self._turn:
            file = self._file if self._thread.is_idle else None  # in this order: a call may be closing it
            if file is None:
                file = await self._thread.run(self._open)
            if on_asyncio():
                wrapped = cast("Any", aiofiles.threadpool.wrap)(file, executor=self._thread)
                await cast("_AwaitedFile", wrapped).write(data)
            else:
                await self._thread.run(file.write, data)

    def prepare_commit(self, data: bytes, written: Callable[[], None]) -> ThreadCall[None]:
        """A call that writes the bytes and makes every appended piece durable, in one go, come what may.

        Args:
            data: what ``append_bytes`` takes; nothing is written where it is empty.
            written: called in the log's thread when they are in the file, and not yet durable.
        """
        return ThreadCall(self._commit_it, data, written, is_kept=True)

    def hand_in(self, call: ThreadCall[None]) -> None:
        """Let a prepared call take its turn behind what the log was asked for before. From any thread."""
        self._thread.hand_in(call)

    async def sync(self) -> None:
        """Return when every appended piece is durable.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        async with self._turn:
            file = self._file or self._former
            if file is not None and (file.unsynced_bytes or file.refusal):
                await self._thread.run(self._sync_it)

    async def aclose(self) -> None:
        """Make every piece durable and close the file; it is closed even where that is refused.

        Cancelled while it waits for the disk: that is done all the same, when the disk comes back.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        async with self._turn:
            if self._thread.is_idle and self._file is None:  # in this order: a call may be about to open it
                return
            try:
                await self._thread.run(self._finish, is_kept=True)
            finally:
                self._thread.release()

    async def settle(self, timeout_s: float) -> bool:
        """Wait until nothing of it touches the disk, but no longer than that; say whether that is so."""
        return await self._thread.settle(timeout_s)

    def _prepare(self) -> None:
        """Called before the file is opened, each time, in the thread."""

    # In the thread ----------------------------------------------------------------------------------

    def _open(self) -> PieceFile:
        if self._file is None:
            if self._former is not None:
                self._former.sync()  # raises if it was refused
            self._prepare()
            self._file = PieceFile(self.path)
        return self._file

    def _commit_it(self, data: bytes, written: Callable[[], None]) -> None:
        self._is_syncing = False
        if data:
            self._open().write(data)
        written()
        self._is_syncing = True
        self._sync_it()

    def _sync_it(self) -> None:
        if (file := self._file or self._former) is not None:
            file.sync()

    def _finish(self) -> None:
        if (file := self._file) is not None:
            try:
                file.finish()
            finally:
                self._file, self._former = None, file


class AppendLog(Log):
    """A log of bytes. Its reader knows what a piece means and how to recognize a torn one."""

    async def append(self, data: bytes) -> None:
        """Write the bytes behind what is there, with one write.

        Raises:
            WriteFailed: The disk refused; none of these bytes is in the file.
        """
        await self.append_bytes(data)


class _AwaitedFile(Protocol):
    """What aiofiles makes of a raw file."""

    async def write(self, data: bytes, /) -> int: ...
