"""asyncio with its own TaskGroup and time-outs: an environment that hangs costs one episode.

python examples/asyncio_timeouts.py
"""

import asyncio
import random
from typing import Any

import torch

from stoker import DQN, EpisodeStatus, Experience, TrainingRun, TrainingSession, make_gym, preset

ENV = "CartPole-v1"
TIMEOUT_S = 0.05


class UnreliableEnv:
    """A CartPole behind a connection that sometimes never answers."""

    def __init__(self, seed: int, hang_rate: float) -> None:
        self._env = make_gym(ENV)
        self._random = random.Random(seed)
        self._hang_rate = hang_rate

    async def reset(self) -> Any:
        """Begin an episode and return what is seen."""
        return self._env.reset()[0]

    async def step(self, action: int) -> tuple[Any, float, EpisodeStatus]:
        """Do one action; may hang."""
        await asyncio.sleep(60 if self._random.random() < self._hang_rate else 0)
        observation, reward, terminated, truncated, _ = self._env.step(action)
        return observation, float(reward), EpisodeStatus.of(terminated, truncated)


async def play(session: TrainingSession, actor_id: int, hang_rate: float) -> int:
    """One actor; returns how many episodes it gave up."""
    env, n_given_up = UnreliableEnv(actor_id, hang_rate), 0
    while not session.is_done:
        observation = await env.reset()
        status, total_reward, length = EpisodeStatus.CONTINUING, 0.0, 0
        await session.on_episode_start(actor_id)  # gives up an episode that did not end
        try:
            while not (status.is_done or session.is_done):
                action = await session.act(observation, actor_id=actor_id)
                async with asyncio.timeout(TIMEOUT_S):
                    next_observation, reward, status = await env.step(action)
                await session.observe(
                    Experience(observation, action, reward, next_observation, status, actor_id)
                )
                observation, total_reward, length = next_observation, total_reward + reward, length + 1
        except TimeoutError:
            n_given_up += 1
            continue
        if status.is_done:
            await session.on_episode(total_reward, length, status, actor_id=actor_id)
    return n_given_up


async def train(steps: int, runs_dir: str, n_actors: int, hang_rate: float) -> None:
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV), seed=0)
    run = await TrainingRun.create("asyncio", root=runs_dir)
    async with TrainingSession(agent, run, max_steps=steps) as session, asyncio.TaskGroup() as group:
        actors = [group.create_task(play(session, actor_id, hang_rate)) for actor_id in range(n_actors)]
    n_given_up = sum(actor.result() for actor in actors)
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes, {n_given_up} given up")
    print(f"  stoker show {run.directory}")


def main(steps: int = 20_000, runs_dir: str = "runs", n_actors: int = 16, hang_rate: float = 0.002) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    asyncio.run(train(steps, runs_dir, n_actors, hang_rate))


if __name__ == "__main__":
    main()
