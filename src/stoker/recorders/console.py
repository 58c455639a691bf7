"""Records as the boxed table that users of Stable-Baselines3 know, on a stream."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TextIO

import numpy as np

from stoker.errors import ConfigError
from stoker.recorders.protocol import Outcome, RunContext
from stoker.recorders.values import Histogram, Image, Record, Value

__all__ = ["ConsoleRecorder", "table_of"]

_INDENT = "    "
_NARROWEST = 24
_STEPS = "time/total_timesteps"


class ConsoleRecorder:
    """Writes each record as a table, its names in groups.

    ::

        ----------------------------------
        | rollout/            |          |
        |    ep_rew_mean      | 23.4     |
        | time/               |          |
        |    total_timesteps  | 1000     |
        ----------------------------------

    Args:
        stream: where to; None: standard output, as it is then.
        width: the most columns of a line; None: those of the terminal, 80 where there is none.

    Raises:
        ConfigError: The width leaves no room for a table.
    """

    name = "console"

    def __init__(self, stream: TextIO | None = None, *, width: int | None = None) -> None:
        if width is not None and width < _NARROWEST:
            raise ConfigError(f"width={width!r}: a table needs at least {_NARROWEST} columns")
        self._stream = stream
        self._width = width

    def open(self, context: RunContext) -> None:
        """Nothing is needed."""

    def write(self, step: int, record: Record) -> None:
        """Write the table, with one call."""
        width = shutil.get_terminal_size().columns if self._width is None else self._width
        stream = sys.stdout if self._stream is None else self._stream
        stream.write(table_of(step, record, max(width, _NARROWEST)))

    def flush(self) -> None:
        """Let it be seen."""
        (sys.stdout if self._stream is None else self._stream).flush()

    def close(self, status: Outcome) -> None:
        """The stream stays open: it is somebody else's."""


def table_of(step: int, record: Record, width: int) -> str:
    """The table, with the step among the times unless the record has it."""
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
    """Name and value of each line: what has no group first, then group by group, in the order of names."""
    groups: dict[str, list[tuple[str, Value]]] = {}
    for key, value in sorted(record.items()):
        group, slash, name = key.partition("/")
        groups.setdefault(group if slash else "", []).append((name if slash else key, value))
    for group, members in sorted(groups.items()):
        if group:
            yield f"{group}/", ""
        for name, value in members:
            yield f"{_INDENT if group else ''}{name}", _text(value)


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
            found = value.finite()
            return f"{len(value.values)} values" + (f", mean {found.mean():.3g}" if len(found) else "")
        case np.ndarray():
            return f"array {list(value.shape)}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
