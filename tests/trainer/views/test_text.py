"""Numbers, times and curves as text."""

from __future__ import annotations

import math

from hypothesis import given, strategies as st

from stoker.trainer.views.text import chart, duration, number, short, sparkline


def test_numbers() -> None:
    for value, shown in [(None, "-"), (math.nan, "-"), (1234, "1,234"), (1234.56, "1,234.6"), (0.0, "0.0")]:
        assert number(value) == shown


def test_short_numbers() -> None:
    for value, shown in [
        (0, "0"),
        (0.0123, "0.0123"),
        (1.5e-7, "1.50e-07"),
        (12.345, "12.35"),
        (99_999.0, "99,999"),
    ]:
        assert short(value) == shown


def test_durations() -> None:
    for seconds, shown in [
        (None, "-"),
        (math.inf, "-"),
        (24.4, "0:24"),
        (725, "12:05"),
        (10_919, "3:01:59"),
        (187_200, "2d 4:00"),
    ]:
        assert duration(seconds) == shown


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
