"""Records as rows of JSON, for a log that somebody else keeps.

A session writes such rows to its run's ``metrics.jsonl`` by itself. This recorder is for those who have no
session, or a second place for the rows: it makes them and hands each to a function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from stoker.recorders.protocol import Outcome, RunContext
from stoker.recorders.values import Record, row_value

__all__ = ["JsonlRecorder", "row_of"]

logger = logging.getLogger("stoker.recorders")


def row_of(step: int, record: Record, time: datetime | None = None) -> dict[str, Any]:
    """A record as a row, with the fields of one in ``metrics.jsonl``.

    ::

        {"total_steps": 1000, "metrics": {"train/loss": 0.1}, "time": "2026-01-02T03:04:05Z"}

    It has the record's numbers and texts, and times as RFC 3339. Arrays, images and histograms are left
    out, and so are NaN and infinity, which JSON does not know: null would be a value of another kind.

    Args:
        step: environment steps.
        record: what was measured.
        time: when; None: now.
    """
    metrics = {key: found for key, value in record.items() if (found := row_value(value)) is not None}
    return {
        "total_steps": step,
        "metrics": metrics,
        "time": row_value(datetime.now(UTC) if time is None else time),
    }


class JsonlRecorder:
    """Hands each record to a function, as a row. Records without anything that a row can hold give none.

    A number that is not finite is warned of once per name.

    Args:
        append: takes a row, in the recorder's thread.
    """

    name = "jsonl"

    def __init__(self, append: Callable[[dict[str, Any]], object]) -> None:
        self._append = append
        self._warned: set[str] = set()

    def open(self, context: RunContext) -> None:
        """Nothing is needed."""

    def write(self, step: int, record: Record) -> None:
        """Hand the row on."""
        row = row_of(step, record)
        for key, value in record.items():
            if isinstance(value, float) and key not in row["metrics"] and key not in self._warned:
                self._warned.add(key)
                logger.warning(
                    "%s=%r at step %d: JSON has no such number: rows are without it where it is not finite",
                    key,
                    value,
                    step,
                )
        if row["metrics"]:
            self._append(row)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self, status: Outcome) -> None:
        """Nothing is open."""
