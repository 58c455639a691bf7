"""JSONL: rows of one kind in one file, appended by whole rows and read back by whole rows.

A kill can tear only the last row. Opening a log for appending cuts a torn tail off (and keeps it aside),
so that every line parses; reading passes a torn tail over and reports damage in the middle.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
from anyio import to_thread

from stoker.errors import RunBroken
from stoker.writer import files

__all__ = ["RowLog", "decode_rows"]

logger = logging.getLogger("stoker.writer")
Row = TypeVar("Row", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


class RowLog:
    """One JSONL file. Safe for several tasks; opened at the first row, and again after ``aclose``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: files.AppendFile | None = None
        self._turn = anyio.Lock()
        self._unsynced = False

    async def append(self, rows: Sequence[Any]) -> None:
        """Write the rows in order, encoded together, with one write.

        Rows must hold finite numbers only: JSON has no others.

        Raises:
            WriteFailed: The disk refused; none of these rows is in the file.
        """
        async with self._turn:
            if self._file is None:
                cut = await to_thread.run_sync(files.cut_torn_tail, self.path)
                if cut:
                    logger.warning(
                        "%s: %d bytes of a torn last row set aside in %s.torn", self.path, cut, self.path.name
                    )
                self._file = await files.AppendFile.open(self.path)
            await self._file.append(_encoder.encode_lines(rows))
            self._unsynced = True

    @property
    def unsynced(self) -> bool:
        """Whether rows were appended since the last ``sync``."""
        return self._unsynced

    async def sync(self) -> None:
        """Return when every appended row is durable."""
        async with self._turn:
            if self._file is not None and self._unsynced:
                await self._file.sync()
                self._unsynced = False

    async def aclose(self) -> None:
        """Make all rows durable and close the file."""
        try:
            await self.sync()
        finally:
            async with self._turn:
                if self._file is not None:
                    file, self._file = self._file, None
                    self._unsynced = False
                    await file.aclose()


def decode_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The whole rows of a log, in file order; none where there is no file.

    Raises:
        RunBroken: A line before the last cannot be read; the message names it.
    """
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        return []
    data = data[: data.rfind(b"\n") + 1]
    decoder = msgspec.json.Decoder(row_type)
    try:
        return decoder.decode_lines(data)
    except _UNREADABLE:
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                if line.strip():
                    decoder.decode(line)
            except _UNREADABLE as error:
                raise RunBroken(
                    path, f"line {number} is not a row ({error}); mend or remove that line"
                ) from error
        raise
