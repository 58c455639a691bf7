"""Several runs in one chart: each by itself, or groups of them with an interval; and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.curves import Curve
from stoker.dashboard.answers.rounding import short
from stoker.dashboard.summaries import Summary
from stoker.runs.averaging import Statistic, compared
from stoker.runs.configs import Difference, Facts, differences, grouped

_DIGITS = 9


class ComparedRun(msgspec.Struct, frozen=True):
    """The curve of one run on the grid of its group, where it has points."""

    id: str
    label: str
    x: list[float]
    y: list[float]


class ComparedGroup(msgspec.Struct, frozen=True):
    """Several runs as one curve.

    Attributes:
        label: what they have in common.
        ids: the runs, in the order of the request.
        n_runs: how many there are.
        x: the grid.
        mid: the statistic; of a single run, its values.
        low, high: its 95 % interval; empty for a single run.
        n: how many runs are in it at each point.
        runs: each run by itself; empty for a single run, which ``mid`` is.
    """

    label: str
    ids: list[str]
    n_runs: int
    x: list[float]
    mid: list[float]
    low: list[float]
    high: list[float]
    n: list[int]
    runs: list[ComparedRun]


class LeftOutRun(msgspec.Struct, frozen=True):
    """A run that is in no group, and why."""

    id: str
    reason: str


class CompareAnswer(msgspec.Struct, frozen=True):
    """Groups, in the order in which their first runs were given, and what is in none."""

    groups: list[ComparedGroup]
    left_out: list[LeftOutRun]


class DiffAnswer(msgspec.Struct, frozen=True):
    """The settings of several runs: for each key a value per run, in the order of the ids."""

    ids: list[str]
    keys: list[Difference]


def compare_answer(
    runs: Sequence[tuple[Summary, Curve | str]],
    *,
    group_by: str = "none",
    statistic: Statistic = "mean",
    n_points: int = 400,
    x_from: float | None = None,
    x_to: float | None = None,
) -> CompareAnswer:
    """The groups of these runs.

    Args:
        runs: each with its curve, or with the reason why it has none.
        group_by: ``none``, ``version``, or a setting by its flat name.
        statistic: of each group.
        n_points: the most points of a grid.
        x_from: the beginning of the range, included; None: that of the curves.
        x_to: its end.

    Raises:
        ConfigError: No run has that setting.
    """
    left_out = [LeftOutRun(run.id, curve) for run, curve in runs if isinstance(curve, str)]
    drawn = [(run, curve) for run, curve in runs if not isinstance(curve, str)]
    if group_by == "none":
        groups = [(_label(run), [place]) for place, (run, _) in enumerate(drawn)]
    else:
        facts = [Facts(run.group, run.settings) for run, _ in drawn]
        found, without = grouped(facts, group_by)
        groups = [(group.label, list(group.members)) for group in found]
        left_out += [LeftOutRun(drawn[place][0].id, f"it has no setting {group_by}") for place in without]
    answers: list[ComparedGroup] = []
    for label, members in groups:
        own = [drawn[place] for place in members]
        found = compared(
            [(run.id, curve.x, curve.values) for run, curve in own],
            statistic,
            n_points,
            strata=[run.group for run, _ in own],
            x_from=x_from,
            x_to=x_to,
        )
        left_out += [LeftOutRun(each.label, each.reason) for each in found.left_out]
        if not found.labels:
            continue
        labels = _labels([run for run, _ in own])
        is_single = len(found.labels) == 1
        answers.append(
            ComparedGroup(
                label=label,
                ids=list(found.labels),
                n_runs=len(found.labels),
                x=short(found.x, _DIGITS),
                mid=short(found.mid, _DIGITS),
                low=[] if is_single else short(found.low, _DIGITS),
                high=[] if is_single else short(found.high, _DIGITS),
                n=found.n.tolist(),
                runs=[]
                if is_single
                else [
                    _run(run_id, labels[run_id], found.x, values)
                    for run_id, values in zip(found.labels, found.curves, strict=True)
                ],
            )
        )
    return CompareAnswer(answers, left_out)


def diff_answer(configs: Mapping[str, Any]) -> DiffAnswer:
    """The settings of runs side by side, first those in which they differ."""
    return DiffAnswer([*configs], differences(configs))


def _run(run_id: str, label: str, x: NDArray[Any], values: NDArray[Any]) -> ComparedRun:
    is_there = ~np.isnan(values)
    return ComparedRun(run_id, label, short(x[is_there], _DIGITS), short(values[is_there], _DIGITS))


def _label(run: Summary) -> str:
    return f"{run.group}/{run.run_id}"


def _labels(runs: Sequence[Summary]) -> dict[str, str]:
    """Label each run of a group with its seed if all seeds differ, else with its path."""
    seeds = [run.seed for run in runs]
    if len(runs) > 1 and None not in seeds and len({*seeds}) == len(seeds):
        return {run.id: f"seed {run.seed}" for run in runs}
    return {run.id: _label(run) for run in runs}
