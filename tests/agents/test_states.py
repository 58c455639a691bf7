"""An agent saved at any point, of whatever spaces and settings, goes on as if it had not been."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from hypothesis import given, settings, strategies as st

from stoker.agents import DQN, PPO, DQNConfig, LearningAgent, PPOConfig
from stoker.testing.agent_driving import feed, load_state, state_of
from stoker.testing.contract import difference
from stoker.types import ActMode, EpisodeStatus, Experience

STEPS = 130  # more than the 100 observations that moments are taken over at once
OBSERVATIONS = [
    Box(-1, 1, ()),
    Box(-1, 1, (3,)),
    Box(-1, 1, (3,), np.float64),
    Box(0, 255, (4,), np.uint8),
    Box(-9, 9, (1,), np.int64),
    Box(-1, 1, (2, 3)),
    Box(0, 255, (2, 2, 3), np.uint16),
]
DISCRETE = Discrete(3, start=-1)
ACTIONS: list[Space[Any]] = [DISCRETE, Box(-1, 1, ()), Box(-1, 1, (1,)), Box(-1, 1, (2, 3), np.float64)]

dqn_settings = st.fixed_dictionaries(
    {
        "normalize_observations": st.booleans(),
        "normalize_rewards": st.booleans(),
        "n_step": st.sampled_from([1, 3]),
        "prioritized": st.booleans(),
        "tau": st.sampled_from([None, 0.1]),
        "dueling": st.booleans(),
        "exploration": st.sampled_from(["epsilon", "softmax"]),
    }
)
ppo_settings = st.fixed_dictionaries(
    {"normalize_observations": st.booleans(), "normalize_rewards": st.booleans()}
)


def play(agent: LearningAgent, observations: Space[Any], steps: int) -> list[Experience]:
    """What two interleaved actors do with the agent's first policy, in short episodes of both endings."""
    observations.seed(5)
    policy, seen = agent.policy(), [observations.sample(), observations.sample()]
    experiences: list[Experience] = []
    for at in range(steps):
        actor, after = at % 2, observations.sample()
        actions, memories = policy.act([seen[actor]], ActMode.EXPLORE)
        status = EpisodeStatus.of(at % 9 == 8, at % 13 == 12)
        extras = None if memories is None else memories[0]
        experiences.append(Experience(seen[actor], actions[0], at % 4, after, status, actor, extras))
        seen[actor] = after
    return experiences


def assert_a_save_leaves_no_trace(make: Any, observations: Space[Any], at: int) -> None:
    experiences = play(make(), observations, STEPS)
    agent, resumed = make(), make()
    feed(agent, experiences[:at])
    load_state(resumed, state_of(agent))
    said = [feed(each, experiences[at:]) for each in (agent, resumed)]
    assert difference(*said) is None
    acted = [
        each.policy().act([experiences[0].observation] * 3, ActMode.EXPLORE) for each in (agent, resumed)
    ]
    assert difference(*acted) is None
    assert difference(state_of(agent), state_of(resumed)) is None


@given(observations=st.sampled_from(OBSERVATIONS), at=st.integers(0, STEPS), chosen=dqn_settings)
@settings(max_examples=40, deadline=None)
def test_dqn(observations: Space[Any], at: int, chosen: dict[str, Any]) -> None:
    config = DQNConfig(learning_starts=20, batch_size=8, buffer_size=50, hidden_sizes=(8,), **chosen)
    assert_a_save_leaves_no_trace(lambda: DQN(observations, DISCRETE, config, seed=2), observations, at)


@given(
    observations=st.sampled_from(OBSERVATIONS),
    actions=st.sampled_from(ACTIONS),
    at=st.integers(0, STEPS),
    chosen=ppo_settings,
)
@settings(max_examples=40, deadline=None)
def test_ppo(observations: Space[Any], actions: Space[Any], at: int, chosen: dict[str, Any]) -> None:
    config = PPOConfig(rollout_steps=30, batch_size=10, n_epochs=2, hidden_sizes=(8,), **chosen)
    assert_a_save_leaves_no_trace(lambda: PPO(observations, actions, config, seed=2), observations, at)
