"""Scaled rewards against numpy and tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.processing import RewardScaler
from stoker.types import EpisodeStatus, Experience

C, TERMINATED, TRUNCATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED


def step(reward: float, status: EpisodeStatus = C, actor_id: int | str = 0) -> Experience:
    return Experience(0, 0, reward, 1, status, actor_id)


def test_clipping_limits_both_sides() -> None:
    for reward, learned in [(-9.0, -2.0), (-2.0, -2.0), (0.5, 0.5), (2.0, 2.0), (1e30, 2.0)]:
        scaler = RewardScaler(0.5, clip=2.0)
        assert scaler.changes_rewards
        assert scaler.scaled(step(reward)) == learned


def test_what_is_learned_from_is_a_plain_float() -> None:
    for reward in [1, np.float32(0.1), np.int64(3), True]:
        scaled = RewardScaler(0.5, clip=100.0).scaled(step(reward))
        assert type(scaled) is float
        assert scaled == float(reward)


def test_without_settings_nothing_changes() -> None:
    scaler = RewardScaler(0.9)
    assert not scaler.changes_rewards
    assert [scaler.scaled(step(reward)) for reward in (3.0, -4.0)] == [3.0, -4.0]
    assert scaler.scale == 1.0


def test_rewards_are_divided_by_the_spread_of_returns() -> None:
    # gamma 0.5; returns of "a": 2, 0.5 * 2 + 3 = 4, ended; of "b": 6, 0.5 * 6 - 1 = 2; of "a" anew: 8;
    # and the 0 that all of them begin with, counted once
    scaler = RewardScaler(0.5, normalize=True)
    stream = [
        (step(2.0, C, "a"), [2.0]),
        (step(6.0, C, "b"), [2.0, 6.0]),
        (step(3.0, TERMINATED, "a"), [2.0, 6.0, 4.0]),
        (step(-1.0, C, "b"), [2.0, 6.0, 4.0, 2.0]),
        (step(8.0, C, "a"), [2.0, 6.0, 4.0, 2.0, 8.0]),
    ]
    for experience, returns in stream:
        expected = experience.reward / np.std([0.0, *returns])
        assert scaler.scaled(experience) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("end", [TERMINATED, TRUNCATED, None], ids=["terminated", "truncated", "given up"])
def test_an_episodes_return_begins_at_nothing(end: EpisodeStatus | None) -> None:
    scaler = RewardScaler(1.0, normalize=True)
    scaler.scaled(step(5.0, end or C))
    if end is None:
        scaler.give_up(0)
    scaler.scaled(step(1.0))
    assert scaler.state_dict()["returns"] == [1.0]
    assert scaler.scale == pytest.approx(np.std([0.0, 5.0, 1.0]))


def test_rewards_are_left_alone_until_there_is_one() -> None:
    scaler = RewardScaler(0.9, normalize=True)
    assert [scaler.scaled(step(0.0, TERMINATED)) for _ in range(3)] == [0.0] * 3
    assert scaler.scale == 1.0


@pytest.mark.parametrize("reward", [5.0, -16.0, 1e-4])
def test_actors_that_begin_in_step_do_not_blow_their_rewards_up(reward: float) -> None:
    """Their first returns hardly differ: scaled by these alone, rewards would be thousands."""
    scaler = RewardScaler(0.99, normalize=True)
    noise = np.random.default_rng(0)
    found = [
        abs(scaler.scaled(step(reward * (1 + 1e-4 * noise.normal()), C, actor_id)))
        for _ in range(20)
        for actor_id in range(8)
    ]
    assert max(found) < 5.0


def test_clipping_comes_after_dividing() -> None:
    scaler = RewardScaler(0.0, normalize=True, clip=1.5)
    assert scaler.scaled(step(1.0)) == 1.5  # divided by 0.5: 2
    assert scaler.scaled(step(-99.0)) == -1.5  # divided by 46.9: -2.1
    assert scaler.scaled(step(10.0)) == pytest.approx(10.0 / np.std([0.0, 1.0, -99.0, 10.0]), rel=1e-6)


@given(rewards=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50), cut=st.integers(0, 50))
def test_a_loaded_scaler_goes_on_bit_for_bit(rewards: list[float], cut: int) -> None:
    whole, first, second = (RewardScaler(0.9, normalize=True) for _ in range(3))
    stream = [step(reward, C, at % 3) for at, reward in enumerate(rewards)]
    expected = [whole.scaled(each) for each in stream]
    found = [first.scaled(each) for each in stream[:cut]]
    second.load_state_dict(first.state_dict())
    found += [second.scaled(each) for each in stream[cut:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_an_unfit_limit_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError, match=f"clip={clip}: rewards are clipped to .* give a number above 0"):
        RewardScaler(0.9, clip=clip)
