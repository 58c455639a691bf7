"""What the events of a run say in the end: which attempts were killed, and where workers were last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from stoker.runs.event_rows import EventRow
from stoker.runs.events import WorkersChanged


def killed_attempts(rows: Sequence[EventRow]) -> list[EventRow]:
    """The last rows of the attempts that began and recorded no end, in their order."""
    last: dict[int, EventRow] = {}
    for row in rows:
        if row.kind == "attempt_began" or row.attempt in last:
            last[row.attempt] = row
        if row.kind == "attempt_ended":
            last.pop(row.attempt, None)
    return [last[attempt] for attempt in sorted(last)]


def workers_by_node(rows: Sequence[EventRow]) -> list[WorkersChanged]:
    """How the workers on each node were last, in the newest attempt; empty: it has none."""
    last: dict[str, WorkersChanged] = {}
    newest = rows[-1].attempt if rows else 0
    for row in rows:
        if row.kind == "workers_changed" and row.attempt == newest:
            event = cast("WorkersChanged", row.event)
            last[event.node] = event
    return [event for event in last.values() if event.node or event.waiting]
