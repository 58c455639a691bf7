from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.errors import InvalidExperience
from stoker.stats.intervals import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    interquartile_means,
    means,
    t_quantile,
)

NAN, INF = math.nan, math.inf
values_of = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 4.0], 2.5),
        ([9.0, 0.0, 3.0], 4.0),  # below four there is no quarter to leave out
        ([100.0, 2.0, 4.0, -100.0], 3.0),
        ([7.0, 1.0, 2.0, 3.0, 1000.0], 4.0),  # floor(5 / 4) = 1 at each end: 2, 3, 7
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),  # without 1, 2 and 7, 8
        ([1.0] * 9 + [50.0, 50.0, 50.0], 1.0),  # three of twelve are a quarter
        ([1.0] * 8 + [50.0, 50.0, 50.0, 50.0], 1 + 49 / 6),  # the fourth of them counts
    ],
)
def test_the_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected, rel=1e-15)


@given(values_of)
def test_the_interquartile_mean_is_that_of_the_sorted_middle(values: list[float]) -> None:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    size = max(map(abs, values))
    assert interquartile_mean(values) == pytest.approx(statistics.fmean(middle), rel=1e-12, abs=1e-12 * size)


def test_statistics_are_taken_of_each_row() -> None:
    samples = np.array([[4.0, 0.0, 2.0, 100.0], [1.0, 1.0, 1.0, 1.0]])
    assert interquartile_means(samples).tolist() == [3.0, 1.0]
    assert means(samples).tolist() == [26.5, 1.0]
    assert samples.tolist()[0] == [4.0, 0.0, 2.0, 100.0], "and the rows left as they are"


@pytest.mark.parametrize(
    ("values", "statistic", "expected"),
    [
        # The mean of a resample of five zeros and five ones is Binomial(10, 1/2) / 10: of that, 1.07 % lie
        # at 0.1 or below and 5.47 % at 0.2 or below, so both quantiles are far from a step.
        ([0.0, 1.0] * 5, means, Interval(0.2, 0.8)),
        # The mean of two is 0, 1/2 or 1 with 1/4, 1/2 and 1/4.
        ([0.0, 1.0], means, Interval(0.0, 1.0)),
        # The ones among four draws from one 1 and three 0 are Binomial(4, 1/4): 0 or 1 of them (73.8 %) make
        # an interquartile mean of 0, 2 (21.1 %) one of 1/2, 3 or 4 (5.1 %) one of 1.
        ([1.0, 0.0, 0.0, 0.0], interquartile_means, Interval(0.0, 1.0)),
    ],
)
def test_intervals_whose_distribution_is_known(
    values: list[float], statistic: Any, expected: Interval
) -> None:
    assert bootstrap_interval(values, statistic) == expected


def test_the_interval_of_a_normal_mean_covers_it_as_often_as_it_says() -> None:
    """Nearly: of 40 draws the percentile interval is a little too narrow."""
    rng = np.random.default_rng(7)
    found = [bootstrap_interval(rng.normal(3.0, 2.0, 40).tolist(), means) for _ in range(200)]
    covered = statistics.fmean(interval.low <= 3.0 <= interval.high for interval in found)
    assert 0.91 <= covered <= 0.97
    # The interval of a normal mean: 1.96 standard errors to each side.
    width = statistics.fmean(interval.high - interval.low for interval in found)
    assert width == pytest.approx(2 * 1.96 * 2.0 / math.sqrt(40), rel=0.05)


def test_the_same_values_give_the_same_interval_whatever_torch_and_numpy_have_drawn() -> None:
    values = np.random.default_rng(1).normal(size=30).tolist()
    first = bootstrap_interval(values, means)
    np.random.random(5)
    before = np.random.get_state()[1].tolist()
    assert bootstrap_interval(values, means) == first
    assert np.random.get_state()[1].tolist() == before


def test_many_values_are_resampled_in_parts_and_all_parts_count() -> None:
    values = [0.0, 1.0] * 5_000  # 10,000 values: 26 resamples are in memory at a time
    interval = bootstrap_interval(values, means)
    error = 0.5 / math.sqrt(len(values))
    assert 0.5 - 3 * error < interval.low < 0.5 < interval.high < 0.5 + 3 * error


@given(values_of)
def test_an_interval_lies_within_the_values(values: list[float]) -> None:
    interval = bootstrap_interval(values, means)
    assert min(values) <= interval.low <= interval.high <= max(values)


@pytest.mark.parametrize("values", [[0.1], [0.1] * 20])
def test_values_that_do_not_differ_have_no_width(values: list[float]) -> None:
    assert bootstrap_interval(values, means) == Interval(0.1, 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "give at least one"),
        ([1.0, NAN], r"values\[1\]=nan is not finite"),
        ([-INF], r"values\[0\]=-inf is not finite"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
    ],
    ids=["none", "nan", "inf", "rows"],
)
def test_what_has_no_statistic_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidExperience, match=message):
        interquartile_mean(values)
    with pytest.raises(InvalidExperience, match=message):
        bootstrap_interval(values, means)


T_TABLE = {
    1: 12.7062,
    2: 4.3027,
    3: 3.1824,
    4: 2.7764,
    5: 2.5706,
    9: 2.2622,
    19: 2.0930,
    30: 2.0423,
    120: 1.9799,
}


def test_students_quantiles_are_those_of_the_tables() -> None:
    found = {freedom: t_quantile(freedom) for freedom in T_TABLE}
    assert found == pytest.approx(T_TABLE, abs=6e-5)
