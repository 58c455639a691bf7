"""Curves of characters, and numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.cli.curves import chart, sparkline
from stoker.cli.formats import ago, command, duration, number, short, size

finite = st.floats(-1e9, 1e9)


@given(st.lists(finite, min_size=1, max_size=60), st.integers(1, 40))
def test_a_sparkline_is_as_long_as_there_is_room_for(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert 1 <= len(line) <= min(width, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline(range(8), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(range(8), 8, ascii_only=True) == "_.-=+*%#"
    assert sparkline([math.nan, 1.0, math.inf], 8) == "▄"
    assert sparkline([], 8) == sparkline([1.0], 0) == ""


@given(
    st.lists(finite, min_size=0, max_size=60),
    st.integers(20, 100),
    st.integers(2, 12),
    st.booleans(),
)
def test_a_chart_stays_in_its_box(values: list[float], width: int, height: int, ascii_only: bool) -> None:
    lines = chart(range(len(values)), values, width, height, ascii_only=ascii_only)
    assert len(lines) == height + 2
    assert max(map(len, lines)) <= max(width, 8 + 14)
    assert not ascii_only or "".join(lines).isascii()


def test_a_chart_goes_from_low_left_to_high_right() -> None:
    lines = chart([0, 10, 20], [0, 5, 10], 24, 5, ascii_only=True)
    assert lines[0].startswith("10 |")
    assert lines[4].startswith(" 0 |*")
    assert [line.rstrip()[-1] for line in lines[:5]] == ["*"] * 5
    assert lines[6].split() == ["0", "20"]
    columns = [line.index("*") for line in lines[:5]]
    assert columns == sorted(columns, reverse=True)


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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "now"), (12, "12s ago"), (300, "5m ago"), (7300, "2h ago"), (700_000, "8d ago")],
)
def test_ages(seconds: float, shown: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now) == shown


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(512, "512 B"), (1500, "1.5 kB"), (999_600, "1.0 MB"), (23_000_000, "23 MB")]
)
def test_sizes(n_bytes: int, shown: str) -> None:
    assert size(n_bytes) == shown


def test_a_command_can_be_pasted() -> None:
    assert command(["stoker", "resume", "my runs/x"]) == "stoker resume 'my runs/x'"
