"""Settings of an evaluator, refused by name; and which evaluation ends a training, in tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stoker.errors import ConfigError
from stoker.stats import EpisodeRecord
from stoker.trainer.evaluation import Evaluation
from stoker.trainer.evaluation_settings import EvaluationSettings, NoImprovement, StopAtReward
from stoker.types import EpisodeStatus


@pytest.mark.parametrize(
    ("settings", "message"),
    [
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
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(f"{k}-{v}" for k, v in value.items()),
)
def test_what_cannot_be_used_is_refused_by_name(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationSettings(**settings)


def test_rules_come_from_the_settings_new_each_time() -> None:
    assert EvaluationSettings().goal() is None
    assert EvaluationSettings(min_delta=1.0).stop_rules() == ()
    settings = EvaluationSettings(stop_at_reward=475, patience=3, min_delta=0.5, after_steps=10)
    goal, (rule,) = settings.goal(), settings.stop_rules()
    assert isinstance(goal, StopAtReward)
    assert goal.reward == 475
    assert isinstance(rule, NoImprovement)
    assert (rule.patience, rule.min_delta, rule.after_steps) == (3, 0.5, 10)
    assert settings.stop_rules()[0] is not rule, "what one evaluator has counted is not another's"


def test_settings_can_be_written_down() -> None:
    settings = EvaluationSettings(n_episodes=5, best_by="lower_bound", confirm=True, patience=3)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=EvaluationSettings) == settings


def of(*rewards: float, total_steps: int = 0, **settings: Any) -> Evaluation:
    records = [EpisodeRecord(reward, 1, EpisodeStatus.TERMINATED) for reward in rewards]
    return Evaluation(total_steps, tuple(records), **settings)


def stopped_at(rule: NoImprovement, values: list[float], best: float | None = None, every: int = 10) -> Any:
    """The place of the first evaluation that ends it, the k-th being of step ``k * every``."""
    for place, value in enumerate(values):
        if rule.judge(of(value, total_steps=place * every), best) is not None:
            return place
        best = value if best is None else max(best, value)
    return None


@pytest.mark.parametrize(
    ("settings", "best", "values", "expected"),
    [
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
        ({"patience": 1, "min_delta": 1.0}, None, [0.0, 1.0], 1),  # more than, not as much as
        # what comes before after_steps can improve but does not count
        ({"patience": 2, "after_steps": 30}, None, [9.0, 1.0, 1.0, 1.0, 1.0], 4),
        ({"patience": 1, "after_steps": 30}, None, [9.0, 1.0, 1.0, 10.0, 1.0], 4),
        ({"patience": 1}, None, [-5.0, -4.0, -6.0], 2),
    ],
    ids=lambda value: str(value).replace(" ", "") if isinstance(value, dict) else None,
)
def test_no_improvement(settings: Any, best: float | None, values: list[float], expected: int | None) -> None:
    assert stopped_at(NoImprovement(**settings), values, best) == expected


def test_it_says_why() -> None:
    rule = NoImprovement(2, min_delta=0.5)
    assert rule.judge(of(12.0), None) is None
    assert rule.judge(of(12.25), 12.0) is None
    reason = rule.judge(of(11.0), 12.25)
    assert reason == "no evaluation of the last 2 was better than 12 by more than 0.5"
    assert rule.n_without == 2


def test_it_compares_what_the_best_is_best_by() -> None:
    rule = NoImprovement(1)
    assert rule.judge(of(5.0, 5.0, best_by="lower_bound"), None) is None
    uneven = of(*[0.0, 20.0] * 2, best_by="lower_bound")
    assert uneven.mean_reward == 10.0
    assert rule.judge(uneven, 5.0) == "no evaluation of the last 1 was better than 5"


@pytest.mark.parametrize(("rewards", "reached"), [([1.0, 9.0], True), ([1.0, 8.0], False), ([6.0], True)])
def test_a_goal_is_reached_by_the_mean(rewards: list[float], reached: bool) -> None:
    reason = StopAtReward(5.0).judge(of(*rewards, best_by="lower_bound"), None)
    assert reason == (f"the mean reward {sum(rewards) / len(rewards):g} reached 5" if reached else None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoImprovement(0), "patience=0"),
        (lambda: NoImprovement(patience=True), "patience=True"),
        (lambda: NoImprovement(1, min_delta=float("nan")), "min_delta=nan"),
        (lambda: NoImprovement(1, after_steps=1.5), "after_steps=1.5"),  # pyright: ignore
        (lambda: StopAtReward(float("nan")), "reward=nan"),
    ],
    ids=["none", "bool", "nan", "fraction", "goal"],
)
def test_a_rule_that_cannot_be_used_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
