"""Row files read back: by pieces, each line once, also while another process appends; damage is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

import stoker.writer.files as files
from stoker.errors import RunBroken
from stoker.writer.rows import CRC_BYTES, DAMAGED, FOREIGN, UNREADABLE, is_foreign, is_whole

Row = TypeVar("Row", bound=msgspec.Struct)

PIECE_BYTES: Final = 4 << 20
"""How many bytes are read and decoded at a time."""
_LONGEST_BYTES = 8 << 20
_TOO_LONG = b"\xff longer than a row may be \xff"
"""Stands for the beginning of such a line: the line itself is not kept."""
_MOST_NAMED = 20
_ABOUT_A_LINE = 320


class Lines(NamedTuple):
    """The whole lines of a piece of a row file."""

    lines: list[bytes]
    """In order, without their newlines."""
    numbers: Sequence[int]
    """Their numbers in the file, from 1."""
    has_restarted: bool
    """Whether reading started again at the first line: lines that were read before are void."""
    is_end: bool
    """Whether the piece reached the end of the file."""


class Place(NamedTuple):
    """How far a file was read, and which lines were skipped on the way."""

    offset: int = 0
    n_lines: int = 0
    last_read: bytes = b""
    """The checksum of the last row that was read, and its newline."""
    damaged: tuple[int, ...] = ()
    """The numbers of the first damaged lines."""
    n_damaged: int = 0
    long: tuple[int, ...] = ()
    """The numbers of the first lines that are too long to be read."""
    is_foreign: bool = False
    """Whether another program wrote the file."""

    @property
    def has_problems(self) -> bool:
        """Whether lines were skipped."""
        return bool(self.damaged or self.long or self.is_foreign)

    @property
    def problems(self) -> tuple[str, ...]:
        """The skipped lines, in words."""
        damaged = (_words_for(self.damaged, self.n_damaged),) if self.damaged else ()
        long = (words_for_line(number, _LONG) for number in self.long)
        return (*((FOREIGN,) if self.is_foreign else damaged), *long)

    def after(self, lines: Sequence[bytes], whole: Sequence[bool]) -> Place:
        """The place behind these lines, with those noted that are not whole."""
        damaged, long = list[int](), list[int]()
        if not all(whole):
            for number, (line, is_row) in enumerate(zip(lines, whole, strict=True), self.n_lines + 1):
                if not is_row and line.strip():
                    (long if line is _TOO_LONG else damaged).append(number)
        return self._replace(
            n_lines=self.n_lines + len(lines),
            damaged=(*self.damaged, *damaged)[:_MOST_NAMED],
            n_damaged=self.n_damaged + len(damaged),
            long=(*self.long, *long)[:_MOST_NAMED],
        )


class LineReader:
    """Reads the whole lines of a row file in pieces, each once, also while another process writes it.

    Lines that are damaged or too long are skipped and named in ``place.problems``. What lies behind the last
    whole line is read when a whole line follows. If the file was replaced or cut back, reading starts again
    at its first line. Not for several threads at once.

    Args:
        path: the file; it need not exist yet.
        is_bounded: whether a line may have at most 8 MiB.
    """

    def __init__(self, path: Path, *, is_bounded: bool = True) -> None:
        self.path = path
        self._longest_bytes = _LONGEST_BYTES if is_bounded else math.inf
        self.place: Place = Place()
        """Where the next read begins; set an earlier place to read its lines again."""
        self.torn_bytes: int = 0
        """Bytes behind the last whole row, as of the last read that reached the end of the file."""

    def read_new(self, most_bytes: int = PIECE_BYTES) -> Lines:
        """Read the lines in that many bytes, or in as many more as hold a whole line. Blocks.

        Raises:
            RunBroken: The system refuses to read the file.
        """
        start = self.place
        piece = self._bytes(start.offset - len(start.last_read), len(start.last_read) + most_bytes)
        if has_restarted := not piece.startswith(start.last_read):
            start = Place()
            piece = self._bytes(0, most_bytes)
        first = piece = piece[len(start.last_read) :]
        offset, place, rest = start.offset + len(piece), start, b""
        while True:
            *lines, rest = (rest + piece).split(b"\n")
            if lines and (len(lines[0]) > self._longest_bytes or lines[0].startswith(_TOO_LONG)):
                lines[0] = _TOO_LONG
            whole = [is_whole(line) for line in lines]
            n_read = len(whole) - whole[::-1].index(True) if True in whole else 0
            is_end = len(piece) < most_bytes
            if n_read or is_end:
                break
            place = place.after(lines, whole)
            if len(rest) > self._longest_bytes:
                rest = _TOO_LONG
            most_bytes = max(most_bytes, len(rest))  # a long line is not copied once for each piece of it
            piece = self._bytes(offset, most_bytes)
            offset += len(piece)
        if n_read == 0:
            self.place = start._replace(is_foreign=start.offset == 0 and is_foreign(first))
            self.torn_bytes = offset - start.offset
            return Lines([], (), has_restarted, is_end=True)
        self.torn_bytes = len(rest) + sum(len(line) + 1 for line in lines[n_read:])
        del lines[n_read:], whole[n_read:]
        numbers = range(place.n_lines + 1, place.n_lines + 1 + n_read)
        self.place = place.after(lines, whole)._replace(
            offset=offset - self.torn_bytes, last_read=lines[-1][-CRC_BYTES:] + b"\n", is_foreign=False
        )
        if not all(whole):
            numbers, lines = list(compress(numbers, whole)), list(compress(lines, whole))
        return Lines(lines, numbers, has_restarted, is_end)

    def read_last(self, n: int) -> tuple[list[bytes], float]:
        """Read the last lines, at most n, from the end of the file, and go on behind them. Blocks.

        A few hundred bytes are read for each, at most 8 MiB, so there may be fewer. Damaged ones are skipped,
        and lines are not numbered: what is skipped from now on counts from here.

        Returns:
            The lines, and the share of the file that was read.

        Raises:
            RunBroken: The system refuses to read the file.
        """
        found = files.stat_of(self.path)
        size: int = 0 if found is None else found.st_size
        n_bytes = _ABOUT_A_LINE * n
        while True:
            start = max(0, size - n_bytes)
            *lines, rest = self._bytes(start, size - start).split(b"\n")
            del lines[: 1 if start else 0]  # it may be the end of a line
            whole = [is_whole(line) for line in lines]
            if sum(whole) >= n or start == 0 or n_bytes >= _LONGEST_BYTES:
                break
            n_bytes = min(4 * n_bytes, _LONGEST_BYTES)
        self.place, self.torn_bytes = Place(), size
        if True in whole:
            n_behind = whole[::-1].index(True)
            last = lines[len(lines) - 1 - n_behind]
            self.torn_bytes = len(rest) + sum(len(line) + 1 for line in lines[len(lines) - n_behind :])
            self.place = Place(size - self.torn_bytes, last_read=last[-CRC_BYTES:] + b"\n")
        return list(compress(lines, whole))[-n:], 1.0 if start == 0 else n_bytes / size

    def _bytes(self, start: int, most_bytes: int) -> bytes:
        try:
            return files.read_bytes(self.path, start, most_bytes)
        except FileNotFoundError:
            return b""


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
        self.has_restarted: bool = False
        """Whether the last read started again at the first row: rows that were read before it are void."""
        self._lines = LineReader(path, is_bounded=False)
        self._decoder = msgspec.json.Decoder(row_type)

    @property
    def torn_bytes(self) -> int:
        """Bytes behind the last whole row at the last read; the next append to the log sets them aside."""
        return self._lines.torn_bytes

    def read_new(self) -> list[Row]:
        """Read the whole rows that were appended since the last call, in file order. Blocks.

        Raises:
            RunBroken: Lines before the tail are damaged, or one is of another type; the message names them.
                Nothing is skipped: the next call starts at the same row.
        """
        return [row for _, row in self.read_new_lines()]

    def read_new_lines(self) -> list[tuple[bytes, Row]]:
        """Read the same rows, each with its line in the file."""
        before = self._lines.place
        try:
            found, has_restarted = self._read()
        except BaseException:
            self._lines.place = before
            raise
        self.has_restarted = has_restarted
        return found

    def _read(self) -> tuple[list[tuple[bytes, Row]], bool]:
        found, has_restarted, is_end = list[tuple[int, bytes]](), False, False
        while not is_end:
            lines, numbers, has_begun, is_end = self._lines.read_new()
            if has_begun:
                found, has_restarted = [], True
            found += zip(numbers, lines, strict=True)
        if problems := self._lines.place.problems:
            raise RunBroken(self.path, "; ".join(problems))
        return [(line, self._decoded(line, number)) for number, line in found], has_restarted

    def _decoded(self, line: bytes, number: int) -> Row:
        try:
            return self._decoder.decode(line)
        except UNREADABLE as error:
            raise RunBroken(self.path, words_for_line(number, error)) from error


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


_LONG = f"it is longer than {_LONGEST_BYTES >> 20} MiB"


def words_for_line(number: int, why: object) -> str:
    """What is wrong with one line, and what to do."""
    return f"line {number} is not a row ({why}); remove that line"


def _words_for(damaged: Sequence[int], n_damaged: int) -> str:
    if n_damaged == 1:
        return words_for_line(damaged[0], DAMAGED)
    more = f" and {n_damaged - len(damaged)} more" if n_damaged > len(damaged) else ""
    return f"lines {', '.join(map(str, damaged))}{more} are not rows ({DAMAGED}); remove those lines"
