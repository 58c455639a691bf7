from __future__ import annotations

import gymnasium
import msgspec
import numpy as np
import pytest

from stoker.agents import AGENTS, DQN, PPO, DQNConfig, PPOConfig, config_type, make_agent
from stoker.agents.presets import preset, training_preset
from stoker.errors import ConfigError

SPACES = (gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(2))


def test_every_agent_is_made_by_its_name() -> None:
    for name, entry in AGENTS.items():
        agent = make_agent(name, *SPACES)
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
        ("muzero", "known are dqn, ppo; name your own"),
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
