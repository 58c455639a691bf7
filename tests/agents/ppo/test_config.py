from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from stoker.agents import PPOConfig
from stoker.errors import ConfigError

REFUSED: list[tuple[str, Any, str]] = [
    ("learning_rate", 0.0, "above 0"),
    ("learning_rate", math.nan, "finite"),
    ("rollout_steps", 0, "at least 1"),
    ("n_epochs", 0, "at least 1"),
    ("n_epochs", True, "whole number"),
    ("batch_size", 0, "at least 1"),
    ("batch_size", 1.5, "whole number"),
    ("gamma", 1.01, "at least 0 and at most 1"),
    ("gae_lambda", -0.1, "at least 0 and at most 1"),
    ("clip_range", 0.0, "above 0"),
    ("value_clip_range", 0.0, "above 0"),
    ("normalize_advantages", 1, "True or False"),
    ("ent_coef", -0.1, "at least 0"),
    ("vf_coef", -1, "at least 0"),
    ("max_grad_norm", 0.0, "above 0"),
    ("target_kl", 0.0, "above 0"),
    ("learning_rate_schedule", "cosine", "constant or linear"),
    ("clip_range_schedule", None, "constant or linear"),
    ("schedule_steps", 0, "at least 1"),
    ("network", "resnet", "mlp or nature_cnn"),
    ("hidden_sizes", (64, 0), "at least 1"),
    ("hidden_sizes", [64, 64], "tuple"),
    ("activation", "gelu", "tanh or relu"),
    ("log_std_init", math.inf, "finite"),
    ("normalize_observations", "yes", "True or False"),
    ("normalize_rewards", 0, "True or False"),
    ("clip_rewards", -1.0, "above 0"),
    ("adam_eps", 0.0, "above 0"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), REFUSED, ids=[f"{f}={v!s:.9}" for f, v, _ in REFUSED])
def test_values_out_of_range_are_refused(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}.*must be.*{allowed}.*got ") as refusal:
        PPOConfig(**{field: value})
    assert repr(value) in str(refusal.value) or field == "hidden_sizes"


@pytest.mark.parametrize("field", ["learning_rate_schedule", "clip_range_schedule"])
def test_a_linear_schedule_needs_its_steps(field: str) -> None:
    with pytest.raises(ConfigError, match=f'schedule_steps must be .* with {field}="linear".*got None'):
        PPOConfig(**{field: "linear"})


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.0, "gae_lambda": 1}, {"hidden_sizes": ()}, {"max_grad_norm": None}, {"ent_coef": 0},
        {"vf_coef": 0.0}, {"schedule_steps": 1}, {"rollout_steps": 1, "batch_size": 999, "n_epochs": 1},
        {"log_std_init": -3.0},
    ],
)  # fmt: skip
def test_the_ends_of_the_ranges_are_taken(settings: dict[str, Any]) -> None:
    PPOConfig(**settings)


def test_the_defaults_are_those_of_the_paper_s_usual_implementation() -> None:
    config = PPOConfig()
    assert (config.learning_rate, config.rollout_steps, config.n_epochs, config.batch_size) == (
        3e-4,
        2_048,
        10,
        64,
    )
    assert (config.clip_range, config.gae_lambda, config.max_grad_norm) == (0.2, 0.95, 0.5)


def test_settings_survive_json() -> None:
    config = PPOConfig(
        learning_rate_schedule="linear", schedule_steps=10, hidden_sizes=(32,), clip_rewards=10.0
    )
    assert msgspec.json.decode(msgspec.json.encode(config), type=PPOConfig) == config


@pytest.mark.parametrize(
    ("total_steps", "left"), [(0, 1.0), (1, 0.999), (250, 0.75), (999, 0.001), (1_000, 0.0), (10**9, 0.0)]
)
def test_linear_schedules_fall_to_0_and_stay(total_steps: int, left: float) -> None:
    constant = PPOConfig(learning_rate=0.01, clip_range=0.2, schedule_steps=1_000)
    assert (constant.learning_rate_at(total_steps), constant.clip_range_at(total_steps)) == (0.01, 0.2)
    rate = msgspec.structs.replace(constant, learning_rate_schedule="linear")
    assert rate.learning_rate_at(total_steps) == pytest.approx(0.01 * left, rel=1e-9)
    assert rate.clip_range_at(total_steps) == 0.2
    clip = msgspec.structs.replace(constant, clip_range_schedule="linear")
    assert clip.clip_range_at(total_steps) == pytest.approx(0.2 * left, rel=1e-9)
    assert clip.learning_rate_at(total_steps) == 0.01
