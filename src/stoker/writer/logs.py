"""Logs: files that grow by whole pieces, shared by tasks, durable when asked for.

``AppendLog`` takes bytes; ``RowLog`` (in ``rows``) takes rows. The writer task owns most of them and makes
them durable together; whoever has no writer uses them directly.

What a kill or a power cut leaves is a prefix of the pieces, perhaps with one torn piece behind it.
"""

from __future__ import annotations

from pathlib import Path

import anyio

from stoker.errors import WriteFailed
from stoker.writer import files

__all__ = ["AppendLog", "Log"]


class Log:
    """A file that only grows. Safe for several tasks; opened at the first piece, and again after ``aclose``.

    After a failed sync it is of no more use: the system may have dropped what it could not write, and a
    second try would call that a success. Every later call raises that ``WriteFailed``; nothing is retried.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: files.AppendFile | None = None
        self._turn = anyio.Lock()
        self._refusal: OSError | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last ``sync``, in bytes; 0 while it is closed."""
        return 0 if self._file is None else self._file.unsynced_bytes

    async def sync(self) -> None:
        """Return when every appended piece is durable.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        async with self._turn:
            if self._refusal is not None:
                raise WriteFailed(self.path, self._refusal)
            if self._file is not None and (self._file.unsynced_bytes or self._file.refusal):
                await self._file.sync()

    async def aclose(self) -> None:
        """Make every piece durable and close the file; it is closed even where that is refused.

        Raises:
            WriteFailed: The disk refused, now or earlier.
        """
        async with self._turn:
            if self._file is None:
                return
            file = self._file
            try:
                if file.unsynced_bytes or file.refusal:
                    await file.sync()
            finally:
                self._file = None
                with anyio.CancelScope(shield=True):
                    await file.aclose()
                self._refusal = file.refusal

    async def _append(self, data: bytes) -> None:
        async with self._turn:
            if self._refusal is not None:
                raise WriteFailed(self.path, self._refusal)
            if self._file is None:
                await self._prepare()
                self._file = await files.AppendFile.open(self.path)
            await self._file.append(data)

    async def _prepare(self) -> None:
        """Called before the file is opened, each time."""


class AppendLog(Log):
    """A log of bytes. What a piece means, and how a torn one is told, is its reader's affair."""

    async def append(self, data: bytes) -> None:
        """Write the bytes behind what is there, with one write.

        Raises:
            WriteFailed: The disk refused; none of these bytes is in the file.
        """
        await self._append(data)
