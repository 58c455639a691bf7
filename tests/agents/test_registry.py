from __future__ import annotations

import gymnasium
import msgspec
import numpy as np
import pytest

from stoker.agents import AGENTS, DQN, DQNConfig, config_type, make_agent, preset
from stoker.agents.presets import training_preset
from stoker.errors import ConfigError

SPACES = (gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(2))


def test_cartpole_has_the_settings_that_were_measured() -> None:
    assert msgspec.to_builtins(preset("dqn", "CartPole-v1")) == {
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
    }
    assert training_preset("dqn", "CartPole-v1") == {"opt_interval": 2}


def test_an_environment_without_a_preset_gets_the_defaults() -> None:
    assert preset("dqn", "MyGame-v3") == DQNConfig()
    assert training_preset("dqn", "MyGame-v3") == {}


def test_a_preset_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        training_preset("dqn", "CartPole-v1")["opt_interval"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        preset("dqn", "CartPole-v1").gamma = 0.5  # type: ignore[misc]


def test_every_agent_is_made_by_its_name() -> None:
    for name, entry in AGENTS.items():
        agent = make_agent(name, *SPACES)
        assert type(agent) is entry.load()
        assert agent.total_steps == 0


def test_settings_seed_and_device_reach_the_agent() -> None:
    config = DQNConfig(hidden_sizes=(8,), buffer_size=2_000)
    agent = make_agent("dqn", *SPACES, config, seed=7, device="cpu")
    same = DQN(*SPACES, config, seed=7)
    assert isinstance(agent, DQN)
    assert agent.config is config
    for name, weights in agent.state_dict()["online"].items():
        assert weights.equal(same.state_dict()["online"][name])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dqm", "did you mean 'dqn'"), ("DQN", "did you mean 'dqn'"), ("muzero", "known are dqn$")],
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
