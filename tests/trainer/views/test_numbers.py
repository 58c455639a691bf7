"""Numbers and times as people read them."""

from __future__ import annotations

import math

import pytest

from stoker.trainer.views.numbers import duration, number, short


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (math.nan, "-"), (1234, "1,234"), (1234.56, "1,234.6"), (0.0, "0.0")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.0123"), (1.5e-7, "1.50e-07"), (12.345, "12.35"), (99_999.0, "99,999")],
)
def test_short_numbers(value: float, shown: str) -> None:
    assert short(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (math.inf, "-"), (24.4, "0:24"), (725, "12:05"), (10_919, "3:01:59"), (187_200, "2d 4:00")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown
