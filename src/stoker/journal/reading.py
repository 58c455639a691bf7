"""The journal of a run: its events by number, over all attempts, without those of abandoned futures.

It reads the directory anew at each call and holds nothing open, so it may be asked while a session writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stoker.errors import JournalBroken
from stoker.journal.checking import JournalReport, check_segments
from stoker.journal.events import JournalEvent
from stoker.journal.history import Segment, Span, doomed_segments, effective_spans
from stoker.journal.scanning import SegmentReader, count_events, length_of, read_header
from stoker.journal.segments import SegmentHeader, parse_segment_name
from stoker.writer import files

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "journal"
"""The directory of a run's journal."""


class Journal:
    """Reads the segments below a directory. All its calls block.

    Args:
        directory: where they are; need not exist.
        starts: number and first event of each attempt of the run, in order.
    """

    def __init__(self, directory: Path, starts: Sequence[tuple[int, int]]) -> None:
        self.directory = directory
        self.starts = tuple(starts)

    def segments(self) -> list[Segment]:
        """All segments, also abandoned ones and those of unknown attempts, by attempt and event."""
        found: list[Segment] = []
        for name, size in files.sizes_in(self.directory).items():
            named = parse_segment_name(name)
            if named is not None:
                found.append(Segment(self.directory / name, *named, size))
        return sorted(found, key=lambda segment: (segment.attempt, segment.first_event))

    def read(self, first: int, last: int) -> Iterator[tuple[int, JournalEvent]]:
        """The events that count and are numbered ``first <= n < last``, with their numbers, in order.

        Raises:
            JournalBroken: One of them is damaged or missing; raised when all before it have been given.
        """
        at = first
        for span in effective_spans(self.segments(), self.starts):
            stop = min(span.stop, last)
            if at >= stop:
                continue
            if span.start > at:
                self._miss(at, min(span.start, last))
            reader = SegmentReader(span.segment.path)
            for number, event in enumerate(reader.events(), span.segment.first_event):
                if number >= stop:
                    break
                if number >= at:
                    at = number + 1
                    yield number, event
            if at < stop:
                problem = reader.damage or f"it ends at byte {reader.whole_bytes}"
                raise JournalBroken(
                    reader.path,
                    f"{problem}: events {at} to {stop - 1} cannot be read; put a whole copy of the file back "
                    "or go on from a checkpoint that does not need them",
                )
        if at < last:
            self._miss(at, last)

    def _miss(self, first: int, stop: int) -> None:
        raise JournalBroken(
            self.directory,
            f"the events {first} to {stop - 1} are missing; put their segment back or go on from a "
            "checkpoint that does not need them",
        )

    def first_event(self) -> int | None:
        """The lowest event that counts from which on the segments follow one another; None without any.

        Judged by names and headers: damage further on is found by ``read``.
        """
        first: int | None = None
        for span in reversed(effective_spans(self.segments(), self.starts)):
            if first is not None and span.stop != first:
                break
            if _header_of(span) is not None:
                first = span.start
            elif first is not None:
                break
        return first

    def leads_from(self, event: int) -> int | None:
        """The lowest event from which on the segments follow one another up to, not including, ``event``.

        Judged by names and headers. Only where no segment of the same attempt tells where one ends, its
        events are counted: a journal that was switched off for an attempt leaves such a hole. A file lost
        from the middle of an attempt is found by ``read``.

        Returns:
            None where the event before ``event`` is in no segment.
        """
        first: int | None = None
        reached = event
        for span in reversed(effective_spans(self.segments(), self.starts)):
            if span.start >= reached:
                continue
            if span.stop < reached or not _reaches(span, reached):
                break
            first = reached = span.start
        return first

    def parts(self, first: int, last: int) -> list[tuple[Path, int | None]]:
        """The segments that the events ``first <= n < last`` are read from, and how much of each.

        Returns:
            Path, and length in bytes where the segment goes on behind ``last``; else None: all of it.

        Raises:
            JournalBroken: The file that must be cut is missing or cannot be read.
        """
        parts: list[tuple[Path, int | None]] = []
        for span in effective_spans(self.segments(), self.starts):
            if max(span.start, first) < min(span.stop, last):
                path, goes_on = span.segment.path, span.stop > last
                parts.append((path, length_of(path, last - span.segment.first_event) if goes_on else None))
        return parts

    def n_events(self) -> int:
        """One past the highest event that counts and can be read; 0 without any."""
        for span in reversed(effective_spans(self.segments(), self.starts)):
            reader = SegmentReader(span.segment.path)
            end = span.segment.first_event + sum(1 for _ in reader.events())
            if reader.header is not None:
                return max(span.start, min(end, span.stop))
        return 0

    def headers(self) -> list[tuple[Path, SegmentHeader]]:
        """The segments that events count of and their headers, in the order of the events.

        Those whose header cannot be read are left out: nothing can be read from them.
        """
        spans = effective_spans(self.segments(), self.starts)
        return [(span.segment.path, header) for span in spans if (header := _header_of(span)) is not None]

    def doomed(self, needed: int) -> list[Path]:
        """The segments that may be removed when only events from ``needed`` on are wanted, oldest first.

        Never the newest one of the newest attempt.
        """
        return [segment.path for segment in doomed_segments(self.segments(), self.starts, needed)]

    def check(self, positions: Collection[int] = ()) -> JournalReport:
        """Read everything, abandoned futures too; damage is reported, never raised.

        Args:
            positions: event numbers to tell the environment steps before them of.
        """
        return check_segments(self.segments(), self.starts, positions)


def _reaches(span: Span, event: int) -> bool:
    """Whether a segment can be read and holds what is before that event, which is in its span."""
    path = span.segment.path
    try:
        if read_header(path) is None:
            return False
        return span.is_followed or span.segment.first_event + count_events(path) >= event
    except JournalBroken:
        return False


def _header_of(span: Span) -> SegmentHeader | None:
    try:
        return read_header(span.segment.path)
    except JournalBroken:
        return None
