"""Several seeds as one curve: its numbers beside plain loops."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from stoker import ConfigError
from stoker.runs.averaging import LabeledCurve, compared

STEPS = np.array([100, 200, 300])


def seeds(*rows: list[float], x: NDArray[np.int64] = STEPS) -> list[LabeledCurve]:
    return [(f"seed {number}", x[: len(row)], np.array(row)) for number, row in enumerate(rows)]


def test_curves_at_the_same_steps_are_averaged_there() -> None:
    values = np.array([[1.0, 2.0, 5.0], [3.0, 2.0, 9.0], [2.0, 2.0, 4.0], [6.0, 2.0, 1.0], [3.0, 2.0, 6.0]])
    found = compared(seeds(*values.tolist()))
    assert found.x.tolist() == [100.0, 200.0, 300.0]
    assert found.n.tolist() == [5, 5, 5]
    assert found.mid == pytest.approx(values.mean(axis=0))
    half = 2.7764451 * values.std(axis=0, ddof=1) / 5**0.5  # Student's t, 4 degrees of freedom
    assert found.high - found.mid == pytest.approx(half, rel=1e-5)
    assert found.mid - found.low == pytest.approx(half, rel=1e-5)
    assert found.curves.tolist() == values.tolist()


def test_where_fewer_runs_are_their_number_says_so() -> None:
    found = compared(seeds([1.0, 2.0, 3.0], [3.0, 4.0], [5.0]))
    assert found.n.tolist() == [3, 2, 1]
    assert found.mid.tolist() == [3.0, 3.0, 3.0]
    assert found.high - found.mid == pytest.approx([4.302653 * 2 / 3**0.5, 12.706205 * 2**0.5 / 2**0.5, 0.0])
    assert found.low[2] == found.high[2] == 3.0, "a single run has no interval"
    assert np.isnan(found.curves).sum(axis=1).tolist() == [0, 1, 2]


def test_curves_at_other_steps_are_straight_between_their_points() -> None:
    line, other = np.array([0.0, 1000.0]), np.array([500.0, 700.0, 900.0])
    found = compared([("line", line, line / 100), ("other", other, other / 50)])
    assert found.x.tolist() == [0.0, 500.0, 700.0, 900.0, 1000.0]
    assert found.n.tolist() == [1, 2, 2, 2, 1]
    assert found.mid == pytest.approx([0.0, 7.5, 10.5, 13.5, 10.0])


def test_every_point_of_a_long_curve_counts() -> None:
    x = np.arange(100_000)
    values = np.random.default_rng(0).normal(size=100_000)
    values[12_345] = 1e6
    found = compared([("noise", x, values)], n_points=101)
    assert len(found.x) == 101
    assert found.x[[0, -1]].tolist() == [0.0, 99_999.0]
    assert found.n.tolist() == [1] * 101
    assert found.mid.max() == pytest.approx(1e6 / 1000, rel=0.2), "the mean of a cell has each of its points"
    line = compared([("line", x, x * 2.0), ("short", x[:70_000], x[:70_000] * 2.0)], n_points=101)
    assert line.mid[1:-1] == pytest.approx(2 * line.x[1:-1], rel=2e-3)
    assert line.n.tolist() == [2] * 71 + [1] * 30


def test_what_does_not_count_is_named() -> None:
    nothing = np.empty(0)
    curves = [
        *seeds([1.0, 2.0, 3.0]),
        ("empty", nothing, nothing),
        ("diverged", STEPS, np.full(3, math.nan)),
        ("late", STEPS + 1000, np.ones(3)),
    ]
    found = compared(curves, x_to=250.0)
    assert found.labels == ("seed 0",)
    assert found.x.tolist() == [100.0, 200.0, 250.0]
    assert [(left.label, left.reason) for left in found.left_out] == [
        ("empty", "it has no value yet"),
        ("diverged", "none of its values is a number"),
        ("late", "it has no value in this range"),
    ]
    for statistic in ("mean", "iqm"):
        none = compared(curves[1:3], statistic)
        assert (len(none.x), len(none.mid), none.curves.shape, len(none.left_out)) == (0, 0, (0, 0), 2)


def test_a_range_between_two_points_shows_the_line_through_it() -> None:
    found = compared(seeds([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]), x_from=210.0, x_to=290.0, n_points=5)
    assert found.x.tolist() == [210.0, 290.0]
    assert found.mid == pytest.approx([3.1, 3.9])
    assert len(compared(seeds([1.0, 2.0, 3.0]), x_from=290.0, x_to=210.0).x) == 0


def test_there_are_two_statistics() -> None:
    with pytest.raises(ConfigError, match="statistic 'median': give mean or iqm"):
        compared(seeds([1.0]), "median")  # pyright: ignore[reportArgumentType]


def mulberry32(n: int) -> list[int]:
    """The generator as it is published, with seed 0."""
    state, found = 0, []
    for _ in range(n):
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        t = (state ^ (state >> 15)) * (state | 1) & 0xFFFFFFFF
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & 0xFFFFFFFF)) & 0xFFFFFFFF
        found.append(t ^ (t >> 14))
    return found


def trimmed_mean(values: list[float]) -> float:
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def by_a_loop(values: list[float], strata: list[str]) -> tuple[float, float]:
    """The interval of the interquartile mean, as the module's text defines it."""
    n, numbers, found = len(values), iter(mulberry32(2000 * len(values))), []
    for _ in range(2000):
        drawn = []
        for place in range(n):
            is_single = strata.count(strata[place]) == 1
            own = [
                value
                for value, name in zip(values, strata, strict=True)
                if (strata.count(name) == 1 if is_single else name == strata[place])
            ]
            drawn.append(own[next(numbers) * len(own) >> 32])
        found.append(trimmed_mean(drawn))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@settings(max_examples=15)  # a plain loop of 2,000 draws each
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from("abc")), min_size=1, max_size=9), st.booleans()
)
def test_the_interval_of_the_interquartile_mean_is_that_of_a_loop(
    pairs: list[tuple[float, str]], has_strata: bool
) -> None:
    values = [value for value, _ in pairs]
    strata = [name if has_strata else "" for _, name in pairs]
    one = [("run", np.array([1.0]), np.array([value])) for value in values]
    found = compared(one, "iqm", strata=strata if has_strata else None)
    assert found.mid[0] == pytest.approx(trimmed_mean(values))
    assert (found.low[0], found.high[0]) == pytest.approx(by_a_loop(values, strata), abs=1e-9)


def test_whole_curves_are_drawn_where_they_are() -> None:
    rows = [[1.0, 5.0, 2.0], [2.0, 4.0, 4.0], [9.0, 1.0], [4.0, 2.0, 8.0], [7.0, 3.0]]
    found = compared(seeds(*rows), "iqm")
    assert found.n.tolist() == [5, 5, 3]
    for place, x in enumerate(found.x):
        column = [row[place] for row in rows if len(row) > place]
        assert found.mid[place] == pytest.approx(trimmed_mean(column)), x
        expected = by_a_loop(column, [""] * len(column))
        assert (found.low[place], found.high[place]) == pytest.approx(expected)
