"""Curves of a run for a chart: in buckets, or only what is new since the last answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.curves import EVALUATIONS, Axis, Curve, curve_of
from stoker.dashboard.series import SeriesCache
from stoker.protocol import ProtocolError
from stoker.runs.bucketing import bucketed
from stoker.runs.history import RunHistory
from stoker.runs.smoothing import Smoothing, smoothed

_CURSOR = re.compile(r"([0-9a-f]{8})-([0-9a-z.]{1,80})-((?:[0-9]{1,15}\.)*[0-9]{1,15})")


class SeriesQuery(msgspec.Struct, frozen=True):
    """Which curves, and how.

    Attributes:
        names: the curves.
        axis: where their points lie.
        x_from, x_to: the range, both included; None: all.
        n_points: the most points of each.
        smoothing: None: none.
    """

    names: tuple[str, ...]
    axis: Axis = "steps"
    x_from: float | None = None
    x_to: float | None = None
    n_points: int = 1200
    smoothing: Smoothing | None = None


class Series(msgspec.Struct, frozen=True):
    """One curve, as points or buckets of points, in the order of their x.

    Attributes:
        name: its name.
        n: the points of the run in the range.
        is_whole: each bucket is one point.
        x: the last x of each bucket.
        min, max, mean: of the values in each; null where there are none.
        smooth: the last smoothed value of each.
    """

    name: str
    n: int
    is_whole: bool
    x: list[float]
    min: list[float]
    max: list[float]
    mean: list[float]
    smooth: list[float] | None


class SeriesAnswer(msgspec.Struct, frozen=True):
    """Several curves.

    Attributes:
        x: their axis.
        cursor: to be sent with the next request for the same.
        is_appended: the points are only those behind the cursor of the request; else all.
        share_read: how much of the run's files has been read, 0 to 1.
        series: the curves, in the order of the request.
    """

    x: Axis
    cursor: str
    is_appended: bool
    share_read: float
    series: list[Series]


def series_answer(
    history: RunHistory,
    query: SeriesQuery,
    cache: SeriesCache,
    *,
    key: str = "",
    stamp: str = "",
    share_read: float = 1.0,
    cursor: str = "",
) -> SeriesAnswer:
    """The curves of a run, or what is new of them.

    Args:
        history: the run.
        query: which curves.
        cache: smoothed curves that are continued.
        key: the run's id, for the cache.
        stamp: changes when ``history`` is another object.
        share_read: how much of the run's files has been read, 0 to 1.
        cursor: of the last answer, if any.

    Raises:
        ProtocolError: 404: the run has no such curve.
    """
    curves = [_curve(history, name, query.axis, share_read) for name in query.names]
    generation = f"{stamp}.{history.cursor.generation}".strip(".")
    counts = [len(curve.x) for curve in curves]
    digest = f"{crc32(msgspec.json.encode(query)):08x}"
    known = _known_counts(cursor, digest, generation, counts)
    if known is not None and sum(counts) - sum(known) > query.n_points:
        known = None
    if EVALUATIONS in query.names:  # its last point may change
        known = None
    found: list[Series] = []
    for place, curve in enumerate(curves):
        smooth = None
        if query.smoothing is not None:
            smooth = smooth_values(history, curve, query.smoothing, cache, key=key, stamp=stamp)
        if known is None:
            found.append(_in_buckets(curve, smooth, query))
        else:
            found.append(_behind(curve, smooth, query, known[place]))
    cursor = f"{digest}-{generation}-{'.'.join(map(str, counts))}"
    return SeriesAnswer(query.axis, cursor, known is not None, share_read, found)


def _curve(history: RunHistory, name: str, axis: Axis, share_read: float) -> Curve:
    """The curve; while the run is being read, one that was not come upon yet is empty."""
    try:
        return curve_of(history, name, axis)
    except ProtocolError:
        if share_read >= 1:
            raise
        return Curve(name, np.empty(0), np.empty(0))


def _known_counts(cursor: str, digest: str, generation: str, counts: Sequence[int]) -> list[int] | None:
    """How many points of each curve the client has; None: it has others."""
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] != digest or match[2] != generation:
        return None
    known = [int(count) for count in match[3].split(".")]
    is_prefix = len(known) == len(counts) and all(
        before <= now for before, now in zip(known, counts, strict=True)
    )
    return known if is_prefix else None


def smooth_values(
    history: RunHistory, curve: Curve, how: Smoothing, cache: SeriesCache, *, key: str = "", stamp: str = ""
) -> NDArray[np.float64]:
    """The smoothed values of a curve; what was known of it before is continued.

    Args:
        history: the run.
        curve: of it.
        how: the smoothing.
        cache: smoothed curves.
        key: the run's id.
        stamp: changes when ``history`` is another object.
    """
    if curve.name == EVALUATIONS:  # its last point may change
        return smoothed(curve.values, how)
    generation = stamp, history.cursor.generation
    n = len(curve.values)
    return cache.smoothed((key, curve.name), how, generation, n, lambda first: curve.values[first:])


def _in_buckets(curve: Curve, smooth: NDArray[Any] | None, query: SeriesQuery) -> Series:
    buckets = bucketed(
        curve.x, curve.values, smooth, x_from=query.x_from, x_to=query.x_to, n_points=query.n_points
    )
    return Series(
        name=curve.name,
        n=buckets.n,
        is_whole=buckets.is_whole,
        x=buckets.x.tolist(),
        min=buckets.min.tolist(),
        max=buckets.max.tolist(),
        mean=buckets.mean.tolist(),
        smooth=None if buckets.smooth is None else buckets.smooth.tolist(),
    )


def _behind(curve: Curve, smooth: NDArray[Any] | None, query: SeriesQuery, first: int) -> Series:
    """The points from that one on, each by itself."""
    new = Curve(curve.name, curve.x[first:], curve.values[first:])
    return _in_buckets(new, None if smooth is None else smooth[first:], query)
