from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import msgspec
import pytest

from stoker.agents import DQNConfig, PPOConfig, config_type, make_agent, preset, training_preset
from stoker.agents.presets import PRESETS
from stoker.trainer.config import TrainConfig, config_from

EVERY = sorted(PRESETS)


def test_cartpole_has_the_settings_that_were_measured() -> None:
    measured = {
        "learning_rate": 2.3e-3,
        "gamma": 0.99,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 500,
        "target_update_interval": 256,
        "tau": None,
        "hidden_sizes": (64, 64),
        "initial_epsilon": 1.0,
        "final_epsilon": 0.04,
        "epsilon_decay_steps": 4_000,
        "normalize_observations": True,
        "n_step": 4,
        "double": True,
        "max_grad_norm": None,
        "learning_rate_schedule": "linear",
        "schedule_steps": 100_000,
    }
    # What has come to the settings since stays as it was: off.
    assert msgspec.to_builtins(preset("dqn", "CartPole-v1")) == {
        **msgspec.to_builtins(DQNConfig()),
        **measured,
    }
    assert training_preset("dqn", "CartPole-v1") == {"opt_interval": 2}


def test_an_environment_without_a_preset_gets_the_defaults() -> None:
    assert preset("dqn", "MyGame-v3") == DQNConfig()
    assert preset("ppo", "MyGame-v3") == PPOConfig()
    assert training_preset("dqn", "MyGame-v3") == training_preset("ppo", "MyGame-v3") == {}


def test_a_preset_cannot_be_changed() -> None:
    training_preset("dqn", "CartPole-v1")["opt_interval"] = 1
    assert training_preset("dqn", "CartPole-v1") == {"opt_interval": 2}
    with pytest.raises(AttributeError):
        preset("dqn", "CartPole-v1").gamma = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(("agent", "env"), EVERY, ids=["-".join(pair) for pair in EVERY])
def test_each_makes_its_agent_and_a_training(agent: str, env: str) -> None:
    made = gymnasium.make(env)
    settings = preset(agent, env)
    assert type(settings) is config_type(agent)
    assert make_agent(agent, made.observation_space, made.action_space, settings).total_steps == 0
    made.close()
    assert set(training_preset(agent, env)) <= set(TrainConfig.__struct_fields__)
    config = config_from({"env": env, "agent": agent})
    assert config.agent_settings == settings
    for name, value in training_preset(agent, env).items():
        assert getattr(config, name) == value


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
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
