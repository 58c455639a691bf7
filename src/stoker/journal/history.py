"""Which events count: the segments of all attempts, and the stretch of the run that each is in charge of.

An attempt goes on from a checkpoint; what earlier attempts wrote at or beyond that event belongs to an
abandoned future. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

__all__ = ["FOREVER", "Segment", "Span", "doomed_segments", "effective_spans"]

FOREVER = 1 << 62
"""Where the stretch of the segment that is being written ends."""


class Segment(msgspec.Struct, frozen=True):
    """One file of the journal; ``attempt`` and ``first_event`` as its name says, its size in bytes."""

    path: Path
    attempt: int
    first_event: int
    size: int


class Span(msgspec.Struct, frozen=True):
    """A segment and the events that are read from it: those numbered ``start <= n < stop``.

    ``is_followed``: its attempt began another segment behind it, which it therefore reaches.
    """

    segment: Segment
    start: int
    stop: int
    is_followed: bool


def effective_spans(segments: Iterable[Segment], starts: Sequence[tuple[int, int]]) -> list[Span]:
    """The segments that events count of, with which ones, in the order of the events.

    Args:
        segments: of all attempts; those of an attempt that is not in ``starts`` do not count.
        starts: number and first event of each attempt, in order.
    """
    return [span for span in _spans(segments, starts) if span.start < span.stop]


def doomed_segments(
    segments: Iterable[Segment], starts: Sequence[tuple[int, int]], needed: int
) -> list[Segment]:
    """The segments without any event that counts and is numbered ``needed`` or higher, oldest first.

    One that lies wholly in an abandoned future is given up when it begins below ``needed``. The newest
    segment of the newest attempt never is, nor one of an attempt that is not in ``starts``.
    """
    spans = _spans(segments, starts)
    newest = spans[-1].segment if spans and spans[-1].segment.attempt == starts[-1][0] else None
    return [
        span.segment
        for span in spans
        if span.segment is not newest
        and (span.stop <= needed if span.start < span.stop else span.segment.first_event < needed)
    ]


def _spans(segments: Iterable[Segment], starts: Sequence[tuple[int, int]]) -> list[Span]:
    """One for each segment of a known attempt, by attempt and event; empty ones have ``start >= stop``."""
    by_attempt: dict[int, list[Segment]] = {attempt: [] for attempt, _ in starts}
    for segment in segments:
        if segment.attempt in by_attempt:
            by_attempt[segment.attempt].append(segment)
    spans: list[Span] = []
    cut = FOREVER  # the lowest event that any later attempt went back to
    for attempt, from_event in reversed(starts):
        following = FOREVER
        for segment in sorted(by_attempt[attempt], key=lambda segment: segment.first_event, reverse=True):
            start, stop = max(segment.first_event, from_event), min(following, cut)
            spans.append(Span(segment, start, stop, following < FOREVER))
            following = segment.first_event
        cut = min(cut, from_event)
    return spans[::-1]
