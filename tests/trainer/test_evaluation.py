"""Evaluations: statistics worked by hand, settings refused by name, and rules that end a training."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from stoker.errors import ConfigError
from stoker.stats import EpisodeRecord
from stoker.stats.intervals import Interval
from stoker.trainer.evaluation import Evaluation, EvaluationSettings, NoImprovement, StopAtReward
from stoker.types import EpisodeStatus

TERMINATED, TRUNCATED = EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED


def of(rewards: list[float], total_steps: int = 100, **settings: Any) -> Evaluation:
    """An evaluation with these rewards; the i-th episode has i + 1 steps."""
    records = [EpisodeRecord(reward, i + 1, TERMINATED) for i, reward in enumerate(rewards)]
    return Evaluation(total_steps, tuple(records), **settings)


def test_rewards_by_hand() -> None:
    for rewards, mean, std, median, iqm, low, high in [
        ([3.0], 3.0, 0.0, 3.0, 3.0, 3.0, 3.0),
        ([1.0, 4.0], 2.5, 1.5, 2.5, 2.5, 1.0, 4.0),
        ([2.0, 9.0, 4.0], 5.0, math.sqrt((9 + 16 + 1) / 3), 4.0, 5.0, 2.0, 9.0),
        ([4.0, 0.0, 100.0, 2.0], 26.5, math.sqrt(1802.75), 3.0, 3.0, 0.0, 100.0),
        ([8.0, 1.0, 2.0, 7.0, 3.0, 6.0, 4.0, -15.0], 2.0, math.sqrt(46.5), 3.5, 3.75, -15.0, 8.0),
    ]:
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


def test_success_by_hand() -> None:
    for extras, rate in [
        ([{}, {}], None),
        ([{"score": 1.0}], None),
        ([{"is_success": 1.0}], 1.0),
        ([{"is_success": 0.0}, {"is_success": 0.0}], 0.0),
        ([{"is_success": 1.0}, {"is_success": 0.0}, {"is_success": 1.0}, {"is_success": 1.0}], 0.75),
        ([{"is_success": 1.0}, {}, {}, {}], 0.25),  # it speaks of success only when there is one
        ([{"is_success": -1.0}, {"is_success": 0.5}], 0.5),
    ]:
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
    found.compute_intervals()
    assert found.mean_reward == 1.5
    more = msgspec.structs.replace(found, records=(*found.records, EpisodeRecord(9.0, 1, TERMINATED)))
    assert (more.mean_reward, more.rewards, more.mean_interval.high) == (4.0, (1.0, 2.0, 9.0), 9.0)
    assert found == of([1.0, 2.0]) != of([1.0, 2.5]), "what was computed plays no part"
    with pytest.raises(AttributeError):
        found.is_best = True  # pyright: ignore


def test_a_verdict_keeps_computed_statistics() -> None:
    found = of([1.0, 2.0], best_by="lower_bound", n_confirming=1)
    found.compute_intervals()
    best = found.with_verdict(is_best=True)
    assert best == of([1.0, 2.0], best_by="lower_bound", n_confirming=1, is_best=True)
    assert best.iqm_interval is found.iqm_interval
    assert not found.is_best


def test_one_without_episodes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"records=\(\)"):
        Evaluation(5, ())


def test_what_cannot_be_used_is_refused_by_name() -> None:
    for settings, message in [
        ({"n_episodes": 0}, "n_episodes=0: give an int of at least 1$"),
        ({"n_episodes": True}, "n_episodes=True"),
        ({"n_episodes": 2.0}, "n_episodes=2.0"),
        ({"seed": -1}, "seed=-1: give an int of at least 0$"),
        ({"seed": None}, "seed=None"),
        ({"max_episode_steps": 0}, "max_episode_steps=0: give an int of at least 1, or None$"),
        ({"concurrency": -3}, "concurrency=-3: give an int of at least 1, or None$"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"best_by": "median"}, "best_by='median': give 'lower_bound' or 'mean'$"),
        ({"confirm": 1}, "confirm=1: give True or False"),
        ({"stop_at_reward": float("nan")}, "stop_at_reward=nan: give a finite number, or None"),
        ({"stop_at_reward": "475"}, "stop_at_reward='475'"),
        ({"patience": 0}, "patience=0"),
        ({"min_delta": -0.1}, "min_delta=-0.1"),
        ({"min_delta": float("inf")}, "min_delta=inf"),
        ({"after_steps": -1}, "after_steps=-1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            EvaluationSettings(**settings)


def test_rules_come_from_the_settings_new_each_time() -> None:
    assert EvaluationSettings(min_delta=1.0).stop_rules() == ()
    settings = EvaluationSettings(stop_at_reward=475, patience=3, min_delta=0.5, after_steps=10)
    goal, rule = settings.stop_rules()
    assert isinstance(goal, StopAtReward)
    assert goal.reward == 475
    assert isinstance(rule, NoImprovement)
    assert (rule.patience, rule.min_delta, rule.after_steps) == (3, 0.5, 10)
    assert settings.stop_rules()[1] is not rule, "what one evaluator has counted is not another's"


def test_settings_can_be_written_down() -> None:
    settings = EvaluationSettings(n_episodes=5, best_by="lower_bound", confirm=True, patience=3)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=EvaluationSettings) == settings


def stopped_at(rule: NoImprovement, values: list[float], best: float | None = None, every: int = 10) -> Any:
    """The place of the first evaluation that ends it, the k-th being of step ``k * every``."""
    for place, value in enumerate(values):
        if rule.judge(of([value], total_steps=place * every), best) is not None:
            return place
        best = value if best is None else max(best, value)
    return None


def test_no_improvement() -> None:
    for settings, best, values, expected in [
        # the first sets the best; the count begins with the second
        ({"patience": 1}, None, [5.0, 5.0], 1),
        ({"patience": 2}, None, [5.0, 4.0, 6.0, 6.0, 6.0], 4),
        ({"patience": 3}, None, [1.0, 2.0, 3.0, 4.0, 5.0], None),
        ({"patience": 3}, None, [5.0, 1.0, 2.0, 3.0], 3),  # rising is not improving on the best
        # a resumed run: its best is what must be beaten
        ({"patience": 2}, 7.0, [6.0, 6.5], 1),
        ({"patience": 2}, 7.0, [6.0, 8.0, 7.0, 7.0], 3),
        # small steps count together, and only then
        ({"patience": 3, "min_delta": 1.0}, None, [0.0, 0.6, 1.2, 1.8, 2.4, 3.0], None),
        ({"patience": 3, "min_delta": 1.0}, None, [0.0, 0.3, 0.6, 0.9], 3),
        (
            {"patience": 2, "min_delta": 1.0},
            0.0,
            [0.6, 1.2, 1.2, 1.2],
            3,
        ),  # also a resumed run's
        ({"patience": 1, "min_delta": 1.0}, None, [0.0, 1.0], 1),  # more than, not as much as
        # what comes before after_steps can improve but does not count
        ({"patience": 2, "after_steps": 30}, None, [9.0, 1.0, 1.0, 1.0, 1.0], 4),
        ({"patience": 1, "after_steps": 30}, None, [9.0, 1.0, 1.0, 10.0, 1.0], 4),
        ({"patience": 1}, None, [-5.0, -4.0, -6.0], 2),
    ]:
        assert stopped_at(NoImprovement(**settings), values, best) == expected


def test_it_says_why() -> None:
    rule = NoImprovement(2, min_delta=0.5)
    assert rule.judge(of([12.0]), None) is None
    assert rule.judge(of([12.25]), 12.0) is None
    reason = rule.judge(of([11.0]), 12.25)
    assert reason == "no evaluation of the last 2 was better than 12 by more than 0.5"
    assert rule.n_without == 2


def test_it_compares_what_the_best_is_best_by() -> None:
    rule = NoImprovement(1)
    assert rule.judge(of([5.0, 5.0], best_by="lower_bound"), None) is None
    uneven = of([0.0, 20.0] * 2, best_by="lower_bound")
    assert uneven.mean_reward == 10.0
    assert rule.judge(uneven, 5.0) == "no evaluation of the last 1 was better than 5"


def test_a_goal_is_reached_by_the_mean() -> None:
    for rewards, reached in [([1.0, 9.0], True), ([1.0, 8.0], False), ([6.0], True)]:
        reason = StopAtReward(5.0).judge(of(rewards, best_by="lower_bound"), None)
        assert reason == (f"the mean reward {sum(rewards) / len(rewards):g} reached 5" if reached else None)


def test_a_rule_that_cannot_be_used_is_refused() -> None:
    for make, message in [
        (lambda: NoImprovement(0), "patience=0"),
        (lambda: NoImprovement(patience=True), "patience=True"),
        (lambda: NoImprovement(1, min_delta=float("nan")), "min_delta=nan"),
        (lambda: NoImprovement(1, after_steps=1.5), "after_steps=1.5"),  # pyright: ignore
        (lambda: StopAtReward(float("nan")), "reward=nan"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make()
