"""Records as text: the boxed table of Stable-Baselines3 on a stream, or rows of JSON for a function."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

import numpy as np

from stoker.errors import ConfigError
from stoker.recorders.protocol import BaseRecorder
from stoker.recorders.values import Histogram, Image, Record, Value, finite_values, row_value

_logger = logging.getLogger("stoker.recorders")

_INDENT = "    "
_NARROWEST = 24
_STEPS = "time/total_timesteps"


class ConsoleRecorder(BaseRecorder):
    """Writes each record as a table, its names in groups.

    ::

        ----------------------------------
        | rollout/            |          |
        |    ep_rew_mean      | 23.4     |
        | time/               |          |
        |    total_timesteps  | 1000     |
        ----------------------------------

    Args:
        stream: the destination; None: standard output at the time of writing.
        width: the most columns of a line; None: those of the terminal, or 80 without one.

    Raises:
        ConfigError: The width leaves no room for a table.
    """

    name = "console"

    def __init__(self, stream: TextIO | None = None, *, width: int | None = None) -> None:
        super().__init__()
        if width is not None and width < _NARROWEST:
            raise ConfigError(f"width={width!r}: a table needs at least {_NARROWEST} columns")
        self._stream = stream
        self._width = width

    def write(self, step: int, record: Record) -> None:
        """Write the table, with one call."""
        width = shutil.get_terminal_size().columns if self._width is None else self._width
        stream = sys.stdout if self._stream is None else self._stream
        stream.write(_table(step, record, max(width, _NARROWEST)))

    def flush(self) -> None:
        """Flush the stream, which ``close`` leaves open."""
        (sys.stdout if self._stream is None else self._stream).flush()


class JsonlRecorder(BaseRecorder):
    """Hands each record with values for a row to a function.

    ::

        {"total_steps": 1000, "metrics": {"train/loss": 0.1}, "time": "2026-01-02T03:04:05Z"}

    A session writes such rows to the run's ``metrics.jsonl``; this recorder is for a second place, or where
    there is no session. A number that is not finite is logged, once per name.

    Args:
        append: takes a row, in the recorder's thread.
    """

    name = "jsonl"

    def __init__(self, append: Callable[[dict[str, Any]], object]) -> None:
        super().__init__()
        self._append = append
        self._warned: set[str] = set()

    def write(self, step: int, record: Record) -> None:
        """Hand on the record's finite numbers, its texts, and its times as RFC 3339."""
        metrics = {key: found for key, value in record.items() if (found := row_value(value)) is not None}
        for key, value in record.items():
            if isinstance(value, float) and key not in metrics and key not in self._warned:
                self._warned.add(key)
                _logger.warning(
                    "%s=%r at step %d: left out of rows, as JSON has no such number", key, value, step
                )
        if metrics:
            self._append({"total_steps": step, "metrics": metrics, "time": row_value(datetime.now(UTC))})


def _table(step: int, record: Record, width: int) -> str:
    cells = list(_cells({_STEPS: step, **record}))
    most_right = max(8, width // 3)
    right = [_cut(value, most_right) for _, value in cells]
    n_right = max(map(len, right))
    n_left = min(max(len(name) for name, _ in cells), width - n_right - 7)
    rule = "-" * (n_left + n_right + 7) + "\n"
    lines = (
        f"| {_cut(name, n_left):<{n_left}} | {value:<{n_right}} |\n"
        for (name, _), value in zip(cells, right, strict=True)
    )
    return f"{rule}{''.join(lines)}{rule}"


def _cells(record: Record) -> Iterator[tuple[str, str]]:
    """Name and value of each line: names without a group first, then group by group, in their order."""
    split = {key: key.split("/", 1) if "/" in key else ("", key) for key in record}
    before = ""
    for key in sorted(record, key=lambda key: (split[key][0], key)):
        group, name = split[key]
        if group != before:
            yield f"{group}/", ""
        before = group
        yield f"{_INDENT if group else ''}{name}", _text(record[key])


def _text(value: Value) -> str:
    match value:
        case bool() | int():
            return str(value)
        case float():
            return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
        case str():
            return " ".join(value.split())
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case Image():
            height, width, _ = value.pixels.shape
            return f"image {width}x{height}"
        case Histogram():
            found = finite_values(value)
            return f"{len(value.values)} values" + (f", mean {found.mean():.3g}" if len(found) else "")
        case np.ndarray():
            return f"array {list(value.shape)}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
