"""JSONL: rows of one kind in one file, each with a checksum, appended by whole rows.

A line is JSON and ends with ``,"crc":"xxxxxxxx"}``: the CRC-32 of all bytes of the line before that, as eight
hexadecimal digits. A kill or a power cut tears only what lies behind the last whole row. Opening a log for
appending sets such a tail aside in ``<name>.torn``; reading passes it over. Damage with a whole row behind it
is never cut: ``reading`` names it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar
from zlib import crc32

import msgspec
from anyio.lowlevel import checkpoint

import stoker.writer.files as files
from stoker.errors import RunBroken
from stoker.writer.logs import AppendLog

_logger = logging.getLogger("stoker.writer")
Row = TypeVar("Row", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
CRC_BYTES = len(b',"crc":"xxxxxxxx"}')
_ROWS_AT_ONCE = 256
_TAIL_BYTES = 64 * 1024
DAMAGED: Final = "its checksum is missing or does not match"
FOREIGN: Final = f"line 1 is not a row ({DAMAGED}, nor that of any other line); move that file away"


class RowLog(AppendLog):
    """One JSONL file. Safe for several tasks; opened at the first row, and again after ``aclose``."""

    async def append_rows(self, rows: Sequence[Any]) -> None:
        """Write the rows in order, with one write; the event loop runs other tasks between 256 of them.

        Raises:
            WriteFailed: The disk refused; none of these rows is in the file.
        """
        await self.append(await encode_cooperatively(rows))

    def _prepare(self) -> None:
        """Set a torn tail aside."""
        start, data = files.read_tail(self.path, _TAIL_BYTES)
        end = _end_of_whole(data)
        if end == 0 and start > 0:  # a long row, or much damage: look at all of it
            start, data = files.read_tail(self.path, 1 << 62)
            end = _end_of_whole(data)
        if start + end == 0 and is_foreign(data):
            raise RunBroken(self.path, FOREIGN)
        if end < len(data) and (n_torn := files.cut_at(self.path, start + end, separator=b"\n")):
            words = "%s: %d bytes of a torn last row set aside in %s.torn"
            _logger.warning(words, self.path, n_torn, self.path.name)


def encode_rows(rows: Iterable[Any]) -> bytes:
    """The rows as a log holds them: one line each, with its checksum.

    A row is a struct or dict with at least one field. It must hold finite numbers only: JSON has no others.
    """
    return b"".join(map(_line_of, rows))


async def encode_cooperatively(rows: Sequence[Any]) -> bytes:
    """The same, with other tasks in between: many rows must not hold up the event loop."""
    if len(rows) <= _ROWS_AT_ONCE:
        return encode_rows(rows)
    pieces: list[bytes] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        pieces.append(encode_rows(rows[start : start + _ROWS_AT_ONCE]))
        await checkpoint()
    return b"".join(pieces)


def _line_of(row: Any) -> bytes:
    line = _encoder.encode(row)
    body = line[:-1]
    if line[-1:] != b"}" or body == b"{":
        raise TypeError(f"{row!r} is not a row: give a struct or dict with at least one field")
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def is_whole(line: bytes) -> bool:
    """Whether a line, without its newline, ends with its checksum."""
    return line[-CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-CRC_BYTES])


def is_foreign(data: bytes) -> bool:
    """Whether the first line is JSON without a checksum: another program wrote it, no crash tore it."""
    first, newline, _ = data.partition(b"\n")
    try:
        return bool(newline) and isinstance(msgspec.json.decode(first), dict)
    except UNREADABLE:
        return False


def _end_of_whole(data: bytes) -> int:
    """Where the last whole row ends; 0 where there is none."""
    end = data.rfind(b"\n") + 1
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if is_whole(data[start : end - 1]):
            return end
        end = start
    return 0
