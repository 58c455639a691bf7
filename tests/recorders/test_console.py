"""The boxed table: groups, order, widths."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pytest

from stoker.errors import ConfigError
from stoker.recorders import ConsoleRecorder, Histogram, Image, Record, RunContext

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


@pytest.mark.parametrize("width", [24, 40, 100])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    record: Record = {
        "a/" + "long" * 30: 1.0,
        "a/text": "word " * 100,
        "b": Histogram([1, 2, 3]),
        "c": np.ones((3, 4)),
        "d": Image(np.zeros((2, 3), np.uint8)),
        "e": datetime(2026, 1, 2, tzinfo=UTC),
        "f": Histogram([]),
    }
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
