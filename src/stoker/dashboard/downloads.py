"""Rows of a run as CSV (RFC 4180), at full resolution, made in parts while they are sent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.curves import Axis, curve_of, table_of
from stoker.dashboard.answers.episodes import EpisodeQuery, episodes_found
from stoker.protocol import ProtocolError
from stoker.runs.history import RunHistory

_ROWS_AT_ONCE: Final = 5000
_FORMULA = tuple("=+-@\t\r")
"""A spreadsheet takes a text that begins so for a formula."""


class Download(msgspec.Struct, frozen=True):
    """A table that is to be sent.

    Attributes:
        columns: arrays of one length, by their names.
    """

    columns: Mapping[str, NDArray[Any]]

    def parts(self) -> Iterator[bytes]:
        """The lines, several thousand at a time. Blocks."""
        yield _lines([[_safe(name) for name in self.columns]])
        n = min(map(len, self.columns.values()), default=0)
        for first in range(0, n, _ROWS_AT_ONCE):
            some = [_cells(column[first : first + _ROWS_AT_ONCE]) for column in self.columns.values()]
            yield _lines(zip(*some, strict=True))


def series_csv(history: RunHistory, names: Sequence[str], axis: Axis) -> Download:
    """All points of curves of one kind, side by side.

    Raises:
        ProtocolError: 404: the run has no such curve; or 422: their rows are of different files.
    """
    curves = [curve_of(history, name, axis) for name in names]
    if len({name.partition(".")[0] for name in names}) > 1 or len({len(curve.x) for curve in curves}) > 1:
        detail = "series of one file have the same rows: name those of train, eval or metrics"
        raise ProtocolError("invalid", detail, path="name")
    return Download({axis: curves[0].x, **{curve.name: curve.values for curve in curves}})


def episodes_csv(history: RunHistory, query: EpisodeQuery) -> Download:
    """All episodes that are found, in their order."""
    places = episodes_found(history, query)
    table = table_of(history, query.kind)
    fixed = ("episode", "total_steps", "total_steps_at_eval", "total_reward", "length", "status", "actor_id")
    there = {*table.names, *table.value_names}
    extras = [name for name in table.names if name.startswith("extras.")]
    names = [name for name in (*fixed, "time", "attempt", *extras) if name in there]
    return Download({name: table.column(name)[places] for name in names})


def _cells(values: NDArray[Any]) -> list[Any]:
    """The values as cells: a gap is empty."""
    if values.dtype.kind != "O":
        cells: list[Any] = values.tolist()
        gaps = np.flatnonzero(~np.isfinite(values)) if values.dtype.kind == "f" else ()
        for gap in gaps:
            cells[gap] = ""
        return cells
    return ["" if value is None else _safe(value) if isinstance(value, str) else value for value in values]


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _lines(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")
