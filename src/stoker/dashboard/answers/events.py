"""What happened to a run, in sentences."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final, get_args

import msgspec

from stoker.dashboard.answers.paging import Page
from stoker.runs.event_rows import Detail, EventRow
from stoker.runs.events import Level
from stoker.runs.history import RunHistory

LEVELS: Final[tuple[Level, ...]] = get_args(Level)
_LAST_WORDS = 5


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
    history: RunHistory,
    kind: str = "",
    rows: slice = slice(100),
    *,
    level: Level = "info",
    is_descending: bool = True,
) -> Page[Event]:
    """A page of the events of a kind, or of all kinds.

    Args:
        history: the run.
        kind: "": all.
        rows: those of the page.
        level: those that matter so much, or more.
        is_descending: the newest first.
    """
    found = [row for row in history.events if (not kind or row.kind == kind) and _is_at(level, row)]
    if is_descending:
        found.reverse()
    return Page(len(found), [_event(row) for row in found[rows]])


def last_words(history: RunHistory) -> list[Event]:
    """The last warnings and errors of the newest attempt, the newest last."""
    if history.metadata is None:
        return []
    attempt = history.metadata.attempts[-1].number
    newest = (row for row in reversed(history.events) if row.attempt == attempt and _is_at("warning", row))
    return [_event(row) for row in islice(newest, _LAST_WORDS)][::-1]


def _is_at(level: Level, row: EventRow) -> bool:
    return LEVELS.index(row.importance) >= LEVELS.index(level)


def _event(row: EventRow) -> Event:
    details: dict[str, Any] = row.details
    return Event(
        row.time.timestamp(),
        row.attempt,
        row.total_steps,
        row.kind,
        row.event.sentence,
        row.importance,
        details,
    )
