"""One curve for several runs, with an interval and the number of runs at each point. Free of torch.

**Grid.** If the curves have at most ``n_points`` different x in the range, these are the grid: evaluations
at the same steps are averaged exactly. The ends of a range that is given belong to them, as far as there are
curves. Else the grid is ``n_points`` equally spaced x from the lowest to the highest, around each of which
lies a cell. A curve is first reduced to the means of x and of the values of its points at one x, or in one
cell, so that all points count, and is straight between these.

**Who counts.** A curve counts at a grid point that lies between its first and its last point; on an equally
spaced grid half a cell further, too. Nothing is extrapolated beyond that: ``n`` says how many there are.

**Interval.** 95 %: of the mean, Student's for independent curves; of the interquartile mean, the bootstrap's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.runs.configs import LeftOut
from stoker.runs.smoothing import Numbers
from stoker.stats.intervals import interquartile_means, t_quantile

LabeledCurve: TypeAlias = tuple[str, NDArray[Any], NDArray[Any]]
"""A label, the x of each point, and its value; NaN is a gap."""

Statistic: TypeAlias = Literal["mean", "iqm"]

_N_RESAMPLES = 2000
_MOST_NUMBERS = 1 << 22
"""How many resampled numbers are in memory at a time: 32 MiB."""


class Comparison(msgspec.Struct, frozen=True):
    """Several curves as one.

    Attributes:
        x: the grid, ascending, ``[N]``.
        mid: the mean, or the interquartile mean, of the curves that there are at each, ``[N]``.
        low: the lower end of its 95 % interval; of one curve, its value.
        high: the upper end.
        n: the number of curves at each, int, at least 1.
        labels: the curves that count.
        curves: their values at the grid, ``[curves, N]``; NaN where a curve has not begun or has ended.
        left_out: the curves that do not count, and why.
    """

    x: Numbers
    mid: Numbers
    low: Numbers
    high: Numbers
    n: NDArray[np.int64]
    labels: tuple[str, ...]
    curves: Numbers
    left_out: tuple[LeftOut, ...]


def compared(
    curves: Sequence[LabeledCurve],
    statistic: Statistic = "mean",
    n_points: int = 400,
    *,
    strata: Sequence[str] | None = None,
    x_from: float | None = None,
    x_to: float | None = None,
) -> Comparison:
    """The mean or the interquartile mean of curves, on a common grid; the module says how.

    Args:
        curves: of independent runs.
        statistic: ``mean`` or ``iqm``.
        n_points: the most points of the grid, at least 2.
        strata: for each curve what it is a repetition of, such as its version: the bootstrap draws within
            these. Those of a single curve count as one stratum, as their curves could not vary.
        x_from: the beginning of the range, included; None: that of the curves.
        x_to: its end.

    Raises:
        ConfigError: There is no such statistic.
    """
    if statistic not in ("mean", "iqm"):
        raise ConfigError(f"statistic {statistic!r}: give mean or iqm")
    kept: list[int] = []
    known: list[tuple[Numbers, Numbers]] = []
    left_out: list[LeftOut] = []
    for place, (label, x, values) in enumerate(curves):
        curve = _known(x, values)
        if not len(curve[0]):
            reason = "it has no value yet" if not len(x) else "none of its values is a number"
            left_out.append(LeftOut(label, reason))
        elif (x_from is not None and curve[0][-1] < x_from) or (x_to is not None and curve[0][0] > x_to):
            left_out.append(LeftOut(label, "it has no value in this range"))
        else:
            kept.append(place)
            known.append(curve)
    grid, cell = _grid([x for x, _ in known], n_points, x_from, x_to)
    values = np.array([_on_grid(x, y, grid, cell) for x, y in known]).reshape(len(known), len(grid))
    is_there = ~np.isnan(values)
    there = is_there.any(axis=0)  # with a range, no curve may have a point near one of the grid
    grid, values, is_there = grid[there], values[:, there], is_there[:, there]
    if statistic == "mean":
        mid, low, high = _mean(values, is_there)
    else:
        own = None if strata is None else [strata[place] for place in kept]
        mid, low, high = _interquartile_mean(values, is_there, own)
    labels = tuple(curves[place][0] for place in kept)
    n = is_there.sum(axis=0, dtype=np.int64)
    return Comparison(grid, mid, low, high, n, labels, values, tuple(left_out))


def _known(x: NDArray[Any], values: NDArray[Any]) -> tuple[Numbers, Numbers]:
    """The points that have a value, their x ascending."""
    at, found = np.asarray(x, np.float64), np.asarray(values, np.float64)
    is_known = np.isfinite(found) & np.isfinite(at)
    if not is_known.all():
        at, found = at[is_known], found[is_known]
    if (at[1:] < at[:-1]).any():
        order = np.argsort(at, kind="stable")
        at, found = at[order], found[order]
    return at, found


def _grid(
    every: Sequence[Numbers], n_points: int, x_from: float | None, x_to: float | None
) -> tuple[Numbers, float]:
    """The common grid and the width of a cell; 0: it is that of the curves."""
    if not every:
        return np.empty(0), 0.0
    first = min(x[0] for x in every) if x_from is None else max(x_from, min(x[0] for x in every))
    last = max(x[-1] for x in every) if x_to is None else min(x_to, max(x[-1] for x in every))
    if first > last:
        return np.empty(0), 0.0
    inside = [x[np.searchsorted(x, first, "left") : np.searchsorted(x, last, "right")] for x in every]
    own: Numbers = np.array([end for end, bound in ((first, x_from), (last, x_to)) if bound is not None])
    for x in inside:
        is_long = np.count_nonzero(x[1:] > x[:-1]) >= n_points  # alone: no need to look for its different x
        own = own if is_long else np.union1d(own, x)
        if is_long or len(own) > n_points:
            return np.linspace(first, last, n_points), float(last - first) / (n_points - 1)
    return own, 0.0


def _on_grid(x: Numbers, values: Numbers, grid: Numbers, cell: float) -> Numbers:
    """The curve at the grid; NaN beyond its ends."""
    first, last = x[0] - cell / 2, x[-1] + cell / 2
    if cell:
        starts = np.append(0, np.searchsorted(x, grid - cell / 2, "left"))
        starts = starts[np.append(True, starts[1:] > starts[:-1]) & (starts < len(x))]
    else:
        starts = np.flatnonzero(np.append(True, x[1:] > x[:-1]))
    counts = np.diff(np.append(starts, len(x)))
    with np.errstate(over="ignore"):
        x = np.add.reduceat(x, starts) / counts
        values = np.add.reduceat(values, starts) / counts
    found = np.interp(grid, x, values)
    found[(grid < first) | (grid > last)] = np.nan
    return found


def _mean(values: Numbers, is_there: NDArray[np.bool_]) -> tuple[Numbers, Numbers, Numbers]:
    n = is_there.sum(axis=0)
    mid = np.where(is_there, values, 0.0).sum(axis=0) / n
    away = np.where(is_there, values - mid, 0.0)
    factors = np.array([0.0, 0.0, *(t_quantile(k - 1) for k in range(2, len(values) + 1))])
    half = factors[n] * np.sqrt((away**2).sum(axis=0) / np.maximum(n - 1, 1) / n)
    return mid, mid - half, mid + half


def _interquartile_mean(
    values: Numbers, is_there: NDArray[np.bool_], strata: Sequence[str] | None
) -> tuple[Numbers, Numbers, Numbers]:
    """Each stretch of the grid on which the same curves are is resampled by itself."""
    mid, low, high = np.empty((3, values.shape[1]))
    is_new = np.append(True, (is_there[:, 1:] != is_there[:, :-1]).any(axis=0))[: values.shape[1]]
    starts = np.flatnonzero(is_new)
    ends = np.append(starts[1:], values.shape[1])[: len(starts)]
    for start, end in zip(starts, ends, strict=True):
        present: list[int] = np.flatnonzero(is_there[:, start]).tolist()
        own = None if strata is None else [strata[place] for place in present]
        stretch = values[present, start:end]
        mid[start:end] = interquartile_means(stretch.T)
        low[start:end], high[start:end] = _bootstrap(stretch, own)
    return mid, low, high


def _bootstrap(values: Numbers, strata: Sequence[str] | None) -> tuple[Numbers, Numbers]:
    """The 95 % interval of the interquartile mean of curves, ``[curves, N]``.

    It is the percentile bootstrap of Agarwal et al. (2021), "Deep reinforcement learning at the edge of the
    statistical precipice", section 4, as in their library rliable: whole curves are drawn with replacement,
    as many as there are, 2,000 times; with strata, within each stratum. The ends are the 2.5 % and 97.5 %
    quantiles, between the nearest two of the 2,000 sorted values.
    """
    # Few curves have few different draws, so each of these is computed once.
    draws, which = np.unique(np.sort(_draws(len(values), strata), axis=1), axis=0, return_inverse=True)
    found = np.empty((values.shape[1], len(draws)))
    at_a_time = max(1, _MOST_NUMBERS // draws.size)
    for first in range(0, values.shape[1], at_a_time):
        some = values[:, first : first + at_a_time].T
        found[first : first + at_a_time] = interquartile_means(some[:, draws])
    ranked = np.sort(found[:, which.reshape(-1)], axis=1)
    place = np.array([0.025, 0.975]) * (_N_RESAMPLES - 1)
    below = place.astype(int)
    low, high = (ranked[:, below] + (ranked[:, below + 1] - ranked[:, below]) * (place - below)).T
    return low, high


def _draws(n: int, strata: Sequence[str] | None) -> NDArray[np.int64]:
    """Which curves each resample has, ``[resamples, n]``.

    The draws are numbered, so that the same curves give the same interval in any language. Resample ``r`` has
    in its slot ``j`` the curve ``floor(u * size / 2**32)`` of the stratum of curve ``j``, which has ``size``
    curves, where ``u`` is output ``r * n + j`` of mulberry32 with seed 0; all are counted from 0.
    """
    names = [""] * n if strata is None else list(strata)
    names = [name if names.count(name) > 1 else "" for name in names]
    members = {name: np.array([place for place in range(n) if names[place] == name]) for name in names}
    numbers = _mulberry32(_N_RESAMPLES * n).reshape(_N_RESAMPLES, n)
    drawn = np.empty((_N_RESAMPLES, n), np.int64)
    for place, name in enumerate(names):
        own = members[name]
        drawn[:, place] = own[(numbers[:, place].astype(np.uint64) * np.uint64(len(own))) >> np.uint64(32)]
    return drawn


def _mulberry32(n: int) -> NDArray[np.uint32]:
    """The first outputs of Tommy Ettinger's generator mulberry32 with seed 0, which has a 32-bit counter."""
    with np.errstate(over="ignore"):
        t = np.arange(1, n + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
        t = (t ^ (t >> np.uint32(15))) * (t | np.uint32(1))
        t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
        return t ^ (t >> np.uint32(14))
