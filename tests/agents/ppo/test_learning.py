"""The whole agent, in a training session with several actors, on problems small enough to know the answer."""

from __future__ import annotations

from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest

from stoker import EpisodeStatus, Experience, TrainingSession
from stoker.agents import PPO, PPOConfig
from stoker.testing import ChainEnv
from stoker.types import ActMode

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One of them: which loop it is makes no difference to what is learned."""
    return "asyncio"


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point on a line is moved by up to 0.3 a step; each step costs its distance to the target.

    Standing on the target does not end the episode: it is truncated after 12 steps.
    """

    observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-0.3, 0.3, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.target = self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place = float(np.clip(self.place + action[0], -2, 2))
        self.steps += 1
        return self.seen(), -abs(self.place - self.target), False, self.steps == 12, {}

    def seen(self) -> np.ndarray:
        return np.array([self.place, self.target], np.float32)


async def play(session: TrainingSession, env: Any, actor_id: int) -> None:
    seed: int | None = actor_id
    while not session.is_done:
        observation, _ = env.reset(seed=seed)
        seed = None
        status, total, steps = EpisodeStatus.CONTINUING, 0.0, 0
        while not (status.is_done or session.is_done):
            action = await session.act(observation, actor_id=actor_id)
            next_observation, reward, terminated, truncated, _ = env.step(action)
            status = EpisodeStatus.of(terminated, truncated)
            await session.observe(
                Experience(observation, action, float(reward), next_observation, status, actor_id)
            )
            observation, total, steps = next_observation, total + float(reward), steps + 1
        if status.is_done:
            await session.on_episode(total, steps, status, actor_id=actor_id)


def scores(agent: PPO, env: Any, episodes: int = 20) -> list[float]:
    policy, found = agent.policy(), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=1_000 + episode)
        total, is_done = 0.0, False
        while not is_done:
            (action,), _ = policy.act([observation], ActMode.EXPLOIT)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, is_done = total + float(reward), terminated or truncated
        found.append(total)
    return found


async def trained(agent: PPO, make: Any, n_actors: int, max_steps: int, opt_interval: int) -> TrainingSession:
    session = TrainingSession(agent, max_steps=max_steps, opt_interval=opt_interval)
    async with session, anyio.create_task_group() as actors:
        for actor_id in range(n_actors):
            actors.start_soon(play, session, make(), actor_id)
    return session


async def test_it_learns_to_walk_a_chain_to_its_end() -> None:
    config = PPOConfig(
        learning_rate=5e-3, rollout_steps=160, batch_size=40, n_epochs=6, gamma=0.95,
        hidden_sizes=(16,), normalize_observations=True,
    )  # fmt: skip
    agent = PPO(*(getattr(ChainEnv(), f"{name}_space") for name in ("observation", "action")), config, seed=1)
    session = await trained(agent, ChainEnv, 5, 8_000, 16)
    assert (agent.total_steps, agent.opt_steps) == (8_000, 50)
    assert scores(agent, ChainEnv(), 1) == [1.0]
    window = session.stats.window()
    assert window.mean_reward > 0.95
    assert window.mean_length < 8, "of 20 at most; the shortest way has 5"


async def test_it_learns_to_reach_a_target() -> None:
    config = PPOConfig(
        learning_rate=5e-3, rollout_steps=480, batch_size=60, n_epochs=5, gamma=0.8, hidden_sizes=(32,),
        log_std_init=-1.0,
    )  # fmt: skip
    agent = PPO(Reach.observation_space, Reach.action_space, config, seed=1)
    untrained = np.mean(scores(agent, Reach()))
    await trained(agent, Reach, 4, 9_600, 48)
    assert agent.opt_steps == 20
    # The farthest way takes 7 steps; who goes straight pays 0.9 in the mean.
    assert untrained < -6
    assert np.mean(scores(agent, Reach())) > -1.5
