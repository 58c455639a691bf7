from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stoker.errors import ConfigError
from stoker.trainer.evaluation_settings import EvaluationSettings
from stoker.trainer.stopping import NoImprovement, StopAtReward


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_episodes": 0}, "n_episodes=0: .*at least 1"),
        ({"n_episodes": True}, "n_episodes=True"),
        ({"n_episodes": 2.0}, "n_episodes=2.0"),
        ({"seed": -1}, "seed=-1: .*at least 0"),
        ({"seed": None}, "seed=None"),
        ({"max_episode_steps": 0}, "max_episode_steps=0: .*None for no limit"),
        ({"concurrency": -3}, "concurrency=-3: .*None for no limit"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"best_by": "median"}, "best_by='median': choose one of mean, lower_bound"),
        ({"confirm": 1}, "confirm=1: give True or False"),
        ({"stop_at_reward": float("nan")}, "stop_at_reward=nan"),
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
