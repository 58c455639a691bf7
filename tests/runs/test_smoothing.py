"""Smoothing beside a plain loop, in one piece and in parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker import ConfigError
from stoker.runs.smoothing import Smoother, Smoothing, smoothed

GAPS = (math.nan, math.inf, -math.inf)
values_with_gaps = st.lists(st.floats(-1e6, 1e6) | st.sampled_from(GAPS), max_size=60)
smoothings = st.one_of(
    st.builds(Smoothing, st.just("mean"), st.integers(1, 70).map(float)),
    st.builds(Smoothing, st.just("ema"), st.floats(0, 0.999)),
)


def by_a_loop(values: list[float], how: Smoothing) -> list[float]:
    """What the definition says, one value at a time."""
    known: list[float] = []
    last, found = 0.0, []
    for value in values:
        if not math.isfinite(value):
            found.append(math.nan)
            continue
        known.append(value)
        if how.kind == "mean":
            window = known[-int(how.amount) :]
            found.append(math.fsum(window) / len(window))
        else:  # as in TensorBoard's line chart
            last = last * how.amount + (1 - how.amount) * value
            found.append(last / (1 - how.amount ** len(known)))
    return found


@given(values_with_gaps, smoothings, st.lists(st.integers(0, 60), max_size=4))
def test_a_curve_in_parts_is_smoothed_as_by_a_loop(
    values: list[float], how: Smoothing, cuts: list[int]
) -> None:
    ends = sorted({*(cut for cut in cuts if cut < len(values)), len(values)})
    smoother, found, start = Smoother(how), [], 0
    for end in ends:
        found += smoothed(np.array(values[start:end], np.float64), how, smoother).tolist()
        start = end
    expected = by_a_loop(values, how)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6, nan_ok=True)
    assert smoothed(np.array(values, np.float64), how).tolist() == pytest.approx(found, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("how", ["mean:100", "ema:0.9"])
def test_one_huge_value_does_not_spoil_what_follows(how: str) -> None:
    values = np.ones(5000)
    values[1000] = 1e300
    found = smoothed(values, Smoothing.parse(how))
    assert found[1000] > 1e297
    assert found[999] == pytest.approx(1.0, abs=1e-12)
    if how == "mean:100":  # a running sum would be zero, or worse, from here on
        assert found[1100:] == pytest.approx(np.ones(3900), abs=1e-12)
    unharmed = smoothed(np.full(5000, 1e308), Smoothing.parse(how))
    assert unharmed[0] == 1e308


def test_whole_numbers_can_be_smoothed() -> None:
    assert smoothed(np.array([1, 2, 4]), Smoothing.parse("mean:2")).tolist() == [1.0, 1.5, 3.0]


@pytest.mark.parametrize("text", ["mean:1", "mean:100", "ema:0", "ema:0.98"])
def test_a_smoothing_is_written_as_it_is_read(text: str) -> None:
    assert str(Smoothing.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "mean", "mean:0", "mean:2.5", "mean:nan", "mean:1e9", "ema:1", "ema:-1", "ema:x", "sum:3"]
)
def test_what_is_no_smoothing_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"smoothing '{text}': give mean:WINDOW"):
        Smoothing.parse(text)
