"""The journal of a run: its events by number, over all attempts, without those of abandoned futures.

An attempt begins at an event, nearly always the end of those before it; what earlier attempts wrote at or
beyond it belongs to an abandoned future and does not count. The directory is read anew at each call and
nothing is kept open, so a journal may be read while a session writes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from typing import TypeVar

import msgspec

from stoker.errors import JournalBroken, RunBroken
from stoker.journal.events import JournalEvent, n_events_in
from stoker.journal.header import SegmentHeader
from stoker.journal.segments import SegmentReader, parse_segment_name
from stoker.writer import files

T = TypeVar("T")

JOURNAL = "journal"
"""The directory of a run's journal."""
_FOREVER = 1 << 62
"""Where the span of the segment that is being written ends."""


class Segment(msgspec.Struct, frozen=True):
    """One file of the journal; ``attempt`` and ``first_event`` are those of its name."""

    path: Path
    attempt: int
    first_event: int


class JournalReport(msgspec.Struct, kw_only=True):
    """What reading all of a journal found.

    Attributes:
        torn_bytes: in the tails that killed writers left; this is not damage.
        problems: the file of each damaged, missing or contradictory place, and what is wrong there; none in a
            sound journal.
        steps_before: for the positions asked for, the training's steps before that event, counted on from the
            ``total_steps`` of its segment's header; a position that cannot be read up to is absent.
    """

    torn_bytes: int = 0
    problems: list[tuple[Path, str]] = []
    steps_before: dict[int, int] = {}


class Journal:
    """Reads the segments below a directory. All its calls block.

    Args:
        directory: where they are; need not exist.
        starts: number and first event of each attempt of the run, in order.
    """

    def __init__(self, directory: Path, starts: Sequence[tuple[int, int]]) -> None:
        self.directory = directory
        self.starts: tuple[tuple[int, int], ...] = tuple(starts)

    def segments(self) -> list[Segment]:
        """All segments, also abandoned ones and those of unknown attempts, by attempt and event."""
        named = {name: parse_segment_name(name) for name in files.files_in(self.directory)}
        found = [Segment(self.directory / name, *numbers) for name, numbers in named.items() if numbers]
        return sorted(found, key=lambda segment: (segment.attempt, segment.first_event))

    def read(self, first: int, last: int | None = None) -> Iterator[tuple[int, JournalEvent]]:
        """The events that count and are numbered ``first <= n < last``, with their numbers, in order.

        Without ``last``, all from ``first`` on that are there; a torn tail behind them is no damage.

        Raises:
            JournalBroken: One of them is damaged or missing; raised when all before it have been given.
        """
        yield from self.through(first, last, _numbered)

    def through(
        self,
        first: int,
        last: int | None,
        items: Callable[[SegmentReader, int, int], Iterator[tuple[int, T]]],
    ) -> Iterator[T]:
        """What a function makes of the segments with events that count, numbered ``first <= n < last``.

        Args:
            first: as for ``read``.
            last: as for ``read``.
            items: takes a segment, and which of its events are wanted, from the first place up to, not
                including, the second one. It gives items, each with how many events of the segment it has
                then come through.

        Raises:
            JournalBroken: As for ``read``.
        """
        at, end = first, _FOREVER if last is None else last
        for span in self._counting():
            stop = min(span.stop, end)
            if at >= stop:
                continue
            if span.start > at:
                raise self._missing(at, min(span.start, end))
            reader, first_event = SegmentReader(span.segment.path), span.segment.first_event
            for n_events, item in items(reader, at - first_event, stop - first_event):
                at = max(at, first_event + n_events)
                yield item
            if at < stop and (stop < _FOREVER or reader.damage is not None):
                problem = reader.damage or f"it ends at byte {reader.whole_bytes}"
                those = f"events {at} to {stop - 1}" if stop < _FOREVER else f"the events from {at} on"
                raise JournalBroken(
                    reader.path,
                    f"{problem}: {those} cannot be read; put a whole copy of the file back "
                    "or continue from a checkpoint that does not need them",
                )
        if last is not None and at < last:
            raise self._missing(at, last)

    def _missing(self, first: int, stop: int) -> JournalBroken:
        return JournalBroken(
            self.directory,
            f"the events {first} to {stop - 1} are missing; put their segment back or continue from "
            "a checkpoint that does not need them",
        )

    def leads_from(self, event: int) -> int | None:
        """The lowest event from which on the segments follow one another up to, not including, ``event``.

        Judged by names and headers. Only if no segment of the same attempt follows, its
        events are counted: a journal that was switched off for an attempt leaves such a hole. A file lost
        from the middle of an attempt is found by ``read``.

        Returns:
            None if the event before ``event`` is in no segment.
        """
        first: int | None = None
        reached = event
        for span in reversed(self._counting()):
            if span.start >= reached:
                continue
            if span.stop < reached or not span.reaches(reached):
                break
            first = reached = span.start
        return first

    def parts(self, first: int, last: int) -> list[tuple[Path, int | None]]:
        """The segments that the events ``first <= n < last`` are read from, and how much of each.

        Returns:
            Path, and length in bytes if the segment continues behind ``last``; else None: all of it.

        Raises:
            JournalBroken: The file that must be cut is missing or cannot be read.
        """
        parts: list[tuple[Path, int | None]] = []
        for span in self._counting():
            if max(span.start, first) < min(span.stop, last):
                reader, length = SegmentReader(span.segment.path), None
                if span.stop > last:
                    n_wanted = last - span.segment.first_event
                    n_there = 0
                    for record in reader.records():
                        n_there += n_events_in(record)
                        if n_there >= n_wanted:
                            break
                    length = reader.whole_bytes if n_there == n_wanted else None
                parts.append((reader.path, length))
        return parts

    def last_first(self) -> Iterator[tuple[SegmentReader, int]]:
        """The segments with events that count, the last one first, and the place in each where these end."""
        for span in reversed(self._counting()):
            yield SegmentReader(span.segment.path), span.stop - span.segment.first_event

    def end(self) -> tuple[int, int]:
        """One past the highest event that counts and can be read, and the training's steps before it."""
        for span in reversed(self._counting()):
            reader = SegmentReader(span.segment.path)
            number, n_steps = span.segment.first_event, 0
            for event in islice(reader.events(), span.stop - number):
                number += 1
                n_steps += 0 if reader.header is None else reader.header.steps_of(event)
            if reader.header is not None:
                return max(span.start, number), reader.header.total_steps + n_steps
        return 0, 0

    def n_events(self) -> int:
        """One past the highest event that counts and can be read; 0 without any."""
        return self.end()[0]

    def n_behind(self, event: int) -> int:
        """How many events that count are there from a number on, at least, those behind damage included."""
        n_events = 0
        for span in self._counting():
            start = max(span.start, event)
            if span.stop < _FOREVER:
                n_events += max(0, span.stop - start)
                continue
            reader = SegmentReader(span.segment.path)
            with contextlib.suppress(JournalBroken, msgspec.DecodeError):
                whole = sum(map(n_events_in, reader.records()))
                n_events += max(0, span.segment.first_event + whole - start) + reader.n_behind
        return n_events

    def headers(self) -> list[SegmentHeader]:
        """The headers of the segments whose events count, in the order of the events.

        Headers that cannot be read are left out: nothing can be read from their segments.
        """
        readers = [SegmentReader(span.segment.path) for span in self._counting()]
        return [header for reader in readers if (header := reader.read_header()) is not None]

    def doomed(self, needed: int) -> list[Path]:
        """The segments that may be removed when only events from ``needed`` on are wanted, oldest first.

        A segment that lies wholly in an abandoned future may be if it begins below ``needed``; the newest
        segment of the newest attempt and segments of unknown attempts never may.
        """
        spans = _spans(self.segments(), self.starts)
        if spans and spans[-1].segment.attempt == self.starts[-1][0]:
            del spans[-1]
        return [
            span.segment.path
            for span in spans
            if (span.stop <= needed if span.start < span.stop else span.segment.first_event < needed)
        ]

    def check(self, positions: Collection[int] = ()) -> JournalReport:
        """Read everything, abandoned futures too; damage is reported, never raised.

        Args:
            positions: event numbers for which to report the environment steps before them.
        """
        segments = self.segments()
        spans = [span for span in _spans(segments, self.starts) if span.start < span.stop]
        span_of = {span.segment.path: span for span in spans}
        attempts = {attempt for attempt, _ in self.starts}
        report = JournalReport()
        counted: tuple[int, int] | None = None  # the event behind the last span, and the steps before it
        for segment, following in zip_longest(segments, segments[1:]):
            path, first, span = segment.path, segment.first_event, span_of.get(segment.path)
            reader = SegmentReader(path)
            stepped = [0]  # in this segment, before each of its events and behind the last one
            found: list[str] = []
            try:
                for event in reader.events():
                    n_steps = 0 if reader.header is None else reader.header.steps_of(event)
                    stepped.append(stepped[-1] + n_steps)
            except (JournalBroken, RunBroken) as error:
                found.append(str(error).removeprefix(f"{path}: "))
            end = first + len(stepped) - 1
            report.torn_bytes += reader.torn_bytes
            if reader.damage is not None:
                found.append(f"is damaged: {reader.damage}")
            elif reader.header is not None and span is not None and end < span.stop != _FOREVER:
                found.append(f"ends before event {end}: those up to {span.stop - 1} are missing")
            if reader.header is not None and span is not None:
                steps = reader.header.total_steps
                if counted is not None and counted[0] == first and counted[1] != steps:
                    found.append(f"says that {steps} steps came before it, but {counted[1]} did")
                reached = min(end, span.stop)
                if reached >= span.start:
                    counted = reached, steps + stepped[reached - first]
                for number in positions:
                    if span.start <= number <= reached:
                        before = steps + stepped[number - first]
                        report.steps_before.setdefault(number, before)
            if following is not None and following.attempt == segment.attempt and end > following.first_event:
                found.append(f"continues to event {end - 1}, but {following.path.name} begins before that")
            if segment.attempt not in attempts:
                found.append(f"is of attempt {segment.attempt}, which the run does not know")
            report.problems += [(path, problem) for problem in found]
        for before, after in pairwise(spans):
            if before.stop < after.start:
                missing = f"begins at event {after.start}: those from {before.stop} are missing"
                report.problems.append((after.segment.path, missing))
        return report

    def _counting(self) -> list[_Span]:
        """The segments that events count of, with which ones, in the order of the events."""
        return [span for span in _spans(self.segments(), self.starts) if span.start < span.stop]


def _numbered(reader: SegmentReader, skip: int, stop: int) -> Iterator[tuple[int, tuple[int, JournalEvent]]]:
    """The events of a segment, with their numbers."""
    _, first_event = parse_segment_name(reader.path.name) or (0, 0)
    for place, event in islice(enumerate(reader.events()), skip, stop):
        yield place + 1, (first_event + place, event)


class _Span(msgspec.Struct, frozen=True):
    """A segment and the events of it that count: those numbered ``start <= n < stop``.

    ``is_followed``: its attempt began another segment behind it, so it reaches that one.
    """

    segment: Segment
    start: int
    stop: int
    is_followed: bool

    def reaches(self, event: int) -> bool:
        """Whether the segment can be read and holds the event before this one."""
        reader = SegmentReader(self.segment.path)
        if self.is_followed:
            return reader.read_header() is not None
        try:
            n_events = sum(map(n_events_in, reader.records()))
        except (JournalBroken, msgspec.DecodeError):
            return False
        return reader.header is not None and self.segment.first_event + n_events >= event


def _spans(segments: Iterable[Segment], starts: Sequence[tuple[int, int]]) -> list[_Span]:
    """One for each segment of a known attempt, by attempt and event; empty ones have ``start >= stop``."""
    limits: dict[int, tuple[int, int]] = {}
    cut = _FOREVER  # the lowest event that any later attempt went back to
    for attempt, from_event in reversed(starts):
        limits[attempt] = from_event, cut
        cut = min(cut, from_event)
    known = [segment for segment in segments if segment.attempt in limits]
    spans: list[_Span] = []
    for segment, following in zip_longest(known, known[1:]):
        from_event, stop = limits[segment.attempt]
        is_followed = False
        if following is not None and following.attempt == segment.attempt:
            is_followed, stop = True, min(stop, following.first_event)
        spans.append(_Span(segment, max(segment.first_event, from_event), stop, is_followed))
    return spans
