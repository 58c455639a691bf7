"""What happened to a run, in sentences."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from stoker.dashboard.answers.paging import Page
from stoker.runs.events import Detail, EventRow
from stoker.runs.history import RunHistory

__all__ = ["Event", "events_answer"]

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


def events_answer(
    history: RunHistory, kind: str = "", rows: slice = slice(100), *, is_descending: bool = True
) -> Page[Event]:
    """A page of the events of a kind, or of all kinds.

    Args:
        history: the run.
        kind: "": all.
        rows: those of the page.
        is_descending: the newest first.
    """
    found = [row for row in history.events if not kind or row.kind == kind]
    if is_descending:
        found.reverse()
    return Page(len(found), [_event(row) for row in found[rows]])


def _event(row: EventRow) -> Event:
    level = _LEVELS.get(row.kind, "info")
    if row.kind == "attempt_ended" and row.details.get("how") in ("failed", "killed"):
        level = "error"
    details: dict[str, Any] = row.details
    return Event(
        row.time.timestamp(), row.attempt, row.total_steps, row.kind, row.event.sentence, level, details
    )
