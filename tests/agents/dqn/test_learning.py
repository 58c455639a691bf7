"""The whole agent on a problem small enough to know its answer."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker.agents import DQN, DQNConfig
from stoker.types import ActMode, EpisodeStatus, Experience

STATES = 5  # in a row; leaving to the right gives 1, to the left 0.2, a step between them nothing
GAMMA = 0.9


def one_hot(state: int) -> np.ndarray:
    return np.eye(STATES, dtype=np.float32)[min(max(state, 0), STATES - 1)]


def play(state: int, action: int) -> tuple[int, float, EpisodeStatus]:
    state += 1 if action == 1 else -1
    if state == STATES:
        return state, 1.0, EpisodeStatus.TERMINATED
    if state < 0:
        return state, 0.2, EpisodeStatus.TERMINATED
    return state, 0.0, EpisodeStatus.CONTINUING


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "double": {"double": True},
    "dueling, prioritized, n-step": {"dueling": True, "prioritized": True, "n_step": 3, "double": True},
    "softmax": {"exploration": "softmax", "softmax_temperature": 0.1},
    "scaled rewards": {"normalize_rewards": True, "clip_rewards": 10.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_learns_a_chain_with_a_nearer_smaller_prize(variant: str) -> None:
    config = DQNConfig(
        learning_rate=5e-3, gamma=GAMMA, batch_size=32, buffer_size=1_000, learning_starts=64,
        target_update_interval=25, hidden_sizes=(32,), final_epsilon=0.2, epsilon_decay_steps=600,
        **VARIANTS[variant],
    )  # fmt: skip
    agent = DQN(gymnasium.spaces.Box(0, 1, (STATES,)), gymnasium.spaces.Discrete(2), config, seed=1)
    policy = agent.policy()
    state, steps = 0, 0
    for _ in range(900):
        (action,), _ = policy.act([one_hot(state)], ActMode.EXPLORE)
        next_state, reward, status = play(state, action)
        steps += 1
        if status is EpisodeStatus.CONTINUING and steps == 20:
            status = EpisodeStatus.TRUNCATED
        experience = Experience(one_hot(state), action, reward, one_hot(next_state), status)
        agent.check_experience(experience)
        agent.observe([experience])
        agent.learn()
        agent.publish(policy)
        state = next_state
        if status.is_done:
            state, steps = agent.total_steps % STATES, 0
    # From the leftmost state the far prize is worth 0.9^4 = 0.66 > 0.2: right is best everywhere.
    actions, _ = policy.act([one_hot(state) for state in range(STATES)], ActMode.EXPLOIT)
    assert actions == [1] * STATES
