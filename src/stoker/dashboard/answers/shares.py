"""Where the time of a run goes: the shares of the states of each part, over the run and as a verdict."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.curves import Axis, curve_of
from stoker.runs.configs import flat_settings
from stoker.runs.history import RunHistory
from stoker.telemetry import explained, profile_of_records
from stoker.telemetry.profiles import PARTS, clock_of

_PERIOD = "metrics.load/period_s"
_RECORDS = 50
"""The last records that the verdict is about."""


class PartShares(msgspec.Struct, frozen=True):
    """One part of the training.

    Attributes:
        part: its name.
        states: the names of its states.
        x: the ends of periods.
        shares: for each state its share of each period, 0 to 1; null where the part was not there.
    """

    part: str
    states: list[str]
    x: list[float]
    shares: list[list[float]]


class Explained(msgspec.Struct, frozen=True):
    """The verdict of ``stoker explain``.

    Attributes:
        bottleneck: the part that limits the training.
        lines: the report.
    """

    bottleneck: str
    lines: list[str]


def shares_answer(history: RunHistory, n_points: int = 300, axis: Axis = "steps") -> list[PartShares]:
    """The shares of each part over the run, in at most so many periods.

    Neighboring records become one period, each weighted by its length.
    """
    names = history.metrics.names if _PERIOD in history.metrics.names else ()
    clocks = {name: clock for name in names if (clock := clock_of(name.removeprefix("metrics.")))}
    if not clocks:
        return []
    weights = curve_of(history, _PERIOD, axis)
    places = np.flatnonzero(np.isfinite(weights.values) & (weights.values > 0))
    starts = np.unique(np.linspace(0, len(places), min(n_points, len(places)), endpoint=False).astype(int))
    if not len(places):
        return []
    ends = np.append(starts[1:], len(places)) - 1
    x: list[float] = weights.x[places][ends].tolist()
    found: dict[str, PartShares] = {}
    for name, (part, state) in clocks.items():
        shares = curve_of(history, name, axis).values[places]
        line = found.setdefault(part, PartShares(part, [], x, []))
        line.states.append(state)
        line.shares.append(_weighted(shares, weights.values[places], starts).tolist())
    order = {part: place for place, part in enumerate(PARTS)}
    return sorted(found.values(), key=lambda part: order.get(part.part, len(order)))


def explanation_of(history: RunHistory) -> Explained | None:
    """What limits the training, by its last records; None: it has none with clocks."""
    table = history.metrics
    if _PERIOD not in table.names:
        return None
    rows = history.effective(table)
    periods, attempts = table.column(_PERIOD)[rows], table.column("attempt")[rows]
    places = np.flatnonzero(np.isfinite(periods) & (attempts == attempts.max(initial=0)))[-_RECORDS:]
    names = [name for name in table.names if name.startswith(("metrics.time/", "metrics.load/"))]
    columns = {name.removeprefix("metrics."): table.column(name)[rows][places].tolist() for name in names}
    records: list[dict[str, Any]] = [
        {name: values[row] for name, values in columns.items() if values[row] == values[row]}  # not NaN
        for row in range(len(places))
    ]
    profile = profile_of_records(records)
    if profile is None:
        return None
    offline = bool(flat_settings(history.config).get("offline"))
    verdict = explained(profile, offline=offline)
    return Explained(verdict.bottleneck.culprit, verdict.lines())


def _weighted(
    shares: NDArray[np.float64], weights: NDArray[np.float64], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The mean of each period over the records in which the part was there."""
    is_there = np.isfinite(shares)
    total = np.add.reduceat(np.where(is_there, shares * weights, 0.0), starts)
    weight = np.add.reduceat(np.where(is_there, weights, 0.0), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan)
