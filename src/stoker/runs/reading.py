"""A run's rows as columns, for plots and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.runs.metadata import EvalEpisodeRow, TrainEpisodeRow

__all__ = ["Columns", "columns_of"]

Columns = dict[str, NDArray[Any]]
"""One array per field, all of one length; an extra is the column ``extras.<key>``, NaN where absent."""


def columns_of(
    rows: Sequence[TrainEpisodeRow] | Sequence[EvalEpisodeRow], row_type: type[msgspec.Struct]
) -> Columns:
    """Turn rows around. Numbers become int64 or float64, statuses, actors and times objects."""
    columns: Columns = {}
    for field in msgspec.structs.fields(row_type):
        if field.name == "extras":
            continue
        values = [getattr(row, field.name) for row in rows]
        if field.type is int or field.type is float:
            columns[field.name] = np.array(values, dtype=np.int64 if field.type is int else np.float64)
        else:
            column = np.empty(len(values), dtype=object)
            column[:] = [value.value if field.name == "status" else value for value in values]
            columns[field.name] = column
    for key in dict.fromkeys(key for row in rows for key in row.extras):
        columns[f"extras.{key}"] = np.array([row.extras.get(key, np.nan) for row in rows], dtype=np.float64)
    return columns
