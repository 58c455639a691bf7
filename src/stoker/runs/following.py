"""Row files that are followed: each byte is read once, also while another process appends. Free of torch."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import msgspec

from stoker.errors import RunBroken
from stoker.runs.event_rows import EventRow
from stoker.writer import files
from stoker.writer.reading import PIECE_BYTES, LineReader, Lines, words_for_line
from stoker.writer.rows import UNREADABLE

_MOST_PROBLEMS = 20
_LEAST_BYTES = 1 << 16
_MOST_NEW_BYTES = 1 << 20
"""What a tail reads of new rows before it begins again at the end of the file."""
_MOST_TAILS = 16
_SETTLED_S = 2.0
"""A file that changed more recently may change again within the same tick of the disk's clock."""


class FollowedFile:
    """A row file of which only what is new is read.

    Damaged lines are skipped and named in ``problems``; a torn tail waits for its end. If the file is
    replaced or cut back, it is read again from its first row, and ``generation`` rises. Not for several
    threads at once.

    Args:
        path: the file; it need not exist yet.
        decoder: of its rows.
        is_bounded: whether lines of more than 8 MiB are skipped, too.
    """

    def __init__(self, path: Path, decoder: msgspec.json.Decoder[Any], *, is_bounded: bool = True) -> None:
        self.path = path
        self.generation: int = 0
        """Rises when the file is read anew: what was taken from it before is void."""
        self.n_rows: int = 0
        self.share_read: float = 0.0
        """How much of the file has been read, from 0 to 1."""
        self._decoder = decoder
        self._lines = LineReader(path, is_bounded=is_bounded)
        self._seen: tuple[int, ...] | None = None  # the file as it was when its end was read
        self._n_tail: int | None = None  # of how many rows the tail was read; None: all are read
        self._refused = ""
        self._problems: list[str] = []
        self._n_problems = 0

    def refresh(self, most_bytes: float = math.inf) -> bool:
        """Read the rows that have been appended, or about ``most_bytes`` of them. Blocks.

        Returns:
            Whether something changed: rows, problems or the generation. If there is more to read,
            ``share_read`` is below 1.
        """
        before = (self.generation, self.n_rows, self.problems)
        try:
            found = files.stat_of(self.path)
            seen = None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen is not None and seen == self._seen:
                return False
            self._refused, self._seen = "", None
            size = 0 if found is None else found.st_size
            is_whole = True
            if self._n_tail is None:
                is_whole = self._read(size, most_bytes)
            else:
                self._read_behind_tail(size, self._n_tail)
            if is_whole and found is not None and time.time() - found.st_mtime > _SETTLED_S:
                self._seen = seen
        except RunBroken as error:
            self._refuse(str(error).removeprefix(f"{error.path}: "))
        return before != (self.generation, self.n_rows, self.problems)

    def _read(self, size: int, most_bytes: float) -> bool:
        """Read up to that size of the file, or that many bytes; whether the end was reached."""
        is_end = False
        while not is_end and most_bytes > 0:
            start = self._lines.place.offset
            piece = self._lines.read_new(int(min(PIECE_BYTES, max(most_bytes, _LEAST_BYTES))))
            if piece.has_restarted:
                self._forget()
                start = 0
            self._keep(piece)
            offset = self._lines.place.offset
            most_bytes -= offset - start
            is_end = piece.is_end or offset >= size
            self.share_read = 1.0 if is_end else offset / size
        return is_end

    def read_tail(self, n: int) -> None:
        """Read the last n rows, or those in the last 8 MiB, instead of all. Blocks.

        ``refresh`` then reads the rows that follow, and forgets old ones where there are many more than n.
        """
        self._n_tail = n
        try:
            self._read_tail(n)
        except RunBroken as error:
            self._refuse(str(error).removeprefix(f"{error.path}: "))

    def _read_tail(self, n: int) -> None:
        if self.n_rows:
            self._forget()
        lines, share = self._lines.read_last(n)
        self._keep(Lines(lines, range(len(lines)), has_restarted=False, is_end=True))
        self.share_read = share

    def _read_behind_tail(self, size: int, n: int) -> None:
        """Read what has been appended; the tail again if that is much, or another file."""
        n_new = size - self._lines.place.offset
        if self._lines.place.offset and 0 <= n_new < _MOST_NEW_BYTES and self.n_rows < _MOST_TAILS * n:
            piece = self._lines.read_new(_MOST_NEW_BYTES)
            if not piece.has_restarted:
                self._keep(piece)
                return
        self._read_tail(n)

    def _keep(self, piece: Lines) -> None:
        if rows := self._rows_of(piece):
            self._take(rows)
            self.n_rows += len(rows)

    def _refuse(self, why: str) -> None:
        self._refused, self.share_read = why, 1.0  # there is nothing more to read

    def _forget(self) -> None:
        self._clear()
        self.generation += 1
        self.n_rows, self.share_read = 0, 0.0
        self._problems, self._n_problems = [], 0

    @abstractmethod
    def _take(self, rows: list[Any]) -> None:
        """Keep rows, which follow those that were taken before."""

    @abstractmethod
    def _clear(self) -> None:
        """Forget all rows."""

    def _rows_of(self, piece: Lines) -> list[Any]:
        try:
            return self._decoder.decode_lines(b"\n".join(piece.lines))
        except UNREADABLE:
            pass
        rows: list[Any] = []
        for number, line in zip(piece.numbers, piece.lines, strict=True):
            try:
                rows.append(self._decoder.decode(line))
            except UNREADABLE as error:
                self._n_problems += 1
                if len(self._problems) < _MOST_PROBLEMS:
                    self._problems.append(words_for_line(number, error))
        return rows

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file: why it cannot be read, or the lines that are no rows."""
        if not (self._refused or self._n_problems or self._lines.place.has_problems):
            return ()
        refused = (self._refused,) if self._refused else ()
        skipped = (*self._lines.place.problems, *self._problems)
        if self._n_tail is not None:  # lines are not numbered
            return (*refused, *(("some of the last lines are not rows",) if skipped else ()))
        n_more = self._n_problems - len(self._problems)
        more = (f"{n_more} more lines are not rows",) if n_more else ()
        return (*refused, *skipped, *more)


_EVENT_DECODER = msgspec.json.Decoder(EventRow)


class EventList(FollowedFile):
    """The events of a run, in the order in which they were recorded.

    Args:
        path: ``events.jsonl`` of the run; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _EVENT_DECODER)
        self.rows: list[EventRow] = []

    def _take(self, rows: list[Any]) -> None:
        self.rows.extend(rows)

    def _clear(self) -> None:
        self.rows = []
