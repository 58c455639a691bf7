"""Buckets beside a plain loop, and the spikes of a long curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.runs.bucketing import Buckets, bucketed

points = st.lists(
    st.tuples(st.integers(-50, 50), st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])), max_size=60
)
bounds = st.none() | st.floats(-60, 60)


def by_a_loop(
    pairs: list[tuple[float, float]], x_from: float | None, x_to: float | None, n_points: int
) -> list[tuple[float, ...]]:
    """x, min, max, mean and the last value of each bucket, from the definition."""
    inside = sorted(pairs, key=lambda pair: pair[0])
    inside = [pair for pair in inside if x_from is None or pair[0] >= x_from]
    inside = [pair for pair in inside if x_to is None or pair[0] <= x_to]
    if len(inside) <= n_points:
        parts = [[pair] for pair in inside]
    else:
        edges = np.linspace(inside[0][0], inside[-1][0], n_points + 1)[:-1]
        homes = [int(np.flatnonzero(edges <= x)[-1]) for x, _ in inside]
        parts = [
            [pair for pair, home in zip(inside, homes, strict=True) if home == wanted]
            for wanted in sorted(set(homes))
        ]
    found: list[tuple[float, ...]] = []
    for part in parts:
        known = [value for _, value in part if math.isfinite(value)] or [math.nan]
        mean = math.fsum(known) / len(known)
        found.append((part[-1][0], min(known), max(known), mean, known[-1]))
    return found


def as_rows(found: Buckets) -> list[tuple[float, ...]]:
    assert found.smooth is not None
    return list(zip(found.x, found.min, found.max, found.mean, found.smooth, strict=True))


@given(points, bounds, bounds, st.integers(1, 20), st.booleans())
def test_buckets_are_those_of_a_loop(
    pairs: list[tuple[int, float]],
    x_from: float | None,
    x_to: float | None,
    n_points: int,
    is_float: bool,
) -> None:
    x = np.array([pair[0] for pair in pairs], np.float64 if is_float else np.int64)
    values = np.array([pair[1] for pair in pairs], np.float64)
    found = bucketed(x, values, values, x_from=x_from, x_to=x_to, n_points=n_points)
    expected = by_a_loop([(float(at), value) for at, value in pairs], x_from, x_to, n_points)
    for ours, theirs in zip(as_rows(found), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6, nan_ok=True)
    in_range = [at for at, _ in pairs if (x_from is None or at >= x_from) and (x_to is None or at <= x_to)]
    assert found.n == len(in_range)
    assert found.is_whole == (found.n <= n_points)


def test_a_hundred_spikes_in_a_million_points_are_all_there() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=1_000_000)
    x = np.cumsum(generator.integers(1, 500, size=1_000_000))
    places = generator.choice(1_000_000, size=100, replace=False)
    heights = 1000.0 + np.arange(100)
    signs = np.where(np.arange(100) % 2, 1.0, -1.0)
    values[places] = heights * signs
    found = bucketed(x, values, n_points=1200)
    assert len(found.x) <= 1200
    homes = np.searchsorted(found.x, x[places])
    for home, place in zip(homes, places, strict=True):
        same = values[places[homes == home]]
        expected = same.max() if values[place] > 0 else same.min()
        assert (found.max if values[place] > 0 else found.min)[home] == expected
    assert np.abs(np.delete(found.max, homes)).max() < 10


def test_a_picture_of_a_part_has_every_point_of_it() -> None:
    x, values = np.arange(1_000_000), np.arange(1_000_000) % 7
    found = bucketed(x, values, x_from=500_000, x_to=500_999, n_points=1200)
    assert found.is_whole
    assert found.n == 1000
    assert found.mean.tolist() == (x[500_000:501_000] % 7).tolist()


def test_points_at_one_place_are_one_bucket() -> None:
    found = bucketed(np.zeros(100), np.arange(100.0), n_points=10)
    assert (found.x.tolist(), found.min.tolist(), found.max.tolist()) == ([0.0], [0.0], [99.0])
    assert found.smooth is None
