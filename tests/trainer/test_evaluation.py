"""The statistics of an evaluation, each against a table worked by hand."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from stoker.errors import ConfigError
from stoker.stats import EpisodeRecord
from stoker.stats.intervals import Interval
from stoker.trainer.evaluation import Evaluation
from stoker.types import EpisodeStatus

TERMINATED, TRUNCATED = EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED


def of(rewards: list[float], **settings: Any) -> Evaluation:
    """An evaluation with these rewards; the i-th episode has i + 1 steps."""
    records = [EpisodeRecord(reward, i + 1, TERMINATED) for i, reward in enumerate(rewards)]
    return Evaluation(100, tuple(records), **settings)


@pytest.mark.parametrize(
    ("rewards", "mean", "std", "median", "iqm", "low", "high"),
    [
        ([3.0], 3.0, 0.0, 3.0, 3.0, 3.0, 3.0),
        ([1.0, 4.0], 2.5, 1.5, 2.5, 2.5, 1.0, 4.0),
        ([2.0, 9.0, 4.0], 5.0, math.sqrt((9 + 16 + 1) / 3), 4.0, 5.0, 2.0, 9.0),
        ([4.0, 0.0, 100.0, 2.0], 26.5, math.sqrt(1802.75), 3.0, 3.0, 0.0, 100.0),
        ([8.0, 1.0, 2.0, 7.0, 3.0, 6.0, 4.0, -15.0], 2.0, math.sqrt(46.5), 3.5, 3.75, -15.0, 8.0),
    ],
    ids=["one", "two", "three", "four", "eight"],
)
def test_rewards_by_hand(
    rewards: list[float], mean: float, std: float, median: float, iqm: float, low: float, high: float
) -> None:
    found = of(rewards)
    assert found.rewards == tuple(rewards)
    assert (found.mean_reward, found.median_reward, found.iqm_reward) == (mean, median, iqm)
    assert found.std_reward == pytest.approx(std, rel=1e-15)
    assert (found.min_reward, found.max_reward) == (low, high)
    for interval, within in ((found.mean_interval, mean), (found.iqm_interval, iqm)):
        assert low <= interval.low <= within <= interval.high <= high


def test_intervals_whose_distribution_is_known() -> None:
    # The derivations are in tests/stats/test_intervals.py.
    assert of([0.0, 1.0] * 5).mean_interval == Interval(0.2, 0.8)
    assert of([1.0, 0.0, 0.0, 0.0]).iqm_interval == Interval(0.0, 1.0)
    assert of([7.0] * 5).mean_interval == of([7.0] * 5).iqm_interval == Interval(7.0, 7.0)


def test_lengths_and_truncations_by_hand() -> None:
    found = Evaluation(
        5,
        (
            EpisodeRecord(1.0, 10, TERMINATED),
            EpisodeRecord(1.0, 3, TRUNCATED),
            EpisodeRecord(1.0, 8, TRUNCATED),
        ),
    )
    assert (found.n_episodes, found.n_truncated, found.n_confirming) == (3, 2, 0)
    assert (found.mean_length, found.min_length, found.max_length) == (7.0, 3, 10)


@pytest.mark.parametrize(
    ("extras", "rate"),
    [
        ([{}, {}], None),
        ([{"score": 1.0}], None),
        ([{"is_success": 1.0}], 1.0),
        ([{"is_success": 0.0}, {"is_success": 0.0}], 0.0),
        ([{"is_success": 1.0}, {"is_success": 0.0}, {"is_success": 1.0}, {"is_success": 1.0}], 0.75),
        ([{"is_success": 1.0}, {}, {}, {}], 0.25),  # it speaks of success only when there is one
        ([{"is_success": -1.0}, {"is_success": 0.5}], 0.5),
    ],
    ids=["silent", "other", "one", "none-of-two", "three-of-four", "one-speaks", "not-0-or-1"],
)
def test_success_by_hand(extras: list[dict[str, float]], rate: float | None) -> None:
    found = Evaluation(5, tuple(EpisodeRecord(1.0, 1, TERMINATED, given) for given in extras))
    assert found.success_rate == rate
    assert found.metrics().get("eval/success_rate") == rate


def test_metrics_have_the_names_that_dashboards_know() -> None:
    found = of([0.0, 4.0, 2.0, 100.0])
    assert found.metrics() == {
        "eval/mean_reward": 26.5,
        "eval/std_reward": found.std_reward,
        "eval/median_reward": 3.0,
        "eval/min_reward": 0.0,
        "eval/max_reward": 100.0,
        "eval/iqm_reward": 3.0,
        "eval/iqm_low": found.iqm_interval.low,
        "eval/iqm_high": found.iqm_interval.high,
        "eval/mean_ep_length": 2.5,
    }
    assert {type(value) for value in found.metrics().values()} == {float}


def test_it_is_compared_by_the_mean_or_by_the_lower_end_of_its_interval() -> None:
    rewards = [0.0, 1.0] * 5
    assert of(rewards).value == 0.5
    assert of(rewards, best_by="lower_bound").value == 0.2


def test_statistics_are_of_the_records_also_after_a_replacement() -> None:
    found = of([1.0, 2.0])
    found.settle()
    assert found.mean_reward == 1.5
    more = msgspec.structs.replace(found, records=(*found.records, EpisodeRecord(9.0, 1, TERMINATED)))
    assert (more.mean_reward, more.rewards, more.mean_interval.high) == (4.0, (1.0, 2.0, 9.0), 9.0)
    assert found == of([1.0, 2.0]) != of([1.0, 2.5]), "what was computed plays no part"
    with pytest.raises(AttributeError):
        found.is_best = True  # pyright: ignore


def test_a_verdict_keeps_what_was_computed() -> None:
    found = of([1.0, 2.0], best_by="lower_bound", n_confirming=1)
    found.settle()
    best = found.judged(is_best=True)
    assert best == of([1.0, 2.0], best_by="lower_bound", n_confirming=1, is_best=True)
    assert best.iqm_interval is found.iqm_interval
    assert not found.is_best


def test_one_without_episodes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"records=\(\)"):
        Evaluation(5, ())
