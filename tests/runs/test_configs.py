"""Settings of runs side by side."""

from __future__ import annotations

from typing import Any

import pytest

from stoker import ConfigError
from stoker.runs.configs import Facts, differences, flat_settings, grouped

CONFIG: dict[str, Any] = {
    "env": "CartPole-v1",
    "seed": None,
    "wrappers": [],
    "env_kwargs": {},
    "agent_settings": {"learning_rate": 1e-3, "hidden_sizes": [64, 64], "double": True},
}


def test_settings_have_flat_names() -> None:
    assert flat_settings(CONFIG) == {
        "env": "CartPole-v1",
        "seed": None,
        "wrappers": "[]",
        "env_kwargs": "{}",
        "agent_settings.learning_rate": 1e-3,
        "agent_settings.hidden_sizes": "[64,64]",
        "agent_settings.double": True,
    }
    assert flat_settings(None) == flat_settings([1]) == flat_settings({}) == {}


def test_what_differs_comes_first_and_what_is_missing_is_seen() -> None:
    other: dict[str, Any] = {**CONFIG, "seed": 1, "frame_stack": 4}
    same = {**CONFIG, "agent_settings": {**CONFIG["agent_settings"], "double": 1}}
    found = differences({"a": CONFIG, "b": other, "c": same})
    assert [(each.key, each.values) for each in found if each.differs] == [
        ("seed", ("none", 1, "none")),
        ("agent_settings.double", (True, True, 1)),
        ("frame_stack", (None, 4, None)),
    ]
    assert [each.differs for each in found] == [True] * 3 + [False] * 5
    assert differences({}) == []
    assert not any(each.differs for each in differences({"a": {"x": 1}, "b": {"x": 1.0}}))


def facts(version: str, **settings: Any) -> Facts:
    return Facts(version, settings)


def test_runs_are_grouped_by_version_or_by_a_setting() -> None:
    runs = [
        facts("CartPole-v1/v2", env="CartPole-v1", agent="ppo", **{"agent_settings.gamma": 0.99}),
        facts("CartPole-v1/v1", env="CartPole-v1", agent="dqn", **{"agent_settings.gamma": 0.9}),
        facts("CartPole-v1/v2", env="CartPole-v1", agent="ppo", **{"agent_settings.gamma": 0.990}),
        facts("CartPole-v1/v3"),
    ]
    groups, absent = grouped(runs, "version")
    assert [(group.label, group.members) for group in groups] == [
        ("CartPole-v1/v2", (0, 2)),
        ("CartPole-v1/v1", (1,)),
        ("CartPole-v1/v3", (3,)),
    ]
    assert absent == []
    groups, absent = grouped(runs, "agent_settings.gamma")
    assert [(group.label, group.members) for group in groups] == [("gamma=0.99", (0, 2)), ("gamma=0.9", (1,))]
    assert absent == [3]


def test_rewards_of_two_environments_are_not_averaged() -> None:
    runs = [
        facts("a/v1", env="CartPole-v1", agent="dqn"),
        facts("b/v1", env="Acrobot-v1", agent="dqn"),
        facts("c/v1", env="CartPole-v1", agent="dqn"),
    ]
    groups, _ = grouped(runs, "agent")
    assert [(group.label, group.members) for group in groups] == [
        ("agent=dqn, CartPole-v1", (0, 2)),
        ("agent=dqn, Acrobot-v1", (1,)),
    ]


@pytest.mark.parametrize(
    ("by", "hint"),
    [
        ("gamma", "did you mean agent_settings.gamma"),
        ("agnt", "did you mean agent"),
        ("q", "give version or"),
    ],
)
def test_a_setting_of_no_run_names_the_one_that_was_meant(by: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"group by '{by}': no run has such a setting; {hint}"):
        grouped([facts("a/v1", agent="dqn", **{"agent_settings.gamma": 0.9})], by)
    assert grouped([], by) == ([], [])
