"""A named curve of a run: which rows of which file it is, and where its points lie."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.queries import no_such
from stoker.runs.history import RunHistory
from stoker.runs.tables import RowTable

Axis: TypeAlias = Literal["steps", "episodes", "time"]
"""Environment steps; training episodes; seconds since the run began."""
AXES: Final[tuple[Axis, ...]] = get_args(Axis)

Kind: TypeAlias = Literal["train", "eval", "metrics"]

EVALUATIONS = "eval.mean"
"""The curve of the mean reward of each evaluation."""

_NO_CURVES = {
    "total_steps", "total_steps_at_eval", "episode", "attempt", "time", "opt_steps", "actor_id", "status",
}  # fmt: skip
"""Columns that say where a point lies."""


class Curve(NamedTuple):
    """The points of a curve, in the order of their rows.

    Attributes:
        name: its name, such as ``train.total_reward``.
        x: where they lie, ``[N]``.
        values: their values, ``[N]``; NaN where a row has none.
    """

    name: str
    x: NDArray[Any]
    values: NDArray[Any]


def table_of(history: RunHistory, kind: Kind) -> RowTable[Any]:
    """The rows of that kind."""
    tables: dict[Kind, RowTable[Any]] = {
        "train": history.train,
        "eval": history.evaluation,
        "metrics": history.metrics,
    }
    return tables[kind]


def curve_names(history: RunHistory) -> list[str]:
    """The curves that a run has, the most important first."""
    found: list[str] = []
    for kind in ("train", "eval", "metrics"):
        columns = [name for name in table_of(history, kind).names if name not in _NO_CURVES]
        first = [name for name in ("total_reward", "length") if name in columns]
        ordered = [*first, *(name for name in columns if name not in first)]
        found += [name if kind == "metrics" else f"{kind}.{name}" for name in ordered]
    return found


def curve_of(history: RunHistory, name: str, axis: Axis) -> Curve:
    """A curve of a run.

    Raises:
        ProtocolError: 404: it has no such curve; with the nearest ones.
    """
    kind, column = _place_of(history, name)
    if name == EVALUATIONS:
        return _evaluations(history, axis)
    table = table_of(history, kind)
    rows = history.effective(table)
    return Curve(name, _positions(history, kind, axis)[rows], table.column(column)[rows])


def _place_of(history: RunHistory, name: str) -> tuple[Kind, str]:
    """File and column of a curve."""
    if name == EVALUATIONS:
        return "eval", "total_reward"
    for kind in ("train", "eval", "metrics"):
        if name.startswith(f"{kind}."):
            column = name if kind == "metrics" else name.removeprefix(f"{kind}.")
            if column in table_of(history, kind).names and column not in _NO_CURVES:
                return kind, column
    raise no_such("series", name, curve_names(history), "name")


def _positions(history: RunHistory, kind: Kind, axis: Axis) -> NDArray[Any]:
    """Where the rows of a file lie on an axis."""
    table = table_of(history, kind)
    if axis == "time":
        began = history.metadata.started_at.timestamp() if history.metadata is not None else 0.0
        return table.column("time") - began
    if axis == "episodes" and kind == "train":
        return table.column("episode")
    steps = table.column("total_steps_at_eval" if kind == "eval" else "total_steps")
    if axis == "steps":
        return steps
    train = history.train
    rows = history.effective(train)
    # The number of episodes that had ended by then.
    before = np.searchsorted(train.column("total_steps")[rows], steps, "right")
    return np.append(0, train.column("episode")[rows])[before]


def _evaluations(history: RunHistory, axis: Axis) -> Curve:
    """The mean reward of each evaluation."""
    table = history.evaluation
    rows = history.effective(table)
    steps, rewards = table.column("total_steps_at_eval")[rows], table.column("total_reward")[rows]
    if not len(steps):
        return Curve(EVALUATIONS, np.empty(0), np.empty(0))
    order = np.argsort(steps, kind="stable")
    _, starts, counts = np.unique(steps[order], return_index=True, return_counts=True)
    means = np.add.reduceat(rewards[order].astype(np.float64), starts) / counts
    x = _positions(history, "eval", axis)[rows][order][starts + counts - 1]
    return Curve(EVALUATIONS, x, means)
