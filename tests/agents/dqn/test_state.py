from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker.agents import DQN, DQNConfig
from stoker.errors import ConfigError
from stoker.types import ActMode, Experience
from stoker.writer import stage

MakeAgent = Callable[..., DQN]
MakeExperiences = Callable[..., list[Experience]]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal_trees(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal_trees(left[key], right[key]) for key in left)
    return left == right


def weights(agent: DQN) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in agent.state_dict()["network"].values()]).clone()


def step(agent: DQN, experience: Experience) -> tuple[Any, ...]:
    agent.observe([experience])
    action = agent.policy().act([experience.observation], ActMode.EXPLORE)[0][0]
    return agent.learn(), action, agent.epsilon, agent.total_steps, agent.opt_steps


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tau": 0.01, "double": True},
        {"target_update_interval": 7},
        {"dueling": True, "exploration": "softmax"},
        {"prioritized": True, "n_step": 3, "priority_beta_steps": 50},
        {"normalize_rewards": True, "clip_rewards": 2.0},
        {"normalize_rewards": True, "n_step": 2, "prioritized": True, "dueling": True},
    ],
    ids=lambda settings: " ".join(settings) or "defaults",
)
def test_a_resumed_agent_goes_on_bit_for_bit(
    make_agent: MakeAgent, make_experiences: MakeExperiences, settings: dict[str, Any]
) -> None:
    settings = {"epsilon_decay_steps": 100, **settings}
    uninterrupted = make_agent(seed=1, **settings)
    experiences = make_experiences(120)
    for experience in experiences[:100]:
        step(uninterrupted, experience)
    resumed = make_agent(seed=2, **settings)
    resumed.load_state_dict(through_a_file(uninterrupted.state_dict()))
    resumed.replay.load_state_dict(through_a_file(uninterrupted.replay.state_dict()))
    for experience in experiences[100:]:
        assert step(resumed, experience) == step(uninterrupted, experience)
    assert equal_trees(resumed.state_dict(), uninterrupted.state_dict())
    assert equal_trees(resumed.replay.state_dict(), uninterrupted.replay.state_dict())


def test_an_agent_that_never_learned_resumes_too(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    first, second = make_agent(seed=1), make_agent(seed=2)
    second.load_state_dict(through_a_file(first.state_dict()))
    second.replay.load_state_dict(through_a_file(first.replay.state_dict()))
    for experience in make_experiences(12):
        assert step(first, experience) == step(second, experience)


def test_a_state_neither_follows_the_agent_nor_leads_it(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent()
    experiences = make_experiences(40)
    for experience in experiences[:20]:
        step(agent, experience)
    state = stage(agent.state_dict())  # as the session does: the state itself shares the agent's memory
    frozen = through_a_file(state)
    twin, other = make_agent(), make_agent()
    twin.load_state_dict(state)
    twin.replay.load_state_dict(agent.replay.state_dict())
    other.load_state_dict(state)
    for experience in experiences[20:]:
        step(agent, experience)
        step(twin, experience)
    assert equal_trees(state, frozen)
    assert equal_trees(other.state_dict(), frozen)


def test_policies_made_before_a_load_explore_on_from_the_loaded_generator(make_agent: MakeAgent) -> None:
    agent, saved = make_agent(seed=1), make_agent(seed=2)
    policy = agent.policy()
    agent.load_state_dict(saved.state_dict())
    agent.publish(policy)
    observations = [np.zeros(4, np.float32)] * 50
    assert policy.act(observations, ActMode.EXPLORE) == saved.policy().act(observations, ActMode.EXPLORE)


def test_settings_are_those_it_was_made_with(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    saved = make_agent(learning_rate=0.1)
    for experience in make_experiences(10):
        step(saved, experience)
    agent = make_agent(learning_rate=0.01)
    agent.load_state_dict(saved.state_dict())
    agent.replay.load_state_dict(saved.replay.state_dict())
    assert agent.config.learning_rate == 0.01
    before = weights(agent)
    assert agent.learn() == saved.learn()
    assert torch.allclose(weights(agent) - before, (weights(saved) - before) / 10, atol=1e-6)


def test_losses_of_running_episodes_are_saved_and_those_of_given_up_ones_forgotten(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    first, second, third = make_agent(seed=1), make_agent(seed=2), make_agent(seed=3)
    for experience in make_experiences(10, actor_id=3):
        step(first, experience)
    for other in (second, third):
        other.load_state_dict(through_a_file(first.state_dict()))
    third.on_episode_start(3)  # what a session does after a resume that does not go on with the episode
    extras = first.episode_extras(3)
    assert extras.keys() == {"epsilon", "loss_mean", "loss_max", "loss_std"}
    assert second.episode_extras(3) == extras
    assert third.episode_extras(3) == {"epsilon": first.epsilon}


def other_agent(
    shape: tuple[int, ...] = (4,), dtype: Any = np.float32, n: int = 3, start: int = -1, **settings: Any
) -> DQN:
    config = DQNConfig(**{"hidden_sizes": (16,), "buffer_size": 2_000, **settings})
    return DQN(gymnasium.spaces.Box(0, 1, shape, dtype), gymnasium.spaces.Discrete(n, start=start), config)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: other_agent(shape=(2, 2)), r"observation_space.*saved.*\[2, 2\].*here.*\[4\]"),
        (lambda: other_agent(dtype=np.uint8), r"observation_space.*saved.*uint8.*here.*float32"),
        (lambda: other_agent(n=4), r"action_space.*saved.*'n': 4.*here.*'n': 3"),
        (lambda: other_agent(start=0), r"action_space.*saved.*'start': 0.*here.*'start': -1"),
        (lambda: other_agent(hidden_sizes=(8, 8)), r"hidden_sizes.*saved \(8, 8\), here \(16,\)"),
        (lambda: other_agent(dueling=True), r"dueling.*saved True, here False"),
    ],
    ids=["shape", "dtype", "n", "start", "hidden", "dueling"],
)
def test_states_of_other_sizes_are_refused_and_change_nothing(
    make_agent: MakeAgent, other: Callable[[], DQN], named: str
) -> None:
    agent = make_agent()
    before = stage(agent.state_dict())
    with pytest.raises(ConfigError, match=named):
        agent.load_state_dict(through_a_file(other().state_dict()))
    assert equal_trees(agent.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: {"agent": "ppo"}, "a dqn agent cannot load the state of a ppo agent"),
        (lambda state: {"weights": 1}, r"the state of no agent \(its keys: weights\)"),
        (lambda state: {}, r"no agent \(its keys: none\)"),
        (
            lambda state: {k: v for k, v in state.items() if k != "optimizer"},
            "incomplete: it lacks optimizer",
        ),
        (lambda state: {**state, "target": {}}, "weights of target.*saved {}, here {'mlp.layers"),
        (
            lambda state: {**state, "config": {**state["config"], "network": "nature_cnn"}},
            "network does not fit: saved nature_cnn, here mlp",
        ),
    ],
    ids=["kind", "no agent", "empty", "not whole", "weights", "network"],
)
def test_what_is_no_dqn_state_is_refused(make_agent: MakeAgent, change: Any, named: str) -> None:
    agent = make_agent()
    with pytest.raises(ConfigError, match=named):
        agent.load_state_dict(change(agent.state_dict()))
