from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import ConfigError
from stoker.stats import EpisodeWindow, WindowStats

NAN = math.nan


def test_empty_window() -> None:
    assert repr(EpisodeWindow(3).stats()) == repr(WindowStats(0, NAN, NAN, NAN, NAN))


def test_window_forgets_but_its_count_does_not() -> None:
    window = EpisodeWindow(2)
    seen: list[WindowStats] = []
    for reward, length in [(10.0, 1), (-4.0, 3), (2.0, 5)]:
        window.update(reward, length)
        seen.append(window.stats())
    assert seen == [
        WindowStats(1, 10.0, 10.0, 10.0, 1.0),
        WindowStats(2, 3.0, 10.0, -4.0, 2.0),
        WindowStats(3, -1.0, 2.0, -4.0, 4.0),
    ]


def test_absent_values_stay_out_of_the_means() -> None:
    window = EpisodeWindow(3)
    window.update(4.0, None)
    window.update(None, 6)
    assert window.stats() == WindowStats(2, 4.0, 4.0, 4.0, 6.0)


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 1000)), min_size=1))
def test_window_is_that_of_the_last_episodes(size: int, episodes: list[tuple[int, int]]) -> None:
    window = EpisodeWindow(size)
    for reward, length in episodes:
        window.update(reward, length)
    rewards, lengths = zip(*episodes[-size:], strict=True)
    assert window.stats() == WindowStats(
        len(episodes), statistics.fmean(rewards), max(rewards), min(rewards), statistics.fmean(lengths)
    )


@given(st.lists(st.floats(-1e9, 1e9), max_size=10), st.lists(st.floats(-1e9, 1e9), max_size=10))
def test_state_round_trip(before: list[float], after: list[float]) -> None:
    window, resumed = EpisodeWindow(4), EpisodeWindow(4)
    for reward in before:
        window.update(reward, 1)
    resumed.load_state_dict(window.state_dict())
    for reward in after:
        window.update(reward, 2)
        resumed.update(reward, 2)
    assert repr(resumed.stats()) == repr(window.stats())


def test_size_is_checked() -> None:
    with pytest.raises(ConfigError, match="window=0"):
        EpisodeWindow(0)
