"""A curve of millions of points as the few that a picture has columns for. No spike is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.runs.smoothing import Numbers

_LARGEST = 2.0**62


class Buckets(msgspec.Struct, frozen=True):
    """The points of a curve in equal parts of its x axis; parts without a point are left out.

    Attributes:
        x: where the last point of each bucket is, ascending, ``[B]``.
        min: the lowest value of each, ``[B]``; NaN if all its values are gaps, as in the following.
        max: the highest.
        mean: the mean.
        smooth: the last smoothed value of each, if the curve was smoothed.
        n: how many points are in the range, over all buckets.
        is_whole: each bucket is one point.
    """

    x: Numbers
    min: Numbers
    max: Numbers
    mean: Numbers
    smooth: Numbers | None
    n: int
    is_whole: bool


def bucketed(
    x: NDArray[Any],
    values: NDArray[Any],
    smooth: NDArray[Any] | None = None,
    *,
    x_from: float | None = None,
    x_to: float | None = None,
    n_points: int = 1200,
) -> Buckets:
    """Reduce the part of a curve from ``x_from`` to ``x_to``, both included, to at most ``n_points``.

    A part that has no more points than that is given as it is. Values that are not finite are gaps: they
    count for nothing, and a bucket of gaps alone has NaN. Points whose x goes back, as after a change of the
    clock, are put in order.

    Args:
        x: where the points are, finite, ``[N]``.
        values: their values, ``[N]``.
        smooth: their smoothed values, made from all points, ``[N]``.
        x_from: the beginning of the range; None: that of the curve.
        x_to: its end.
        n_points: the most buckets, at least 1.
    """
    if len(x) and (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, values, smooth = x[order], values[order], None if smooth is None else smooth[order]
    first = 0 if x_from is None else int(_places(x, np.array([x_from]))[0])
    behind = len(x) if x_to is None else int(_places(x, np.nextafter([x_to], np.inf))[0])
    n = max(0, behind - first)
    x, values = x[first : first + n], values[first : first + n]
    smooth = None if smooth is None else smooth[first : first + n]
    if n <= n_points:
        y = _gaps(values.astype(np.float64))
        line = None if smooth is None else _gaps(smooth.astype(np.float64))
        return Buckets(x.astype(np.float64), y, y, y, line, n, is_whole=True)
    edges = np.linspace(float(x[0]), float(x[-1]), n_points + 1)[:-1]
    starts = np.unique(_places(x, edges))
    ends = np.append(starts[1:], n)
    low, high, mean = _reduced(values, starts, ends)
    line = None if smooth is None else _last_known(smooth, starts, ends)
    return Buckets(x[ends - 1].astype(np.float64), low, high, mean, line, n, is_whole=False)


def _places(x: NDArray[Any], edges: Numbers) -> NDArray[np.intp]:
    """Where the first x is that is not below each edge."""
    if x.dtype.kind == "i":  # numpy would make floats of all x
        edges = np.clip(np.ceil(edges), -_LARGEST, _LARGEST).astype(x.dtype)
    return np.searchsorted(x, edges, "left")


def _reduced(
    values: NDArray[Any], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[Numbers, Numbers, Numbers]:
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.minimum.reduceat(values, starts).astype(np.float64)
        high = np.maximum.reduceat(values, starts).astype(np.float64)
        mean = np.add.reduceat(values, starts, dtype=np.float64) / (ends - starts)
        for bucket in np.flatnonzero(~np.isfinite(mean)):  # it has gaps; few buckets, so a loop
            part = values[starts[bucket] : ends[bucket]]
            known = part[np.isfinite(part)]
            found = (known.min(), known.max(), known.mean()) if len(known) else (np.nan,) * 3
            low[bucket], high[bucket], mean[bucket] = found
    return low, high, _gaps(mean)


def _last_known(values: NDArray[Any], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Numbers:
    found = values[ends - 1].astype(np.float64)
    for bucket in np.flatnonzero(~np.isfinite(found)):
        part = values[starts[bucket] : ends[bucket]]
        known = np.flatnonzero(np.isfinite(part))
        found[bucket] = part[known[-1]] if len(known) else np.nan
    return found


def _gaps(values: Numbers) -> Numbers:
    """The values, with NaN in place of infinities."""
    is_known = np.isfinite(values)
    return values if is_known.all() else np.where(is_known, values, np.nan)
