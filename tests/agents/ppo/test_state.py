from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker.agents import PPO, PPOConfig
from stoker.errors import ConfigError
from stoker.types import ActMode, EpisodeStatus, Experience
from stoker.writer import stage

MakeAgent = Callable[..., PPO]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal_trees(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal_trees(left[key], right[key]) for key in left)
    return left == right


def step(agent: PPO, number: int) -> tuple[Any, ...]:
    """One transition of one of three actors, by the agent's own policy, as a session would."""
    rng = np.random.default_rng(number)
    actor_id = ("a", 1, 2)[rng.integers(3)]
    observation, next_observation = rng.uniform(-1, 1, (2, 4)).astype(np.float32)
    (action,), extras = agent.policy().act([observation], ActMode.EXPLORE)
    assert extras is not None
    status = list(EpisodeStatus)[max(int(rng.integers(-8, 3)), 0)]
    if number % 17 == 0:
        agent.on_episode_start(actor_id)
    agent.observe(
        [
            Experience(
                observation,
                action,
                float(rng.normal()),
                next_observation,
                status,
                actor_id,
                extras[0],
            )
        ]
    )
    metrics = agent.learn()
    return (
        metrics, np.asarray(action).tolist(), extras[0].tolist(), agent.total_steps, agent.opt_steps,
        agent.episode_extras(actor_id),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("at", [0, 13, 20, 205], ids=lambda at: f"after-{at}")
def test_a_resumed_agent_goes_on_bit_for_bit(make_agent: MakeAgent, kind: str, at: int) -> None:
    settings = {
        "normalize_observations": True, "normalize_rewards": True, "clip_rewards": 3.0, "target_kl": 0.5,
        "learning_rate_schedule": "linear", "schedule_steps": 400,
    }  # fmt: skip
    uninterrupted = make_agent(kind, seed=1, **settings)
    for number in range(at):
        step(uninterrupted, number)
    resumed = make_agent(kind, seed=2, **settings)
    step(resumed, 3)
    resumed.load_state_dict(through_a_file(uninterrupted.state_dict()))
    n_updates = 0
    for number in range(at, at + 130):
        found = step(resumed, number)
        assert found == step(uninterrupted, number)
        n_updates += found[0] is not None
    assert n_updates >= 6
    assert equal_trees(resumed.state_dict(), uninterrupted.state_dict())


def test_a_state_neither_follows_the_agent_nor_leads_it(make_agent: MakeAgent) -> None:
    agent, other = make_agent(normalize_observations=True), make_agent(normalize_observations=True)
    for number in range(30):
        step(agent, number)
    state = stage(agent.state_dict())
    kept = stage(state)
    other.load_state_dict(agent.state_dict())  # not even copied by a session
    for number in range(30, 80):
        step(agent, number)
    assert equal_trees(state, kept)
    assert equal_trees(other.state_dict(), kept)
    other.load_state_dict(state)
    for number in range(30, 80):
        step(other, number)
    assert equal_trees(state, kept)
    assert equal_trees(other.state_dict(), agent.state_dict())


def test_acting_changes_what_it_says_and_nothing_else(make_agent: MakeAgent) -> None:
    agent = make_agent()
    before = stage(agent.state_dict())
    agent.policy().act([np.zeros(4, np.float32)], ActMode.EXPLORE)
    after = agent.state_dict()
    assert {name for name in after if not equal_trees(before[name], after[name])} == PPO.acting_state


def test_settings_are_those_it_was_made_with(make_agent: MakeAgent) -> None:
    saved = make_agent(learning_rate=0.1)
    for number in range(10):
        step(saved, number)
    agent = make_agent(learning_rate=1e-6, rollout_steps=12)
    agent.load_state_dict(saved.state_dict())
    before = torch.cat([p.detach().flatten() for p in agent._network.parameters()])
    assert [step(agent, number)[0] is not None for number in range(10, 12)] == [False, True]
    after = torch.cat([p.detach().flatten() for p in agent._network.parameters()])
    assert 0 < (after - before).abs().max() < 1e-4


def other_agent(
    space: Any = None, shape: tuple[int, ...] = (4,), dtype: Any = np.float32, **settings: Any
) -> PPO:
    config = PPOConfig(**{"hidden_sizes": (16,), **settings})
    space = gymnasium.spaces.Discrete(3, start=-1) if space is None else space
    return PPO(gymnasium.spaces.Box(0, 1, shape, dtype), space, config)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: other_agent(shape=(2, 2)), r"observation_space.*saved.*\[2, 2\].*here.*\[4\]"),
        (lambda: other_agent(dtype=np.uint8), r"observation_space.*saved.*uint8.*here.*float32"),
        (lambda: other_agent(gymnasium.spaces.Discrete(4)), r"action_space.*saved.*'n': 4.*here.*'n': 3"),
        (lambda: other_agent(gymnasium.spaces.Box(0, 1, (3,))), r"action_space.*saved.*'shape': \[3\]"),
        (lambda: other_agent(hidden_sizes=(8, 8)), r"hidden_sizes.*saved \(8, 8\), here \(16,\)"),
        (lambda: other_agent(activation="relu"), r"activation.*saved relu, here tanh"),
        (lambda: other_agent(normalize_observations=True), "normalize_observations.*saved True, here False"),
    ],
    ids=["shape", "dtype", "n", "box", "hidden", "activation", "normalizes"],
)
def test_states_of_other_agents_are_refused_and_change_nothing(
    make_agent: MakeAgent, other: Callable[[], PPO], named: str
) -> None:
    agent = make_agent()
    before = stage(agent.state_dict())
    with pytest.raises(ConfigError, match=named):
        agent.load_state_dict(through_a_file(other().state_dict()))
    assert equal_trees(agent.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: {"agent": "dqn"}, "a ppo agent cannot load the state of a dqn agent"),
        (lambda state: {"weights": 1}, r"the state of no agent \(its keys: weights\)"),
        (lambda state: {k: v for k, v in state.items() if k != "rollout"}, "incomplete: it lacks rollout"),
        (lambda state: {**state, "network": {}}, "weights of network does not fit: saved {}, here {'body"),
    ],
    ids=["dqn", "no-agent", "part", "no-weights"],
)
def test_what_is_no_ppo_state_is_refused(make_agent: MakeAgent, change: Any, named: str) -> None:
    agent = make_agent()
    with pytest.raises(ConfigError, match=named):
        agent.load_state_dict(change(agent.state_dict()))
