"""Smoothed curves of watched runs: only what is new is read, and memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stoker.dashboard.series import SeriesCache
from stoker.runs.smoothing import Smoothing, smoothed

HOW = Smoothing.parse("mean:10")


class Curve:
    """A curve that remembers from where on it was read."""

    def __init__(self, n: int) -> None:
        self.values = np.random.default_rng(n).normal(size=n)
        self.read: list[int] = []

    def values_from(self, first: int) -> NDArray[np.float64]:
        self.read.append(first)
        return self.values[first:]


def test_only_new_values_are_read() -> None:
    cache, curve = SeriesCache(), Curve(3000)
    for n in (1000, 1000, 1100, 900, 3000):
        found = cache.smoothed("run", HOW, 1, n, curve.values_from)
        assert found == pytest.approx(smoothed(curve.values[:n], HOW))
    assert curve.read == [0, 1000, 1100]
    other = cache.smoothed("run", Smoothing.parse("ema:0.5"), 1, 3000, curve.values_from)
    assert other == pytest.approx(smoothed(curve.values, Smoothing.parse("ema:0.5")))


def test_what_was_given_stays_as_it_was() -> None:
    cache, curve = SeriesCache(), Curve(3000)
    before = cache.smoothed("run", HOW, 1, 1500, curve.values_from)
    copy = before.copy()
    cache.smoothed("run", HOW, 1, 3000, curve.values_from)
    assert before.tolist() == copy.tolist()


def test_a_curve_whose_past_has_changed_is_smoothed_anew() -> None:
    cache, old, new = SeriesCache(), Curve(500), Curve(400)
    cache.smoothed("run", HOW, 1, 500, old.values_from)
    found = cache.smoothed("run", HOW, 2, 400, new.values_from)
    assert found == pytest.approx(smoothed(new.values, HOW))
    cache.smoothed("run", HOW, 2, 400, new.values_from)
    assert new.read == [0]


def test_the_curves_that_nobody_asks_for_are_dropped() -> None:
    cache = SeriesCache(most_bytes=100_000)
    curves = [Curve(5000) for _ in range(4)]
    for curve in (curves[0], curves[1], curves[0], curves[2], curves[0]):
        cache.smoothed(id(curve), HOW, 1, 5000, curve.values_from)
        assert cache.n_bytes < 100_000
    assert [curve.read for curve in curves[:3]] == [[0], [0], [0]]
    cache.smoothed(id(curves[1]), HOW, 1, 5000, curves[1].values_from)
    assert curves[1].read == [0, 0]
    large = Curve(50_000)
    assert len(cache.smoothed("large", HOW, 1, 50_000, large.values_from)) == 50_000


def test_a_failed_read_loses_nothing() -> None:
    cache, curve = SeriesCache(), Curve(300)
    cache.smoothed("run", HOW, 1, 100, curve.values_from)

    def fail(_: int) -> NDArray[np.float64]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.smoothed("run", HOW, 1, 300, fail)
    found = cache.smoothed("run", HOW, 1, 300, curve.values_from)
    assert found == pytest.approx(smoothed(curve.values, HOW))


def test_curves_that_grow_in_turn_are_kept_while_their_values_fit() -> None:
    cache = SeriesCache(most_bytes=110_000)
    curves = [Curve(5500) for _ in range(2)]
    for n in range(5000, 5500, 100):
        for number, curve in enumerate(curves):
            cache.smoothed(number, HOW, 1, n, curve.values_from)
    assert [curve.read for curve in curves] == [[0, 5000, 5100, 5200, 5300]] * 2
