"""A run's rows as columns, for plots and data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.runs.metadata import EvalEpisodeRow, MetricsRow, TrainEpisodeRow

__all__ = ["Columns", "EvaluationSummary", "columns_of", "evaluations_of"]

Columns = dict[str, NDArray[Any]]
"""One array per field, all of one length. An extra is the column ``extras.<key>``, a metric
``metrics.<key>``: numbers are NaN where absent; a metric that is a text anywhere is a column of objects, with
None where absent."""

_MAPPINGS = ("extras", "metrics")


def columns_of(
    rows: Sequence[TrainEpisodeRow] | Sequence[EvalEpisodeRow] | Sequence[MetricsRow],
    row_type: type[msgspec.Struct],
) -> Columns:
    """Turn rows around. Numbers become int64 or float64, statuses, actors and times objects."""
    columns: Columns = {}
    for field in msgspec.structs.fields(row_type):
        if field.name in _MAPPINGS:
            continue
        values = [getattr(row, field.name) for row in rows]
        if field.type is int or field.type is float:
            columns[field.name] = np.array(values, dtype=np.int64 if field.type is int else np.float64)
        else:
            column = np.empty(len(values), dtype=object)
            column[:] = [value.value if field.name == "status" else value for value in values]
            columns[field.name] = column
    for name in _MAPPINGS:
        if name in row_type.__struct_fields__:
            columns |= _columns_of_keys(name, [getattr(row, name) for row in rows])
    return columns


def _columns_of_keys(name: str, found: Sequence[Mapping[str, float | str]]) -> Columns:
    columns: Columns = {}
    for key in dict.fromkeys(key for values in found for key in values):
        if any(isinstance(values.get(key), str) for values in found):
            column = np.empty(len(found), dtype=object)
            column[:] = [values.get(key) for values in found]
            columns[f"{name}.{key}"] = column
        else:
            columns[f"{name}.{key}"] = np.array(
                [values.get(key, np.nan) for values in found], dtype=np.float64
            )
    return columns


class EvaluationSummary(msgspec.Struct, frozen=True):
    """The episodes of one evaluation, summed up."""

    total_steps: int
    n_episodes: int
    mean_reward: float
    std_reward: float
    mean_length: float


def evaluations_of(rows: Columns) -> list[EvaluationSummary]:
    """The evaluations in a run's evaluation rows, in the order of their steps."""
    steps = rows["total_steps_at_eval"]
    found: list[EvaluationSummary] = []
    for step in np.unique(steps):
        rewards, lengths = rows["total_reward"][steps == step], rows["length"][steps == step]
        found.append(
            EvaluationSummary(
                int(step), len(rewards), float(rewards.mean()), float(rewards.std()), float(lengths.mean())
            )
        )
    return found
