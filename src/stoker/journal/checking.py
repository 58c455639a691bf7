"""Whether a journal is sound: one pass over every byte of it that reports damage instead of raising it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise, zip_longest

import msgspec

from stoker.errors import JournalBroken, RunBroken
from stoker.journal.history import FOREVER, Segment, Span, effective_spans
from stoker.journal.scanning import SegmentReader
from stoker.types import Experience

__all__ = ["JournalReport", "check_segments"]


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What reading all of a journal found.

    Attributes:
        n_segments: files of it.
        first_event: the lowest event that counts, or None.
        end_event: one past the highest that counts and can be read.
        n_events, n_experiences: how many count and can be read.
        torn_bytes: in the tails that killed writers left; no damage.
        problems: damaged, missing and contradictory places, in words; none in a sound journal.
        experiences_before: for the positions asked for, the environment steps before that event, counted on
            from the ``total_steps`` of its segment's header; a position that cannot be read up to is absent.
    """

    n_segments: int
    first_event: int | None
    end_event: int
    n_events: int
    n_experiences: int
    torn_bytes: int
    problems: tuple[str, ...]
    experiences_before: dict[int, int]


def check_segments(
    segments: Sequence[Segment], starts: Sequence[tuple[int, int]], positions: Collection[int] = ()
) -> JournalReport:
    """Read all these segments, abandoned ones too.

    Args:
        segments: by attempt and event, which is the order of the events as far as they count.
        starts: number and first event of each attempt, in order.
        positions: event numbers to tell the environment steps before them of.
    """
    spans = effective_spans(segments, starts)
    span_of = {span.segment.path: span for span in spans}
    attempts = {attempt for attempt, _ in starts}
    check = _Check(frozenset(positions))
    for segment, following in zip_longest(segments, segments[1:]):
        end = check.read(segment, span_of.get(segment.path))
        if following is not None and following.attempt == segment.attempt and end > following.first_event:
            check.tell(segment, f"goes on to event {end - 1}, but {following.path.name} begins before that")
        if segment.attempt not in attempts:
            check.tell(segment, f"is of attempt {segment.attempt}, which the run does not know of")
    for before, after in pairwise(spans):
        if before.stop < after.start:
            check.tell(after.segment, f"begins at event {after.start}: those from {before.stop} are missing")
    return JournalReport(
        n_segments=len(segments),
        first_event=check.first_event,
        end_event=check.end_event,
        n_events=check.n_events,
        n_experiences=check.n_experiences,
        torn_bytes=check.torn_bytes,
        problems=tuple(check.problems),
        experiences_before=check.steps_before,
    )


class _Check:
    """What the segments that were read so far come to."""

    def __init__(self, wanted: frozenset[int]) -> None:
        self._wanted = wanted
        self._steps_at: tuple[int, int] | None = None  # the event behind the last span, the steps before it
        self.first_event: int | None = None
        self.end_event = self.n_events = self.n_experiences = self.torn_bytes = 0
        self.steps_before: dict[int, int] = {}
        self.problems: list[str] = []

    def tell(self, segment: Segment, problem: str) -> None:
        self.problems.append(f"{segment.path.name} {problem}")

    def read(self, segment: Segment, span: Span | None) -> int:
        """Read one segment, of which the events in the span count; where it ends."""
        reader = SegmentReader(segment.path)
        start, stop = (span.start, span.stop) if span else (FOREVER, FOREVER)
        number = segment.first_event
        experiences = 0  # in this segment, before ``number``
        marks: dict[int, int] = {}
        try:
            for event in reader.events():
                is_experience = type(event) is Experience
                if number == stop or number in self._wanted:
                    marks[number] = experiences
                if start <= number < stop:
                    self.n_events += 1
                    self.n_experiences += is_experience
                experiences += is_experience
                number += 1
        except (JournalBroken, RunBroken) as error:
            self.problems.append(str(error))
        marks[number] = experiences
        self.torn_bytes += reader.torn_bytes
        if reader.damage is not None:
            self.tell(segment, f"is damaged: {reader.damage}")
        elif reader.header is not None and span is not None and number < stop != FOREVER:
            self.tell(segment, f"ends before event {number}: those up to {stop - 1} are missing")
        if reader.header is not None and span is not None:
            self._place(segment, span, number, reader.header.total_steps, marks)
        return number

    def _place(self, segment: Segment, span: Span, end: int, steps: int, marks: dict[int, int]) -> None:
        """Tie the counts in a segment to the whole run's."""
        if self._steps_at is not None and self._steps_at[0] == segment.first_event:
            counted = self._steps_at[1]
            if counted != steps:
                self.tell(segment, f"says that {steps} steps came before it, where {counted} did")
        if self.first_event is None:
            self.first_event = span.start
        self.end_event = max(span.start, min(end, span.stop))
        if self.end_event in marks:
            self._steps_at = (self.end_event, steps + marks[self.end_event])
        for number, experiences in marks.items():
            if number in self._wanted and span.start <= number <= span.stop:
                self.steps_before.setdefault(number, steps + experiences)
