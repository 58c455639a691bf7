"""The boxed table: groups, order, widths. Rows: their fields, and the log message of what is left out."""

from __future__ import annotations

import io
import json
import logging
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from stoker.errors import ConfigError
from stoker.recorders import (
    ConsoleRecorder,
    Histogram,
    Image,
    JsonlRecorder,
    Record,
    RunContext,
)

TABLE = """\
-----------------------------------
| epoch               | 3         |
| note                | two lines |
| rollout/            |           |
|     ep_rew_mean     | 23.4      |
| time/               |           |
|     fps             | 1873      |
|     total_timesteps | 4096      |
| train/              |           |
|     loss            | nan       |
|     tiny            | 1.23e-05  |
-----------------------------------
"""

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


def written(record: Record, width: int | None = 80) -> str:
    stream = io.StringIO()
    recorder = ConsoleRecorder(stream, width=width)
    recorder.open(RunContext(name="x"))
    recorder.write(4096, record)
    recorder.flush()
    recorder.close("finished")
    return stream.getvalue()


def test_values_stand_in_their_groups() -> None:
    record: Record = {
        "train/loss": float("nan"),
        "rollout/ep_rew_mean": 23.44,
        "time/fps": 1873.2,
        "train/tiny": 0.0000123,
        "epoch": 3,
        "note": "two\nlines",
    }
    assert written(record) == TABLE


def test_the_records_own_step_is_kept() -> None:
    assert "| 7 |" in written({"time/total_timesteps": 7})
    assert "4096" not in written({"time/total_timesteps": 7})


def test_no_line_is_wider_than_asked_for() -> None:
    record: Record = {
        "a/" + "long" * 30: 1.0,
        "a/text": "word " * 100,
        "b": Histogram([1, 2, 3]),
        "c": np.ones((3, 4)),
        "d": Image(np.zeros((2, 3), np.uint8)),
        "e": datetime(2026, 1, 2, tzinfo=UTC),
        "f": Histogram([]),
    }
    for width in (24, 40, 100):
        lines = written(record, width).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len(lines[0]) <= width


def test_a_width_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="width=10"):
        ConsoleRecorder(width=10)


def test_standard_output_is_looked_up_when_it_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = ConsoleRecorder()
    recorder.write(1, {"a": 1.0})
    recorder.flush()
    assert "| a " in capsys.readouterr().out


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
    rows: list[dict[str, Any]] = []
    JsonlRecorder(rows.append).write(1000, record)
    (row,) = rows
    assert row["total_steps"] == 1000
    assert row["metrics"] == {"train/loss": 0.5, "n": 3, "note": "hi", "at": "2026-01-02T03:04:05.000600Z"}
    assert datetime.fromisoformat(row["time"]).tzinfo is not None
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_number_that_is_not_finite_is_left_out_and_logged_once_per_name(
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
