"""The rows of a run as a data frame of pandas or polars, which are imported when one is asked for."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.importing import required
from stoker.plain import shown
from stoker.runs.rows import Columns, EvalEpisodeRow, MetricsRow, Row, TrainEpisodeRow

RowKind: TypeAlias = Literal["train", "eval", "metrics"]
FrameLibrary: TypeAlias = Literal["pandas", "polars"]

_ROW_TYPES: dict[str, type[Row]] = {"train": TrainEpisodeRow, "eval": EvalEpisodeRow, "metrics": MetricsRow}


def row_type_of(kind: str) -> type[Row]:
    """The type of the rows that a kind names.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind not in _ROW_TYPES:
        raise ConfigError(f"rows {shown(kind)}: give {', '.join(_ROW_TYPES)}")
    return _ROW_TYPES[kind]


def frame_of(columns: Columns, library: FrameLibrary) -> Any:
    """A data frame with the columns, under their names, of which ``time`` is in POSIX seconds.

    Numbers stay int64 and float64, times become UTC datetimes with microseconds, statuses texts. A column of
    texts and numbers, such as actor ids of both kinds, becomes one of texts. A number that a row does not
    have is NaN in pandas, null in polars.

    Raises:
        ConfigError: There is no such library.
        MissingDependency: It is not installed.
    """
    if library not in ("pandas", "polars"):
        raise ConfigError(f"library {shown(library)}: give pandas or polars")
    frames = required(library, library)
    found = {name: _plain(name, values) for name, values in columns.items()}
    if library == "pandas":
        frame = frames.DataFrame(found)
        frame["time"] = frame["time"].dt.tz_localize("UTC")
        return frame
    frame = frames.DataFrame(
        [frames.Series(name, values, nan_to_null=True) for name, values in found.items()]
    )
    return frame.with_columns(frames.col("time").dt.replace_time_zone("UTC"))


def _plain(name: str, values: NDArray[Any]) -> Any:
    """Values of one type: numbers and times as an array, texts as a list with None where there is none."""
    if name == "time":
        return np.rint(values * 1e6).astype("datetime64[us]")
    if values.dtype != object:
        return values
    if all(type(value) is int for value in values):
        return values.astype(np.int64)
    return [value if value is None or isinstance(value, str) else f"{value}" for value in values]
