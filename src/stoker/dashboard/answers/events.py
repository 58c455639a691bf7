"""What happened to a run, in sentences."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from stoker.runs.events import Detail, EventRow
from stoker.runs.history import RunHistory

__all__ = ["Event", "EventsAnswer", "events_answer"]

Level: TypeAlias = Literal["info", "warning", "error"]

_LEVELS: dict[str, Level] = {
    "actor_failed": "error",
    "disk_full": "error",
    "stalled": "warning",
    "actor_silent": "warning",
    "actor_restarted": "warning",
    "inputs_refused": "warning",
    "events_suppressed": "warning",
}


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        time: POSIX seconds.
        attempt, total_steps, kind, details: as in ``events.jsonl``.
        sentence: the event in words.
        level: how much it matters.
    """

    time: float
    attempt: int
    total_steps: int
    kind: str
    sentence: str
    level: Level
    details: dict[str, Detail]


class EventsAnswer(msgspec.Struct, frozen=True):
    """A page of events.

    Attributes:
        n: all of that kind.
        events: those of the page.
    """

    n: int
    events: list[Event]


def events_answer(
    history: RunHistory, kind: str = "", page: int = 0, size: int = 100, *, is_descending: bool = True
) -> EventsAnswer:
    """A page of the events of a kind, or of all kinds.

    Args:
        history: the run.
        kind: "": all.
        page: its number, from 0.
        size: events on a page.
        is_descending: the newest first.
    """
    rows = [row for row in history.events if not kind or row.kind == kind]
    if is_descending:
        rows.reverse()
    return EventsAnswer(len(rows), [_event(row) for row in rows[page * size : (page + 1) * size]])


def _event(row: EventRow) -> Event:
    level = _LEVELS.get(row.kind, "info")
    if row.kind == "attempt_ended" and row.details.get("how") in ("failed", "killed"):
        level = "error"
    details: dict[str, Any] = row.details
    return Event(
        row.time.timestamp(), row.attempt, row.total_steps, row.kind, row.event.sentence, level, details
    )
