"""The learner's side of the journal: which events are in it, in which segment, and from where to rebuild.

The learner notes every event here before the agent gets it; the bytes go to the writer with the other
effects, in order. A segment begins with the point from which the agent's replay can be rebuilt, so that
segments that are no longer needed can be removed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stoker.journal import JournalEvent, SegmentEncoder, SegmentHeader
from stoker.session.config import LearningPeriods
from stoker.writer import AppendLog

__all__ = ["EventJournal"]


class EventJournal:
    """Encodes events into segments.

    Args:
        open_segment: gives the file for the events from that number on.
        attempt: the number of the present attempt.
        periods: when the agent learns, for those who replay the journal.
        segment_bytes: size at which a segment is closed.
        rebuild_point: what a segment begins with; None: the agent's replay cannot be rebuilt.
        points: the points of earlier segments, as ``(first_event, n_added)``, ascending.
    """

    def __init__(
        self,
        open_segment: Callable[[int], AppendLog],
        *,
        attempt: int,
        periods: LearningPeriods,
        segment_bytes: int,
        rebuild_point: Callable[[], Mapping[str, Any]] | None,
        points: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._open_segment = open_segment
        self._attempt = attempt
        self._periods = periods
        self._segment_bytes = segment_bytes
        self._rebuild_point = rebuild_point
        self._points = list(points)
        self._encoder = SegmentEncoder()
        self._log: AppendLog | None = None
        self._size = 0
        self._buffer = bytearray()
        self._written: list[tuple[AppendLog, bytes | None]] = []

    def note(self, events: Sequence[JournalEvent], n_events: int, total_steps: int) -> None:
        """Encode events, which the agent gets next.

        Args:
            events: in the order in which it gets them.
            n_events: how many events came before them, over all attempts.
            total_steps: environment steps consumed before them.

        Raises:
            ConfigError: One of them holds what a journal cannot.
        """
        if self._log is None or self._size + len(self._buffer) >= self._segment_bytes:
            self._begin_segment(n_events, total_steps)
        self._buffer += self._encoder.encode_all(events)

    def take(self) -> list[tuple[AppendLog, bytes | None]]:
        """What is to be written since the last call, in order; None for bytes: the segment is complete."""
        self._hand_over()
        written, self._written = self._written, []
        return written

    def rebuild_from(self, n_added: int) -> int | None:
        """The first event of the newest segment that holds all transitions behind the first ``n_added``.

        None where there is no such segment any more, or never was. Older points are forgotten.
        """
        usable = [point for point in self._points if point[1] <= n_added]
        if not usable:
            return None
        self._points = self._points[len(usable) - 1 :]
        return usable[-1][0]

    def _begin_segment(self, n_events: int, total_steps: int) -> None:
        if self._log is not None:
            self._hand_over()
            self._written.append((self._log, None))
        point = None if self._rebuild_point is None else dict(self._rebuild_point())
        if point is not None:
            self._points.append((n_events, int(point["n_added"])))
        header = SegmentHeader(
            attempt=self._attempt,
            first_event=n_events,
            total_steps=total_steps,
            opt_interval=self._periods.opt_interval,
            warmup_period=self._periods.warmup_period,
            max_opts=self._periods.max_opts,
            rebuild=point,
        )
        self._log = self._open_segment(n_events)
        self._size = 0
        self._buffer += self._encoder.begin(header)

    def _hand_over(self) -> None:
        if self._buffer and self._log is not None:
            self._size += len(self._buffer)
            self._written.append((self._log, bytes(self._buffer)))
            self._buffer.clear()
