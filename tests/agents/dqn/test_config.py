from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from stoker.agents import DQNConfig
from stoker.errors import ConfigError

REFUSED: list[tuple[str, Any, str]] = [
    ("learning_rate", 0.0, "above 0"),
    ("learning_rate", -1e-3, "above 0"),
    ("learning_rate", math.nan, "finite"),
    ("learning_rate", math.inf, "finite"),
    ("learning_rate", "fast", "number"),
    ("learning_rate", True, "number"),
    ("gamma", -0.1, "at least 0 and at most 1"),
    ("gamma", 1.01, "at least 0 and at most 1"),
    ("gamma", 10**400, "at most 1"),
    ("batch_size", 0, "at least 1"),
    ("batch_size", 1.5, "whole number"),
    ("batch_size", True, "whole number"),
    ("batch_size", 100_001, r"at most buffer_size \(100000\)"),
    ("buffer_size", 0, "at least 1"),
    ("learning_starts", -1, "at least 0"),
    ("learning_starts", 100_001, r"at most buffer_size \(100000\)"),
    ("target_update_interval", 0, "at least 1"),
    ("tau", 0.0, "above 0 and at most 1"),
    ("tau", 1.5, "above 0 and at most 1"),
    ("hidden_sizes", (64, 0), "at least 1"),
    ("hidden_sizes", [64, 64], "tuple"),
    ("hidden_sizes", 64, "tuple"),
    ("initial_epsilon", 1.5, "at most 1"),
    ("final_epsilon", -0.1, "at least 0"),
    ("final_epsilon", math.nan, "finite"),
    ("epsilon_decay_steps", 0, "at least 1"),
    ("double", 1, "True or False"),
    ("dueling", None, "True or False"),
    ("prioritized", "yes", "True or False"),
    ("normalize_rewards", 0, "True or False"),
    ("network", "cnn", "'mlp' or 'nature_cnn'"),
    ("network", ["mlp"], "'mlp' or 'nature_cnn'"),
    ("exploration", "boltzmann", "'epsilon' or 'softmax'"),
    ("softmax_temperature", 0.0, "above 0"),
    ("clip_rewards", 0.0, "above 0"),
    ("clip_rewards", math.inf, "finite"),
    ("priority_alpha", 1.5, "at least 0 and at most 1"),
    ("priority_beta", -0.1, "at least 0 and at most 1"),
    ("priority_final_beta", math.nan, "at least 0 and at most 1"),
    ("priority_beta_steps", 0, "at least 1"),
    ("priority_epsilon", 0.0, "above 0"),
    ("memory_map", "", "None or the path of a directory"),
    ("memory_map", 3, "None or the path of a directory"),
    ("max_grad_norm", 0.0, "above 0"),
    ("max_grad_norm", math.inf, "finite"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), REFUSED, ids=[f"{f}={v!s:.9}" for f, v, _ in REFUSED])
def test_values_out_of_range_are_refused(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}.*must be.*{allowed}.*got ") as refusal:
        DQNConfig(**{field: value})
    assert repr(value) in str(refusal.value) or field == "hidden_sizes"


def test_final_epsilon_does_not_exceed_the_initial_one() -> None:
    with pytest.raises(ConfigError, match=r"final_epsilon must be at most initial_epsilon \(0.1\), got 0.2"):
        DQNConfig(initial_epsilon=0.1, final_epsilon=0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.0}, {"gamma": 1}, {"tau": 1.0}, {"hidden_sizes": ()}, {"learning_starts": 0},
        {"max_grad_norm": None}, {"initial_epsilon": 0.0, "final_epsilon": 0.0},
        {"buffer_size": 64, "batch_size": 64, "learning_starts": 64},
        {"priority_alpha": 0, "priority_beta": 0.0, "priority_final_beta": 0}, {"clip_rewards": 1},
        {"priority_alpha": 1.0, "priority_beta": 1, "priority_final_beta": 0.5}, {"memory_map": "replays"},
    ],
)  # fmt: skip
def test_the_ends_of_the_ranges_are_taken(settings: dict[str, Any]) -> None:
    DQNConfig(**settings)


def test_unknown_fields_are_refused_when_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="gama"):
        msgspec.convert({"gama": 0.9}, DQNConfig)


def test_values_are_checked_when_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="gamma must be"):
        msgspec.convert({"gamma": 2.0}, DQNConfig)


def test_settings_survive_json() -> None:
    config = DQNConfig(
        tau=0.005, hidden_sizes=(32,), double=True, max_grad_norm=None, dueling=True, prioritized=True,
        exploration="softmax", network="nature_cnn", clip_rewards=1.0, memory_map="/tmp/replays",
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(config), type=DQNConfig) == config


@pytest.mark.parametrize(
    ("total_steps", "epsilon"),
    [
        (0, 1.0), (1, 1.0 - 0.99 / 10_000), (2_500, 0.7525), (5_000, 0.505), (9_999, 0.010099),
        (10_000, 0.01), (10_001, 0.01), (10**9, 0.01),
    ],
)  # fmt: skip
def test_epsilon_falls_linearly_then_stays(total_steps: int, epsilon: float) -> None:
    assert DQNConfig().epsilon_at(total_steps) == pytest.approx(epsilon, rel=1e-12)
    assert DQNConfig().epsilon_at(10**9) == 0.01


def test_what_is_new_is_off() -> None:
    config = DQNConfig()
    assert config.dueling is config.prioritized is config.normalize_rewards is False
    assert (config.network, config.exploration) == ("auto", "epsilon")
    assert config.clip_rewards is config.memory_map is None


def test_the_exploration_rate_is_epsilon_or_the_temperature() -> None:
    epsilon, softmax = DQNConfig(), DQNConfig(exploration="softmax", softmax_temperature=0.5)
    assert (epsilon.exploration_rate_name, softmax.exploration_rate_name) == ("epsilon", "temperature")
    for total_steps in (0, 5_000, 10**9):
        assert epsilon.exploration_rate_at(total_steps) == epsilon.epsilon_at(total_steps)
        assert softmax.exploration_rate_at(total_steps) == 0.5


@pytest.mark.parametrize(("total_steps", "rate"), [(0, 0.4), (25, 0.3), (50, 0.2), (100, 0.0), (900, 0.0)])
def test_a_linear_schedule_by_table(total_steps: int, rate: float) -> None:
    config = DQNConfig(learning_rate=0.4, learning_rate_schedule="linear", schedule_steps=100)
    assert config.learning_rate_at(total_steps) == pytest.approx(rate)
    assert DQNConfig(learning_rate=0.4).learning_rate_at(total_steps) == 0.4


def test_a_schedule_needs_its_length() -> None:
    with pytest.raises(ConfigError, match="schedule_steps must be .*got None"):
        DQNConfig(learning_rate_schedule="linear")
    with pytest.raises(ConfigError, match="learning_rate_schedule must be constant or linear"):
        DQNConfig(learning_rate_schedule="cosine")  # type: ignore[arg-type]
