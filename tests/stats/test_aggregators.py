from __future__ import annotations

import copy
import io
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.stats import Aggregator, Last, Max, Mean, Min, RollingMean, StatefulAggregator, Std

NAN = math.nan
EPS = 2.0**-52

MAKERS: dict[str, Callable[[], Any]] = {
    "mean": Mean,
    "max": Max,
    "min": Min,
    "last": Last,
    "std": Std,
    "rolling1": lambda: RollingMean(1),
    "rolling3": lambda: RollingMean(3),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())

moderate = st.floats(-1e12, 1e12)
uneven = st.one_of(
    st.floats(-1.0, 1.0),
    st.floats(-1e16, 1e16),
    st.sampled_from([1e16, -1e16, 1e300, -1e300, 1.0, 0.1, 1e-300]),
)


def fed(aggregator: Any, values: list[float]) -> Any:
    for value in values:
        aggregator.update(value)
    return aggregator


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        # after each value, what the aggregator reads
        ("mean", [2.0, 4.0, 9.0], [2.0, 3.0, 5.0]),
        ("mean", [1e16, 1.0, -1e16, 1.0], [1e16, 5e15, 1 / 3, 0.5]),
        ("max", [-3.0, -5.0, 2.0, 1.0], [-3.0, -3.0, 2.0, 2.0]),
        ("min", [3.0, 5.0, -2.0, 1.0], [3.0, 3.0, -2.0, -2.0]),
        ("last", [3.0, -1.0, 0.0], [3.0, -1.0, 0.0]),
        ("std", [5.0, 5.0, 5.0], [NAN, 0.0, 0.0]),
        ("std", [1.0, 3.0, 5.0, 7.0], [NAN, 1.0, math.sqrt(8 / 3), math.sqrt(5.0)]),
        ("std", [1e9 + 4, 1e9 + 8], [NAN, 2.0]),
        ("rolling1", [4.0, -2.0, 7.0], [4.0, -2.0, 7.0]),
        ("rolling3", [3.0, 5.0, 10.0, 6.0, 2.0, 1.0, 0.0], [3.0, 4.0, 6.0, 7.0, 6.0, 3.0, 1.0]),
        ("rolling3", [1e16, 1.0, 2.0, 3.0, 4.0], [1e16, 5e15, (1e16 + 3) / 3, 2.0, 3.0]),
    ],
)
def test_table(name: str, values: list[float], expected: list[float]) -> None:
    aggregator = MAKERS[name]()
    read = [fed(aggregator, [value]).value() for value in values]
    assert read == pytest.approx(expected, rel=1e-15, abs=0, nan_ok=True)


@every
def test_contract(make: Callable[[], Any]) -> None:
    aggregator = make()
    assert isinstance(aggregator, Aggregator)
    assert isinstance(aggregator, StatefulAggregator)
    assert math.isnan(aggregator.value())
    values = [5.0, 1.0, 8.0, -2.5, 3.0]
    first = fed(aggregator, values).value()
    aggregator.reset()
    assert math.isnan(aggregator.value())
    assert fed(aggregator, values).value() == first
    fed(copy.deepcopy(aggregator), [100.0, -100.0])
    assert aggregator.value() == first
    state = aggregator.state_dict()
    before = copy.deepcopy(state)
    fed(aggregator, [50.0, -50.0])
    assert state == before


@given(st.lists(moderate, min_size=1, max_size=200))
def test_mean_is_the_mean(values: list[float]) -> None:
    size = statistics.fmean(map(abs, values))
    assert fed(Mean(), values).value() == pytest.approx(
        statistics.fmean(values), rel=2 * EPS, abs=len(values) ** 2 * EPS**2 * size
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=100))
def test_std_is_the_population_std(values: list[float]) -> None:
    size = max(map(abs, values))
    assert fed(Std(), values).value() == pytest.approx(
        statistics.pstdev(values), rel=1e-9, abs=1e-12 * size + 1e-150
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_max_min_last_keep_one_of_the_values(values: list[float]) -> None:
    assert fed(Max(), values).value() == max(values)
    assert fed(Min(), values).value() == min(values)
    assert fed(Last(), values).value() == values[-1]


@given(st.integers(1, 8), st.lists(uneven, min_size=1, max_size=60))
def test_rolling_mean_owes_nothing_to_what_has_left(window: int, values: list[float]) -> None:
    aggregator = RollingMean(window)
    for at, value in enumerate(values, start=1):
        aggregator.update(value)
        recent = values[max(0, at - window) : at]
        assert aggregator.recent() == recent
        # The bound for summing these values alone, in any order (Higham 2002, section 4.2).
        bound = len(recent) * EPS * statistics.fmean(map(abs, recent)) + 5e-324
        assert abs(aggregator.value() - statistics.fmean(recent)) <= bound


@given(st.integers(1, 7), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=60))
def test_rolling_mean_of_integers_is_exact_after_a_huge_value(window: int, values: list[int]) -> None:
    aggregator = fed(RollingMean(window), [1e16, -1e300, 1e16, 1e308, 1e308])
    for at, value in enumerate(values, start=1):
        aggregator.update(value)
        if at >= window:
            assert aggregator.value() == sum(values[at - window : at]) / window


def test_rolling_mean_does_not_drift_over_many_laps() -> None:
    aggregator = RollingMean(100)
    for number in range(100_000):
        aggregator.update(1e16 if number % 1000 == 0 else 0.1)
    assert aggregator.value() == pytest.approx(0.1, rel=1e-13)


@pytest.mark.parametrize("window", [0, -1, 2.0, True, None, "3"])
def test_rolling_mean_refuses_the_window(window: Any) -> None:
    with pytest.raises(ConfigError, match=rf"window={window!r}"):
        RollingMean(window)


@every
@given(values=st.lists(moderate, max_size=12), more=st.lists(moderate, max_size=12))
def test_state_mid_sequence_ends_on_the_same_bits(
    make: Callable[[], Any], values: list[float], more: list[float]
) -> None:
    uninterrupted = fed(make(), values)
    resumed = fed(make(), [7.0, 9.0])  # what it had before is replaced
    resumed.load_state_dict(uninterrupted.state_dict())
    assert resumed.state_dict() == uninterrupted.state_dict()
    for value in more:
        assert repr(resumed.value()) == repr(uninterrupted.value())
        uninterrupted.update(value)
        resumed.update(value)
    assert repr(resumed.value()) == repr(uninterrupted.value())
    assert resumed.state_dict() == uninterrupted.state_dict()


@every
def test_state_is_plain_and_loads_weights_only(make: Callable[[], Any]) -> None:
    for values in ([], [1.0], [np.float64(1.5), np.float32(2.5), np.int64(3), 4, 5.5]):
        aggregator = fed(make(), values)
        assert type(aggregator.value()) is float
        file = io.BytesIO()
        torch.save(aggregator.state_dict(), file)
        file.seek(0)
        resumed = make()
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert repr(resumed.value()) == repr(aggregator.value())


@pytest.mark.parametrize(("window", "expected"), [(1, [5.0]), (2, [4.0, 5.0]), (5, [2.0, 3.0, 4.0, 5.0])])
def test_rolling_state_of_another_window_keeps_the_newest_that_fit(
    window: int, expected: list[float]
) -> None:
    state = fed(RollingMean(4), [1.0, 2.0, 3.0, 4.0, 5.0]).state_dict()
    resumed = RollingMean(window)
    resumed.load_state_dict(state)
    assert resumed.recent() == expected
    assert resumed.value() == statistics.fmean(expected)
