from __future__ import annotations

import gymnasium
import msgspec
import numpy as np
import pytest

from stoker.agents import AGENTS, DQN, DQNConfig, config_type, make_agent, preset
from stoker.errors import ConfigError

SPACES = (gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(2))


def test_cartpole_has_the_references_settings() -> None:
    settings = msgspec.to_builtins(preset("dqn", "CartPole-v1"))
    beyond_the_reference = {"n_step": 5, "normalize_observations": True}
    assert {name: settings.pop(name) for name in beyond_the_reference} == beyond_the_reference
    assert settings == {
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "target_update_interval": 500,
        "tau": None,
        "hidden_sizes": (64, 64),
        "initial_epsilon": 1.0,
        "final_epsilon": 0.01,
        "epsilon_decay_steps": 10_000,
        "double": False,
        "max_grad_norm": None,
    }


def test_an_environment_without_a_preset_gets_the_defaults() -> None:
    assert preset("dqn", "MyGame-v3") == DQNConfig()


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
        lambda: make_agent(name, *SPACES),
    ):
        with pytest.raises(ConfigError, match=f"unknown agent '{name}'.*{hint}"):
            call()


def test_another_agents_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="'dqn' takes a DQNConfig, got a dict"):
        make_agent("dqn", *SPACES, {"gamma": 0.9})  # type: ignore[arg-type]
