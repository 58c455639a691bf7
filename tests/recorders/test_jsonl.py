"""Rows: what is in them, what is left out, and what is told."""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from stoker.recorders import Histogram, JsonlRecorder, Record, row_of

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


def test_a_row_has_numbers_texts_and_times() -> None:
    record: Record = {
        "train/loss": 0.5,
        "n": 3,
        "note": "hi",
        "at": MOMENT,
        "nan": math.nan,
        "array": np.ones(2),
        "h": Histogram([1]),
    }
    row = row_of(1000, record, MOMENT)
    assert row == {
        "total_steps": 1000,
        "metrics": {"train/loss": 0.5, "n": 3, "note": "hi", "at": "2026-01-02T03:04:05.000600Z"},
        "time": "2026-01-02T03:04:05.000600Z",
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_number_that_is_not_finite_is_left_out_and_told_once_per_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows: list[dict[str, Any]] = []
    recorder = JsonlRecorder(rows.append)
    with caplog.at_level(logging.INFO, "stoker.recorders"):
        for step, value in enumerate([math.nan, 1.0, math.inf, -math.inf]):
            recorder.write(step, {"a": value, "b": value, "c": 1.0})
    assert [row["metrics"] for row in rows] == [
        {"c": 1.0},
        {"a": 1.0, "b": 1.0, "c": 1.0},
        {"c": 1.0},
        {"c": 1.0},
    ]
    assert [record.getMessage()[:5] for record in caplog.records] == ["a=nan", "b=nan"]


def test_a_record_without_anything_for_a_row_gives_none() -> None:
    rows: list[dict[str, Any]] = []
    JsonlRecorder(rows.append).write(1, {"h": Histogram([1, 2])})
    assert rows == []
