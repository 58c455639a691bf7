"""Copies of agents and policies learn and act by weights of their own, or are refused by name."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from stoker.agents import (
    AWAC,
    BC,
    DQN,
    IQL,
    IQN,
    PPO,
    SAC,
    TD3,
    AWACConfig,
    BCConfig,
    DiscreteCQL,
    DiscreteCQLConfig,
    DQNConfig,
    IQLConfig,
    IQNConfig,
    PPOConfig,
    SACConfig,
    TD3Config,
)
from stoker.agents.networks import seeded
from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.testing.agent_driving import feed, greedy, state_of
from stoker.types import ActMode, EpisodeStatus, Experience

BOX = Box(-1, 1, (3,))
ROWS = [np.random.default_rng(at).random(3).astype(np.float32) for at in range(20)]


class Own(nn.Module):
    """A network of a user's."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.hidden, self.logits, self.value = (
            seeded(nn.Linear(*sizes, device="meta"), generator, 1.0) for sizes in ((3, 8), (8, 2), (8, 1))
        )

    def forward(self, observations: torch.Tensor) -> Any:
        hidden = torch.tanh(self.hidden(observations))
        return self.logits(hidden), self.value(hidden)[:, 0]


def ppo(network: nn.Module | None = None) -> PPO:
    config = PPOConfig(rollout_steps=20, batch_size=10, n_epochs=2, normalize_observations=True)
    return PPO(BOX, Discrete(2), config, seed=1, network=network)


def dqn(**settings: Any) -> DQN:
    config = DQNConfig(learning_starts=10, batch_size=8, target_update_interval=3, buffer_size=40, **settings)
    return DQN(BOX, Discrete(2), config, seed=1)


def iqn() -> IQN:
    config = IQNConfig(learning_starts=10, batch_size=8, prioritized=True, n_step=3, buffer_size=40)
    return IQN(BOX, Discrete(2), config, seed=1)


def small(kind: Any, config_type: Any, space: Any) -> Any:
    config = config_type(learning_starts=10, batch_size=8, buffer_size=40, hidden_sizes=(8, 8))
    return kind(BOX, space, config, seed=1)


def twin(kind: Any, config_type: Any) -> Any:
    return small(kind, config_type, Box(-1, 1, (2,)))


AGENTS: dict[str, Callable[[], Any]] = {
    "ppo": ppo,
    "ppo-box": lambda: PPO(BOX, Box(-1, 1, (2,)), PPOConfig(rollout_steps=20, n_epochs=2), seed=1),
    "ppo-state-dependent": lambda: PPO(
        BOX,
        Box(-1, 1, (2,)),
        PPOConfig(rollout_steps=20, n_epochs=2, state_dependent_exploration=True),
        seed=1,
    ),
    "ppo-own": lambda: ppo(Own()),
    "dqn": dqn,
    "iqn": iqn,
    "dqn-rainbow": lambda: dqn(
        prioritized=True, n_step=3, dueling=True, normalize_observations=True, tau=0.1
    ),
    "sac": lambda: twin(SAC, SACConfig),
    "td3": lambda: twin(TD3, TD3Config),
    "iql": lambda: twin(IQL, IQLConfig),
    "awac": lambda: twin(AWAC, AWACConfig),
    "bc": lambda: small(BC, BCConfig, Discrete(2)),
    "bc-box": lambda: twin(BC, BCConfig),
    "cql": lambda: small(DiscreteCQL, DiscreteCQLConfig, Discrete(2)),
}


def through_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch": through_torch,
}


def play(agent: Any, steps: int) -> list[Experience]:
    policy, experiences = agent.policy(), []
    for at in range(steps):
        actions, memories = policy.act([ROWS[at % 20]], ActMode.EXPLORE)
        status = EpisodeStatus.TERMINATED if at % 7 == 6 else EpisodeStatus.CONTINUING
        extras = None if memories is None else memories[0]
        experiences.append(
            Experience(ROWS[at % 20], actions[0], at % 3, ROWS[(at + 1) % 20], status, 0, extras)
        )
    return experiences


def moved(before: Any, policy: Any) -> bool:
    return not torch.equal(before["weights"], policy.weights()["weights"])


@pytest.mark.parametrize("kind", AGENTS)
def test_a_copied_agent_learns_and_acts_as_the_one_it_is_of(kind: str) -> None:
    experiences = play(AGENTS[kind](), 90)
    agent, never_copied = AGENTS[kind](), AGENTS[kind]()
    for each in (agent, never_copied):
        feed(each, experiences[:50])
    copies = {way: copied_of(agent) for way, copied_of in WAYS.items()}
    before, behind = state_of(agent), agent.policy()
    expected = feed(never_copied, experiences[50:])

    for way, copied in copies.items():
        policy = copied.policy()
        weights = policy.weights()
        assert difference(feed(copied, experiences[50:]), expected) is None, way
        assert difference(state_of(copied), state_of(never_copied)) is None, way
        copied.publish(policy)
        assert moved(weights, policy), way
        assert difference(greedy(policy, ROWS), greedy(never_copied.policy(), ROWS)) is None, way
        assert difference(before, state_of(agent)) is None, (
            f"what it was copied of has learned with it: {way}"
        )
        assert difference(weights, behind.weights()) is None, way


@pytest.mark.parametrize("kind", AGENTS)
def test_a_copied_policy_acts_by_the_weights_that_are_published_to_it(kind: str) -> None:
    agent = AGENTS[kind]()
    policy = agent.policy()
    copies = {way: copied_of(policy) for way, copied_of in {**WAYS, "copy": copy.copy}.items()}
    weights = policy.weights()
    feed(agent, play(agent, 90))
    for way, copied in copies.items():
        agent.publish(copied)
        assert moved(weights, copied), way
        assert difference(greedy(copied, ROWS), greedy(agent.policy(), ROWS)) is None, way
        assert difference(weights, policy.weights()) is None, way


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_a_shallow_copy_of_an_agent_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"copy.copy of a {kind.upper()} .*use copy.deepcopy"):
        copy.copy(AGENTS[kind]())


def test_one_network_for_two_agents_is_refused_and_a_copy_of_it_is_taken() -> None:
    network = Own()
    agent = ppo(network)
    for taken in (network, agent.policy().network.body):
        with pytest.raises(ConfigError, match=r"Own, has weights in memory .*copy.deepcopy\(network\)"):
            ppo(taken)
    other = ppo(copy.deepcopy(network))
    before = other.policy().weights()
    feed(agent, play(agent, 20))
    assert not moved(before, other.policy())
    feed(other, play(other, 20))
    assert moved(before, other.policy())


@pytest.mark.parametrize(
    "replace",
    [
        lambda network: network.double(),
        lambda network: network.half().float(),
        lambda network: network.load_state_dict(Own().state_dict(), assign=True),
        lambda network: network.zero_grad(),
    ],
    ids=["double", "half", "assign", "zero_grad"],
)
def test_an_agent_whose_weights_were_replaced_says_so_instead_of_learning_nothing(replace: Any) -> None:
    network = Own()
    agent = ppo(network)
    experiences = play(agent, 20)
    replace(network)
    agent.observe(experiences)
    for call in (agent.learn, agent.policy):
        with pytest.raises(ConfigError, match=r"weights of this ActorCritic were moved or replaced"):
            call()


@pytest.mark.parametrize("kind", AGENTS)
def test_a_policy_whose_network_was_cast_says_so_instead_of_acting_on_old_weights(kind: str) -> None:
    agent = AGENTS[kind]()
    policy = agent.policy()
    policy.network.half().float()
    with pytest.raises(ConfigError, match="moved or replaced"):
        agent.publish(policy)


def test_weights_that_a_user_loads_into_the_network_are_the_agents() -> None:
    network, other = Own(), Own()
    nn.init.ones_(other.logits.weight)
    agent = ppo(network)
    network.load_state_dict(other.state_dict())
    rows = torch.as_tensor(np.array(ROWS))
    assert torch.equal(agent.policy().network.body(rows)[0], other(rows)[0])
    feed(agent, play(agent, 20))
    assert not torch.equal(network(rows)[0], other(rows)[0]), "the module is what is trained"


@pytest.mark.parametrize("kind", AGENTS)
def test_no_two_of_its_generators_draw_the_same_numbers(kind: str) -> None:
    state = AGENTS[kind]().state_dict()
    states = [state[name]["state"]["state"] for name in state if name.endswith("_generator")]
    assert len({*states}) == len(states) > 0
