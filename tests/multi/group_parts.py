"""Two small policies, a stream of joint steps for them, and what is the same in every order of kills."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from stoker import DQN, DQNConfig, EpisodeStatus, Experience
from stoker.multi import MultiAgentSession

LENGTH = 7
"""Joint steps in an episode."""
N_RED = 2
"""Agents of red; blue has one."""
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def agents() -> dict[str, Any]:
    """A DQN for each policy, which learns from its twentieth transition on."""
    config = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=20, buffer_size=500)
    return {
        name: DQN(BOX, gymnasium.spaces.Discrete(2), config, seed=seed)
        for seed, name in enumerate(("red", "blue"))
    }


def team_of(agent: str) -> str:
    """``"red_1"`` -> ``"red"``."""
    return agent.partition("_")[0]


def transition(agent: str, k: int) -> Experience:
    """The outcome of an agent's k-th joint step."""
    rng = np.random.default_rng((len(agent), ord(agent[-1]), k))
    first, second = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    status = EpisodeStatus.TERMINATED if k % LENGTH == LENGTH - 1 else EpisodeStatus.CONTINUING
    return Experience(first, int(rng.integers(2)), float(rng.normal()), second, status, f"0/{agent}")


async def hand_over(group: MultiAgentSession, k: int) -> None:
    """Hand the outcomes of the k-th joint step to the sessions of all agents."""
    async with group.joint_step():
        for agent in ("red_0", "red_1", "blue_0"):
            step = transition(agent, k)
            session = group.sessions[group.policy_of(agent)]
            await session.observe(step)
            if step.status.is_done:
                await session.on_episode(float(k), LENGTH, step.status, actor_id=step.actor_id)
