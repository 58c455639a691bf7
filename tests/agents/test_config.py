"""The settings of DQN and PPO: their limits, schedules, and the network that "auto" stands for."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from stoker.agents import DQN, PPO, DQNConfig, PPOConfig
from stoker.errors import ConfigError

SHARED: list[tuple[str, list[Any], str]] = [
    ("learning_rate", [0.0, -1e-3, math.nan, math.inf, "fast", True], "a finite number above 0"),
    ("gamma", [-0.1, 1.01, 10**400, math.nan], "of at least 0 and of at most 1"),
    ("batch_size", [0, 1.5, True], "an int of at least 1"),
    ("max_grad_norm", [0.0, math.inf], "above 0, or None"),
    ("hidden_sizes", [(64, 0), 64], "a list, each item an int of at least 1"),
    ("normalize_observations", ["yes"], "True or False"),
    ("normalize_rewards", [0], "True or False"),
    ("clip_rewards", [0.0, -1.0, math.inf], "above 0, or None"),
    ("network", ["nature_cnn", ["mlp"]], "'auto' or 'cnn' or 'mlp'"),
    ("learning_rate_schedule", ["cosine"], "'constant' or 'linear'"),
    ("schedule_steps", [0], "an int of at least 1, or None"),
]
OF_DQN: list[tuple[str, list[Any], str]] = [
    ("batch_size", [100_001], "at most buffer_size (100000)"),
    ("learning_starts", [-1], "an int of at least 0"),
    ("learning_starts", [100_001], "at most buffer_size (100000)"),
    ("buffer_size", [0], "at least 1"),
    ("target_update_interval", [0], "at least 1"),
    ("tau", [0.0, 1.5], "above 0 and of at most 1, or None"),
    ("n_step", [0], "at least 1"),
    ("initial_epsilon", [1.5], "at most 1"),
    ("final_epsilon", [-0.1, math.nan], "at least 0"),
    ("epsilon_decay_steps", [0], "at least 1"),
    ("double", [1], "True or False"),
    ("dueling", [None], "True or False"),
    ("prioritized", ["yes"], "True or False"),
    ("exploration", ["boltzmann"], "'epsilon' or 'softmax'"),
    ("softmax_temperature", [0.0], "above 0"),
    ("priority_alpha", [1.5], "of at least 0 and of at most 1"),
    ("priority_beta", [-0.1], "of at least 0 and of at most 1"),
    ("priority_final_beta", [math.nan], "of at least 0 and of at most 1"),
    ("priority_beta_steps", [0], "at least 1"),
    ("priority_epsilon", [0.0], "above 0 and of at most 1"),
    ("memory_map", [3, ""], "a text, or None"),
]
OF_PPO: list[tuple[str, list[Any], str]] = [
    ("rollout_steps", [0], "at least 1"),
    ("n_epochs", [0, True], "an int of at least 1"),
    ("gae_lambda", [-0.1], "of at least 0 and of at most 1"),
    ("clip_range", [0.0], "above 0"),
    ("clip_range_schedule", [None], "'constant' or 'linear'"),
    ("value_clip_range", [0.0], "above 0"),
    ("normalize_advantages", [1], "True or False"),
    ("ent_coef", [-0.1], "at least 0"),
    ("vf_coef", [-1], "at least 0"),
    ("target_kl", [0.0], "above 0"),
    ("activation", ["gelu"], "'relu' or 'tanh'"),
    ("log_std_init", [math.inf], "of at least -20 and of at most 20"),
    ("adam_eps", [0.0], "above 0"),
]
CONFIGS: dict[str, type[Any]] = {"dqn": DQNConfig, "ppo": PPOConfig}


@pytest.mark.parametrize(("kind", "table"), [("dqn", SHARED + OF_DQN), ("ppo", SHARED + OF_PPO)], ids=CONFIGS)
def test_values_out_of_range_are_refused(kind: str, table: list[tuple[str, list[Any], str]]) -> None:
    for field, values, allowed in table:
        for value in values:
            start = re.escape(f"{field}={value!r}: give ")
            with pytest.raises(ConfigError, match=f"^{start}.*{re.escape(allowed)}"):
                CONFIGS[kind](**{field: value})


def test_the_ends_of_the_ranges_are_taken() -> None:
    for settings in (
        {"gamma": 0.0}, {"gamma": 1}, {"tau": 1.0}, {"hidden_sizes": ()}, {"learning_starts": 0},
        {"max_grad_norm": None}, {"initial_epsilon": 0.0, "final_epsilon": 0.0},
        {"buffer_size": 64, "batch_size": 64, "learning_starts": 64},
        {"priority_alpha": 0, "priority_beta": 0.0, "priority_final_beta": 0}, {"clip_rewards": 1},
        {"priority_alpha": 1.0, "priority_beta": 1, "priority_final_beta": 0.5}, {"memory_map": "replays"},
    ):  # fmt: skip
        DQNConfig(**settings)
    for settings in (
        {"gamma": 0.0, "gae_lambda": 1}, {"hidden_sizes": ()}, {"max_grad_norm": None}, {"ent_coef": 0},
        {"vf_coef": 0.0}, {"schedule_steps": 1}, {"rollout_steps": 1, "batch_size": 999, "n_epochs": 1},
        {"log_std_init": -3.0},
    ):  # fmt: skip
        PPOConfig(**settings)


def test_settings_that_depend_on_each_other_are_checked_together() -> None:
    with pytest.raises(ConfigError, match=r"final_epsilon=0.2: give at most initial_epsilon \(0.1\)"):
        DQNConfig(initial_epsilon=0.1, final_epsilon=0.2)
    for config, field in (
        (DQNConfig, "learning_rate_schedule"),
        (PPOConfig, "learning_rate_schedule"),
        (PPOConfig, "clip_range_schedule"),
    ):
        with pytest.raises(ConfigError, match=f'schedule_steps=None: give .* of {field}="linear"'):
            config(**{field: "linear"})


def test_unknown_fields_and_unfit_values_are_refused_when_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="gama"):
        msgspec.convert({"gama": 0.9}, DQNConfig)
    with pytest.raises(msgspec.ValidationError, match="gamma"):
        msgspec.convert({"gamma": 2.0}, DQNConfig)


@pytest.mark.parametrize(
    "config",
    [
        DQNConfig(
            tau=0.005, hidden_sizes=(32,), double=True, max_grad_norm=None, dueling=True, prioritized=True,
            exploration="softmax", network="cnn", clip_rewards=1.0, memory_map="/tmp/replays",
        ),
        PPOConfig(learning_rate_schedule="linear", schedule_steps=10, hidden_sizes=(32,), clip_rewards=10.0),
    ],
    ids=CONFIGS,
)  # fmt: skip
def test_settings_survive_json(config: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(config), type=type(config)) == config


def test_defaults() -> None:
    dqn, ppo = DQNConfig(), PPOConfig()
    assert dqn.dueling is dqn.prioritized is dqn.normalize_rewards is False
    assert (dqn.network, dqn.exploration) == ("auto", "epsilon")
    assert dqn.clip_rewards is dqn.memory_map is None
    # those of the paper's usual implementation
    assert (ppo.learning_rate, ppo.rollout_steps, ppo.n_epochs, ppo.batch_size) == (3e-4, 2_048, 10, 64)
    assert (ppo.clip_range, ppo.gae_lambda, ppo.max_grad_norm) == (0.2, 0.95, 0.5)


def test_epsilon_falls_linearly_then_stays() -> None:
    for total_steps, epsilon in (
        (0, 1.0), (1, 1.0 - 0.99 / 10_000), (2_500, 0.7525), (5_000, 0.505), (9_999, 0.010099),
        (10_000, 0.01), (10_001, 0.01),
    ):  # fmt: skip
        assert DQNConfig().exploration_rate_at(total_steps) == pytest.approx(epsilon, rel=1e-12)
    assert DQNConfig().exploration_rate_at(10**9) == 0.01


def test_the_exploration_rate_is_epsilon_or_the_temperature() -> None:
    epsilon, softmax = DQNConfig(), DQNConfig(exploration="softmax", softmax_temperature=0.5)
    assert (epsilon.exploration_rate_name, softmax.exploration_rate_name) == ("epsilon", "temperature")
    for total_steps in (0, 5_000, 10**9):
        assert epsilon.exploration_rate_at(total_steps) == max(1.0 - 0.99 * total_steps / 10_000, 0.01)
        assert softmax.exploration_rate_at(total_steps) == 0.5


def test_linear_schedules_fall_to_0_and_stay() -> None:
    constant = PPOConfig(learning_rate=0.01, clip_range=0.2, schedule_steps=1_000)
    rate = msgspec.structs.replace(constant, learning_rate_schedule="linear")
    clip = msgspec.structs.replace(constant, clip_range_schedule="linear")
    dqn = DQNConfig(learning_rate=0.01, learning_rate_schedule="linear", schedule_steps=1_000)
    for total_steps, left in ((0, 1.0), (1, 0.999), (250, 0.75), (999, 0.001), (1_000, 0.0), (10**9, 0.0)):
        assert (constant.learning_rate_at(total_steps), constant.clip_range_at(total_steps)) == (0.01, 0.2)
        assert rate.learning_rate_at(total_steps) == pytest.approx(0.01 * left, rel=1e-9)
        assert rate.clip_range_at(total_steps) == 0.2
        assert clip.clip_range_at(total_steps) == pytest.approx(0.2 * left, rel=1e-9)
        assert clip.learning_rate_at(total_steps) == 0.01
        assert dqn.learning_rate_at(total_steps) == rate.learning_rate_at(total_steps)


AGENTS: dict[str, tuple[type[Any], Any]] = {
    "dqn": (DQN, lambda **settings: DQNConfig(buffer_size=10, batch_size=1, learning_starts=1, **settings)),
    "ppo": (PPO, lambda **settings: PPOConfig(rollout_steps=4, **settings)),
}


@pytest.mark.parametrize("kind", AGENTS)
def test_auto_takes_convolutions_for_images(kind: str) -> None:
    agent, config = AGENTS[kind]
    for shape, dtype, chosen in (
        ((84, 84, 3), np.uint8, "cnn"),
        ((4, 36, 40), np.uint8, "cnn"),
        ((84, 84, 3), np.float32, "mlp"),
        ((84, 84), np.uint8, "mlp"),
        ((10, 10, 4), np.bool_, "cnn"),
        ((3, 7, 7), np.uint8, "cnn"),
        ((4, 10, 10, 6), np.uint8, "cnn"),
        ((2, 2, 6), np.uint8, "mlp"),
        ((4,), np.uint8, "mlp"),
        ((3,), np.float32, "mlp"),
    ):
        auto, named = (
            agent(Box(0, 1, shape, dtype), Discrete(2), config(network=network))
            for network in ("auto", chosen)
        )
        assert auto.config.network == chosen
        auto.load_state_dict(named.state_dict())


@pytest.mark.parametrize("kind", AGENTS)
def test_convolutions_of_a_shape_of_no_image_are_refused_and_the_message_says_what_fits(kind: str) -> None:
    agent, config = AGENTS[kind]
    for shape in [(4,), (84, 84), (2, 2, 6), (8, 2, 84), (9, 9, 9, 9, 9)]:
        for dtype in (np.uint8, np.float32):
            with pytest.raises(ConfigError) as refusal:
                agent(Box(0, 255, shape, dtype), Discrete(2), config(network="cnn"))
            message = str(refusal.value)
            assert f"it cannot see observations {np.dtype(dtype).name} {list(shape)}: use" in message
            assert "takes images [height, width, channels]" in message
            assert "of at least 3 x 3 pixels" in message
            assert "network='mlp'" in message


@pytest.mark.parametrize("kind", AGENTS)
def test_an_image_that_gets_an_mlp_causes_a_warning(kind: str) -> None:
    agent, config = AGENTS[kind]
    for shape, network, way_out in (
        ((8, 8, 3), "mlp", "network='auto' takes convolutions"),
        ((2, 40, 40, 1), "mlp", "network='auto' takes convolutions"),
    ):
        with pytest.warns(UserWarning, match=rf"{agent.name} sees images .* an mlp.*{way_out}"):
            made = agent(Box(0, 255, shape, np.uint8), Discrete(2), config(network=network))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.policy().fork(0)
