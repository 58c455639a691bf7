"""Agents by their names, and the presets."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest

from stoker.agents import (
    AGENTS,
    DQN,
    PPO,
    DQNConfig,
    PPOConfig,
    config_type,
    make_agent,
    preset,
    training_preset,
)
from stoker.agents.registry import action_kinds, agents_with_preset, presets
from stoker.errors import ConfigError
from stoker.trainer.config import TrainConfig, config_from
from stoker.trainer.making import env_for

SPACES = (gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(2))
ACTION_SPACES = [SPACES[1], SPACES[0]]


def test_every_agent_is_made_by_its_name() -> None:
    for name, entry in AGENTS.items():
        fitting = [space for space in ACTION_SPACES if any(kind.fits(space) for kind in action_kinds(name))]
        agent = make_agent(name, SPACES[0], fitting[0])
        assert entry.agent.endswith(f":{type(agent).__name__}")
        assert agent.total_steps == 0


def test_settings_seed_and_device_reach_the_agent() -> None:
    config = DQNConfig(hidden_sizes=(8,), buffer_size=2_000)
    agent = make_agent("dqn", *SPACES, config, seed=7, device="cpu")
    same = DQN(*SPACES, config, seed=7)
    assert isinstance(agent, DQN)
    assert agent.config == msgspec.structs.replace(config, network="mlp")
    for name, weights in agent.state_dict()["network"].items():
        assert weights.equal(same.state_dict()["network"][name])


def test_ppo_is_made_with_its_settings_seed_and_device() -> None:
    config = PPOConfig(hidden_sizes=(8,))
    agent = make_agent("ppo", *SPACES, config, seed=7, device="cpu")
    same = PPO(*SPACES, config, seed=7)
    assert isinstance(agent, PPO)
    assert agent.config == msgspec.structs.replace(config, network="mlp")
    for name, weights in agent.state_dict()["network"].items():
        assert weights.equal(same.state_dict()["network"][name])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dqm", "did you mean 'dqn'"),
        ("PPO", "did you mean 'ppo'"),
        ("muzero", "known are .*; name your own"),
    ],
)
def test_unknown_agents_are_refused(name: str, hint: str) -> None:
    for call in (
        lambda: config_type(name),
        lambda: preset(name, "CartPole-v1"),
        lambda: training_preset(name, "CartPole-v1"),
        lambda: make_agent(name, *SPACES),
    ):
        with pytest.raises(ConfigError, match=f"unknown agent '{name}'.*{hint}"):
            call()


def test_another_agents_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'dqn' takes a DQNConfig, got a dict"):
        make_agent("dqn", *SPACES, {"gamma": 0.9})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'dqn' takes a DQNConfig, got a PPOConfig"):
        make_agent("dqn", *SPACES, PPOConfig())
    with pytest.raises(ConfigError, match="'ppo' takes a PPOConfig, got a DQNConfig"):
        make_agent("ppo", *SPACES, DQNConfig())


EVERY = sorted(presets())

NAMES = {
    "ALE/*-v5": "ALE/Pong-v5",
    "CliffWalking*-v1": "CliffWalking-v1",
    "FrozenLake*-v1": "FrozenLake8x8-v1",
    "MinAtar/*": "MinAtar/Breakout-v1",
    "Taxi-v*": "Taxi-v4",
}
"""Pattern -> one of the environments that it is for."""


MUJOCO: dict[str, Any] = {
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "gradient_steps": 1,
    "tau": 0.005,
    "hidden_sizes": (256, 256),
    "temperature": None,
}
TABLE: dict[str, Any] = {
    "gamma": 0.99,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "hidden_sizes": (),
    "learning_rate_schedule": "linear",
    "huber_delta": None,
    "max_grad_norm": None,
    "target_update_interval": 50,
}
MEASURED: dict[tuple[str, str], dict[str, Any]] = {
    ("dqn", "CartPole-v1"): {
        "learning_rate": 2.3e-3,
        "gamma": 0.99,
        "batch_size": 256,
        "buffer_size": 100_000,
        "learning_starts": 500,
        "tau": 0.02,
        "hidden_sizes": (64, 64),
        "initial_epsilon": 1.0,
        "final_epsilon": 0.1,
        "epsilon_decay_steps": 4_000,
        "normalize_observations": True,
        "n_step": 4,
        "double": True,
        "huber_delta": None,
        "max_grad_norm": None,
        "learning_rate_schedule": "linear",
        "schedule_steps": 100_000,
    },
    ("dqn", "Acrobot-v1"): {
        "learning_rate": 6.3e-4,
        "gamma": 0.99,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "target_update_interval": 250,
        "hidden_sizes": (256, 256),
        "initial_epsilon": 1.0,
        "final_epsilon": 0.1,
        "epsilon_decay_steps": 12_000,
        "max_grad_norm": 10.0,
    },
    ("iqn", "CartPole-v1"): {
        "learning_rate": 2.3e-3,
        "learning_rate_schedule": "linear",
        "schedule_steps": 50_000,
        "gamma": 0.98,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 500,
        "target_update_interval": 64,
        "tau": None,
        "hidden_sizes": (64, 64),
        "n_quantiles": 8,
        "n_target_quantiles": 8,
        "n_acting_quantiles": 32,
        "n_cosines": 64,
        "initial_epsilon": 1.0,
        "final_epsilon": 0.1,
        "epsilon_decay_steps": 4_000,
        "normalize_observations": True,
        "n_step": 4,
        "double": True,
        "max_grad_norm": None,
    },
    ("ppo", "LunarLander-v3"): {
        "learning_rate": 3e-4,
        "clip_range": 0.2,
        "rollout_steps": 16_384,
        "batch_size": 64,
        "n_epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "ent_coef": 0.01,
    },
    ("ppo", "BipedalWalker-v3"): {
        "learning_rate": 3e-4,
        "learning_rate_schedule": "linear",
        "schedule_steps": 1_000_000,
        "clip_range": 0.2,
        "rollout_steps": 8_192,
        "batch_size": 64,
        "n_epochs": 10,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "normalize_observations": True,
        "normalize_rewards": True,
        "clip_rewards": 10.0,
    },
    ("ppo", "CartPole-v1"): {
        "learning_rate": 1e-3,
        "learning_rate_schedule": "linear",
        "clip_range": 0.2,
        "clip_range_schedule": "linear",
        "schedule_steps": 100_000,
        "rollout_steps": 256,
        "batch_size": 256,
        "n_epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "ent_coef": 0.0,
    },
    ("ppo", "Acrobot-v1"): {
        "rollout_steps": 4_096,
        "n_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.94,
        "ent_coef": 0.0,
        "normalize_observations": True,
        "normalize_rewards": True,
        "clip_rewards": 10.0,
    },
    ("ppo", "MountainCarContinuous-v0"): {
        "learning_rate": 3e-4,
        "clip_range": 0.2,
        "rollout_steps": 1_024,
        "batch_size": 64,
        "n_epochs": 10,
        "gamma": 0.9999,
        "gae_lambda": 0.9,
        "ent_coef": 0.004,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "log_std_init": None,
        "normalize_observations": True,
        "normalize_rewards": True,
        "clip_rewards": 10.0,
    },
    ("ppo", "Pendulum-v1"): {
        "learning_rate": 1e-3,
        "clip_range": 0.2,
        "rollout_steps": 4_096,
        "n_epochs": 10,
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
    },
    ("dqn", "LunarLander-v3"): {
        "learning_rate": 6.3e-4,
        "learning_rate_schedule": "linear",
        "schedule_steps": 250_000,
        "gamma": 0.99,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "tau": 0.01,
        "double": True,
        "n_step": 3,
        "hidden_sizes": (128, 128),
        "huber_delta": 1.0,
        "final_epsilon": 0.05,
        "epsilon_decay_steps": 10_000,
        "max_grad_norm": 10.0,
    },
    ("dqn", "Taxi-v*"): {
        **TABLE,
        "learning_rate": 0.05,
        "schedule_steps": 50_000,
        "final_epsilon": 0.05,
        "epsilon_decay_steps": 30_000,
    },
    ("dqn", "CliffWalking*-v1"): {
        **TABLE,
        "learning_rate": 0.05,
        "schedule_steps": 20_000,
        "final_epsilon": 0.05,
        "epsilon_decay_steps": 10_000,
    },
    ("dqn", "FrozenLake*-v1"): {
        **TABLE,
        "learning_rate": 0.01,
        "schedule_steps": 50_000,
        "final_epsilon": 0.1,
        "epsilon_decay_steps": 20_000,
    },
    ("dqn", "MountainCar-v0"): {
        "learning_rate": 4e-3,
        "gamma": 0.99,
        "batch_size": 128,
        "buffer_size": 10_000,
        "learning_starts": 1_000,
        "target_update_interval": 300,
        "double": True,
        "n_step": 8,
        "normalize_observations": True,
        "hidden_sizes": (256, 256),
        "initial_epsilon": 1.0,
        "final_epsilon": 0.07,
        "epsilon_decay_steps": 24_000,
        "max_grad_norm": 10.0,
    },
    ("dqn", "MinAtar/*"): {
        "gamma": 0.99,
        "learning_rate": 2.5e-4,
        "batch_size": 32,
        "buffer_size": 100_000,
        "learning_starts": 5_000,
        "target_update_interval": 1_000,
        "final_epsilon": 0.1,
        "epsilon_decay_steps": 100_000,
    },
    ("dqn", "ALE/*-v5"): {
        "learning_rate": 1e-4,
        "batch_size": 32,
        "clip_rewards": 1.0,
        "buffer_size": 100_000,
        "learning_starts": 50_000,
        "target_update_interval": 1_000,
        "epsilon_decay_steps": 1_000_000,
    },
    ("ppo", "ALE/*-v5"): {
        "learning_rate": 2.5e-4,
        "learning_rate_schedule": "linear",
        "clip_range": 0.1,
        "clip_range_schedule": "linear",
        "schedule_steps": 10_000_000,
        "rollout_steps": 1_024,
        "batch_size": 256,
        "n_epochs": 3,
        "clip_rewards": 1.0,
        "vf_coef": 1.0,
        "ent_coef": 0.01,
    },
    ("sac", "Pendulum-v1"): {
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "batch_size": 128,
        "buffer_size": 100_000,
        "learning_starts": 400,
        "gradient_steps": 2,
        "tau": 0.005,
        "hidden_sizes": (64, 64),
        "temperature": None,
        "target_entropy": None,
        "initial_temperature": 1.0,
    },
    ("sac", "LunarLanderContinuous-v3"): {
        "learning_rate": 7.3e-4,
        "learning_rate_schedule": "linear",
        "schedule_steps": 500_000,
        "gamma": 0.99,
        "batch_size": 256,
        "buffer_size": 1_000_000,
        "learning_starts": 10_000,
        "tau": 0.01,
        "hidden_sizes": (400, 300),
    },
    ("sac", "BipedalWalker-v3"): {
        "learning_rate": 7.3e-4,
        "gamma": 0.98,
        "batch_size": 256,
        "buffer_size": 300_000,
        "learning_starts": 10_000,
        "tau": 0.02,
        "hidden_sizes": (400, 300),
    },
    ("iql", "Pendulum-v1"): {
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "batch_size": 256,
        "tau": 0.005,
        "hidden_sizes": (64, 64),
        "expectile": 0.8,
        "inverse_temperature": 1.0,
        "max_weight": 100.0,
    },
    ("awac", "Pendulum-v1"): {
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "batch_size": 256,
        "tau": 0.005,
        "hidden_sizes": (64, 64),
        "inverse_temperature": 1.0,
        "n_action_samples": 1,
    },
    **{
        ("bc", env): {
            "learning_rate": 1e-3,
            "batch_size": 128,
            "buffer_size": 1_000_000,
            "learning_starts": 0,
            "hidden_sizes": (64, 64),
        }
        for env in ("CartPole-v1", "Pendulum-v1")
    },
    **{
        ("bc", env): {
            "learning_rate": 3e-4,
            "batch_size": 256,
            "buffer_size": 1_000_000,
            "learning_starts": 0,
            "hidden_sizes": (256, 256),
            "normalize_observations": True,
        }
        for env in ("Hopper-v5", "HalfCheetah-v5")
    },
    ("cql", "CartPole-v1"): {
        "alpha": 1.0,
        "double": True,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "batch_size": 128,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "target_update_interval": 200,
        "hidden_sizes": (64, 64),
        "huber_delta": 1.0,
        "max_grad_norm": None,
    },
    **{("sac", f"{name}-v5"): MUJOCO for name in ("HalfCheetah", "Hopper", "Walker2d", "Ant")},
    **{
        ("ppo", f"{name}-v5"): {
            "learning_rate": 3e-4,
            "clip_range": 0.2,
            "rollout_steps": 2_048,
            "batch_size": 64,
            "n_epochs": 10,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "ent_coef": 0.0,
            "hidden_sizes": (64, 64),
            "normalize_observations": True,
            "normalize_rewards": True,
            "clip_rewards": None,
        }
        for name in ("HalfCheetah", "Hopper", "Walker2d", "Ant")
    },
}
"""The settings that a preset was measured with, whatever the defaults become."""


def test_presets_have_the_settings_that_were_measured() -> None:
    assert MEASURED.keys() == presets().keys()
    for (agent, env), measured in MEASURED.items():
        settings = preset(agent, env)
        # What has come to the settings since stays as it was: off.
        assert msgspec.to_builtins(settings) == {**msgspec.to_builtins(type(settings)()), **measured}
    assert training_preset("dqn", "CartPole-v1") == {}


def test_an_environment_without_a_preset_gets_the_defaults() -> None:
    assert preset("dqn", "MyGame-v3") == DQNConfig()
    assert preset("ppo", "MyGame-v3") == PPOConfig()
    assert training_preset("dqn", "MyGame-v3") == training_preset("ppo", "MyGame-v3") == {}


def test_a_preset_may_be_one_for_many_environments() -> None:
    pong = training_preset("ppo", "ALE/Pong-v5")
    assert pong == training_preset("ppo", "ale_py:ALE/Breakout-v5") != {}
    assert (pong["env_kwargs"], pong["frame_stack"]) == ({"frameskip": 1}, 4)
    assert training_preset("ppo", "ALE/Pong-v4") == {}
    assert agents_with_preset("ALE/Pong-v5")[:2] == ["dqn", "ppo"]


def test_a_preset_cannot_be_changed() -> None:
    training_preset("ppo", "CartPole-v1")["opt_interval"] = 1
    assert training_preset("ppo", "CartPole-v1")["opt_interval"] == 32
    with pytest.raises(AttributeError):
        preset("dqn", "CartPole-v1").gamma = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(("agent", "env"), EVERY, ids=["-".join(pair) for pair in EVERY])
def test_each_makes_its_agent_and_a_training(agent: str, env: str) -> None:
    env = NAMES.get(env, env)
    if env.startswith(("LunarLander", "BipedalWalker")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as an error, the warning of its types ends the process
            pytest.importorskip("Box2D")
    if env.endswith("-v5") and not env.startswith("ALE/"):
        pytest.importorskip("mujoco")
    config = config_from({"env": env, "agent": agent})
    settings = preset(agent, env)
    assert type(settings) is config_type(agent)
    made = env_for(config)
    assert make_agent(agent, made.observation_space, made.action_space, settings).total_steps == 0
    made.close()
    assert set(training_preset(agent, env)) <= set(TrainConfig.__struct_fields__)
    assert config.agent_settings == settings
    for name, value in training_preset(agent, env).items():
        assert msgspec.json.decode(msgspec.json.encode(getattr(config, name))) == value


@pytest.mark.parametrize(
    "env", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "LunarLander-v3", "BipedalWalker-v3"]
)
def test_rollouts_are_cut_where_they_are_full(env: str) -> None:
    settings: PPOConfig = preset("ppo", env)
    training: Any = training_preset("ppo", env)
    assert settings.rollout_steps % training["num_envs"] == 0
    assert settings.rollout_steps % training["opt_interval"] == 0, "else learning would come late"
    assert settings.schedule_steps in (None, training["total_timesteps"])


def test_they_are_read_without_torch() -> None:
    code = "from stoker.agents import preset; preset('ppo', 'x'); import sys; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert found.stdout.strip() == "False"
