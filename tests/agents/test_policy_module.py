"""The module of a policy acts as the policy: observations of the environment in, its actions out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from stoker import (
    BC,
    DQN,
    IQL,
    IQN,
    PPO,
    SAC,
    TD3,
    ActMode,
    BCConfig,
    DiscreteCQL,
    DQNConfig,
    IQLConfig,
    IQNConfig,
    PPOConfig,
    SACConfig,
)
from stoker.agents.protocol import HasPolicyModule

VECTOR = Box(-3.0, 3.0, (5,), np.float64)
IMAGE = Box(0, 255, (40, 36, 3), np.uint8)
UNEVEN = Box(np.array([[-0.1, -9.0]]), np.array([[0.2, np.inf]]), dtype=np.float64)
BOUNDED = Box(np.array([[-0.1, -9.0]]), np.array([[0.2, 9.0]]), dtype=np.float64)

AGENTS = {
    "dqn": lambda: DQN(VECTOR, Discrete(4, start=-1), DQNConfig(dueling=True, normalize_observations=True)),
    "dqn-image": lambda: DQN(IMAGE, Discrete(3)),
    "iqn": lambda: IQN(VECTOR, Discrete(4, start=-1), IQNConfig(dueling=True, normalize_observations=True)),
    "ppo": lambda: PPO(VECTOR, Discrete(4, start=2)),
    "ppo-box": lambda: PPO(VECTOR, UNEVEN, PPOConfig(normalize_observations=True, activation="relu")),
    "ppo-several": lambda: PPO(VECTOR, MultiDiscrete([[2, 4], [3, 2]], start=[[-1, 0], [5, 0]])),
    "ppo-binary": lambda: PPO(VECTOR, MultiBinary(3)),
    "sac": lambda: SAC(VECTOR, BOUNDED, SACConfig(normalize_observations=True)),
    "td3": lambda: TD3(VECTOR, BOUNDED),
    "iql": lambda: IQL(VECTOR, BOUNDED, IQLConfig(normalize_observations=True)),
    "cql": lambda: DiscreteCQL(VECTOR, Discrete(4, start=-1)),
    "bc": lambda: BC(VECTOR, Discrete(4, start=-1), BCConfig(normalize_observations=True)),
    "bc-box": lambda: BC(VECTOR, BOUNDED),
    "bc-several": lambda: BC(VECTOR, MultiDiscrete([[2, 4], [3, 2]], start=[[-1, 0], [5, 0]])),
    "ppo-image": lambda: PPO(IMAGE, Box(-1.0, 1.0, (2,), np.float32)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_it_acts_as_the_policy_does(name: str) -> None:
    agent: Any = AGENTS[name]()
    assert isinstance(agent, HasPolicyModule)
    if agent.config.normalize_observations:
        agent._network.set_moments(torch.full((5,), 0.3), torch.linspace(0.5, 40, 5))
    with torch.no_grad():
        for weights in agent._network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)), alpha=0.2)
    space = IMAGE if "image" in name else VECTOR
    space.seed(0)
    observations = np.stack([space.sample() for _ in range(32)])
    actions, _ = agent.policy().act(observations, ActMode.EXPLOIT)
    module = agent.policy_module()
    with torch.no_grad():
        found = module(torch.as_tensor(observations)).numpy()
        described = module.distribution(torch.as_tensor(observations))
    assert found.dtype == actions.dtype
    np.testing.assert_allclose(found, actions, rtol=1e-5, atol=1e-6)
    assert all(len(values) == 32 for values in described.values())
    if found.ndim == 1:
        assert len(set(found.tolist())) > 1
        [values] = described.values()
        assert (values.argmax(1).numpy() + agent._spaces.actions.first == found).all()


def test_it_has_its_own_weights() -> None:
    agent = PPO(VECTOR, UNEVEN)
    module = agent.policy_module()
    before = module(torch.zeros(1, 5)).detach().clone()
    with torch.no_grad():
        agent._network.body.policy.weights[-1][1].fill_(0.1)
    assert torch.equal(module(torch.zeros(1, 5)), before)
