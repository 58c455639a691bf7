"""Small agents, and streams of transitions that their own policies chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker.agents import PPO, PPOConfig
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

BOX = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = {
    "discrete": gymnasium.spaces.Discrete(3, start=-1),
    "continuous": gymnasium.spaces.Box(-0.5, 2.0, (2,), np.float32),
    "several": gymnasium.spaces.MultiDiscrete([[2, 4], [3, 2]], start=[[-1, 0], [5, 0]]),
}
KINDS = list(ACTIONS)

MakeAgent = Callable[..., PPO]
Play = Callable[..., list[Experience]]


@pytest.fixture
def make_agent() -> MakeAgent:
    """``make_agent(kind="discrete", seed=0, **settings)``: an agent of small rollouts and networks."""

    def make(kind: str = "discrete", seed: int = 0, **settings: Any) -> PPO:
        small = {"rollout_steps": 20, "batch_size": 8, "n_epochs": 3, "hidden_sizes": (16,)}
        return PPO(BOX, ACTIONS[kind], PPOConfig(**{**small, **settings}), seed)

    return make


@pytest.fixture
def play() -> Play:
    """``play(agent, count, actor_ids=(0,), seed=0)``: transitions of every status; actors take turns."""

    def played(
        agent: PPO, count: int, actor_ids: Sequence[ActorId] = (0,), seed: int = 0
    ) -> list[Experience]:
        rng = np.random.default_rng(seed)
        policy = agent.policy()
        experiences = []
        for number in range(count):
            observation, next_observation = rng.uniform(-1, 1, (2, 4)).astype(np.float32)
            (action,), extras = policy.act([observation], ActMode.EXPLORE)
            assert extras is not None
            status = EpisodeStatus.CONTINUING
            if rng.random() < 0.2:
                status = list(EpisodeStatus)[rng.integers(3)]
            reward = float(rng.normal() * 3)
            actor_id = actor_ids[number % len(actor_ids)]
            experiences.append(
                Experience(observation, action, reward, next_observation, status, actor_id, extras[0])
            )
        return experiences

    return played
