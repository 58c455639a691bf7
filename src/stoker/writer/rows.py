"""JSONL: rows of one kind in one file, each with a checksum, appended and read back by whole rows.

A line is JSON and ends with ``,"crc":"xxxxxxxx"}``: the CRC-32 of all bytes of the line before that, as eight
hexadecimal digits. A kill or a power cut tears only what lies behind the last whole row. Opening a log for
appending sets such a tail aside in ``<name>.torn``; reading passes it over. Damage with a whole row behind it
is never cut: reading names it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from zlib import crc32

import msgspec
from anyio.lowlevel import checkpoint

import stoker.writer.files as files
from stoker.errors import RunBroken
from stoker.writer.logs import AppendLog

__all__ = ["RowLog", "RowReader", "cut_rows", "decode_rows", "encode_cooperatively", "encode_rows"]

logger = logging.getLogger("stoker.writer")
Row = TypeVar("Row", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)
_CRC_BYTES = len(b',"crc":"xxxxxxxx"}')
_ROWS_AT_ONCE = 256
_TAIL_BYTES = 64 * 1024
_MOST_NAMED = 20


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
        if start + end == 0 and _is_foreign(data):
            raise RunBroken(self.path, _FOREIGN)
        if end < len(data) and (n_torn := files.cut_at(self.path, start + end, separator=b"\n")):
            words = "%s: %d bytes of a torn last row set aside in %s.torn"
            logger.warning(words, self.path, n_torn, self.path.name)


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


class RowReader(Generic[Row]):
    """Reads a row file in pieces, each row once, also while another process writes it.

    A torn tail is read when it has become a whole row. If the file was replaced or cut back, reading starts
    again at its first row. Not for several threads at once.

    Args:
        path: the file; it need not exist yet.
        row_type: the type of its rows.
    """

    def __init__(self, path: Path, row_type: type[Row]) -> None:
        self.path = path
        self.has_restarted = False
        """Whether the last read started again at the first row: rows that were read before it are void."""
        self.torn_bytes = 0
        """Bytes behind the last whole row at the last read; the next append to the log sets them aside."""
        self._decoder = msgspec.json.Decoder(row_type)
        self._offset: int = 0
        self._n_lines: int = 0
        self._last_read = b""  # the checksum of the last row that was read, and its newline
        self._has_given = False

    def read_new(self) -> list[Row]:
        """Read the whole rows that were appended since the last call, in file order. Blocks.

        Raises:
            RunBroken: Lines before the tail are damaged, or one is of another type; the message names them.
                Nothing is skipped: the next call starts at the same row.
        """
        return [row for _, row in self.read_new_lines()]

    def read_new_lines(self) -> list[tuple[bytes, Row]]:
        """Read the same rows, each with its line in the file."""
        data = self._unread()
        end = _end_of_whole(data)
        if end == 0 and self._offset == 0 and _is_foreign(data):
            raise RunBroken(self.path, _FOREIGN)
        self.torn_bytes = len(data) - end
        lines = data[: end - 1].split(b"\n") if end else []
        numbered = [(number, line) for number, line in enumerate(lines, self._n_lines + 1) if line.strip()]
        if damaged := [str(number) for number, line in numbered if not _is_whole(line)]:
            raise RunBroken(self.path, _words_for(damaged))
        found = [(line, self._decoded(line, number)) for number, line in numbered]
        self.has_restarted = self._has_given and self._offset == 0
        self._has_given = bool(found) or (self._has_given and not self.has_restarted)
        if found:
            self._offset += end
            self._n_lines += len(lines)
            self._last_read = lines[-1][-_CRC_BYTES:] + b"\n"
        return found

    def _unread(self) -> bytes:
        """The bytes behind the last row that was read; all bytes where that row is no longer in its place."""
        try:
            data = files.read_bytes(self.path, self._offset - len(self._last_read))
            if data.startswith(self._last_read):
                return data[len(self._last_read) :]
            data = files.read_bytes(self.path)
        except FileNotFoundError:
            data = b""
        self._offset, self._n_lines, self._last_read = 0, 0, b""
        return data

    def _decoded(self, line: bytes, number: int) -> Row:
        try:
            return self._decoder.decode(line)
        except _UNREADABLE as error:
            raise RunBroken(self.path, f"line {number} is not a row ({error}); remove that line") from error


def decode_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The whole rows of a log, in file order; none where there is no file. A torn tail is passed over.

    Raises:
        RunBroken: Lines before the tail are damaged or no such rows; the message names them.
    """
    return RowReader(path, row_type).read_new()


def cut_rows(source: Path, target: Path, keep: Callable[[Row], bool], row_type: type[Row]) -> int:
    """Copy the lines of those rows that are to be kept, as they are, to a new file, whole and durable.

    Returns:
        How many were kept. Where there is no source, no target is made.

    Raises:
        RunBroken: As for ``decode_rows``.
        WriteFailed: The disk refused; what the target was before it still is.
    """
    kept = [line for line, row in RowReader(source, row_type).read_new_lines() if keep(row)]
    if kept or source.name in files.files_in(source.parent):
        files.write_atomically(target, lambda file: file.write(b"".join(line + b"\n" for line in kept)))
    return len(kept)


_DAMAGED = "its checksum is missing or does not match"
_FOREIGN = f"line 1 is not a row ({_DAMAGED}, nor that of any other line); move that file away"


def _words_for(damaged: Sequence[str]) -> str:
    if len(damaged) == 1:
        return f"line {damaged[0]} is not a row ({_DAMAGED}); remove that line"
    n_more = len(damaged) - _MOST_NAMED
    more = f" and {n_more} more" if n_more > 0 else ""
    return f"lines {', '.join(damaged[:_MOST_NAMED])}{more} are not rows ({_DAMAGED}); remove those lines"


def _line_of(row: Any) -> bytes:
    line = _encoder.encode(row)
    body = line[:-1]
    if line[-1:] != b"}" or body == b"{":
        raise TypeError(f"{row!r} is not a row: give a struct or dict with at least one field")
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def _is_whole(line: bytes) -> bool:
    return line[-_CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-_CRC_BYTES])


def _is_foreign(data: bytes) -> bool:
    """Whether the first line is JSON without a checksum: another program wrote it, no crash tore it."""
    first, newline, _ = data.partition(b"\n")
    try:
        return bool(newline) and isinstance(msgspec.json.decode(first), dict)
    except _UNREADABLE:
        return False


def _end_of_whole(data: bytes) -> int:
    """Where the last whole row ends; 0 where there is none."""
    end = data.rfind(b"\n") + 1
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if _is_whole(data[start : end - 1]):
            return end
        end = start
    return 0
