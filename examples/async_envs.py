"""64 slow environments at once, each a task of its own that calls the session itself.

The environments answer after random times with a heavy tail, as remote simulators and services do. No
actor waits for another: those that have an answer go on, and those that wait for an action at the same
time share one forward pass.

python examples/async_envs.py
"""

import random
from typing import Any

import anyio
import torch

from stoker import DQN, EpisodeStatus, Experience, TrainingRun, TrainingSession, make_gym, preset

ENV = "CartPole-v1"
SEED = 0
PRINT_EVERY_S = 2.0


class RemoteEnv:
    """A CartPole that takes its time: mostly a few milliseconds, now and then a hundred times that."""

    def __init__(self, seed: int, latency_s: float) -> None:
        self._env = make_gym(ENV)
        self._env.reset(seed=seed)
        self._random = random.Random(seed)
        self._latency_s = latency_s

    async def reset(self) -> Any:
        """Begin an episode and return what is seen."""
        await self._answer()
        return self._env.reset()[0]

    async def step(self, action: int) -> tuple[Any, float, EpisodeStatus]:
        """Do one action; what is seen then, the reward, how the episode stands."""
        await self._answer()
        observation, reward, terminated, truncated, _ = self._env.step(action)
        return observation, float(reward), EpisodeStatus.of(terminated, truncated)

    async def _answer(self) -> None:
        # Pareto with shape 1.5: a mean of three times the least, a variance without bound.
        await anyio.sleep(min(self._latency_s * self._random.paretovariate(1.5), 100 * self._latency_s))


async def play(session: TrainingSession, actor_id: int, latency_s: float) -> None:
    """One actor: act, step, observe, until the session has had enough."""
    env = RemoteEnv(SEED + actor_id, latency_s)
    while not session.is_done:
        observation = await env.reset()
        status, total_reward, length = EpisodeStatus.CONTINUING, 0.0, 0
        await session.on_episode_start(actor_id)
        while not (status.is_done or session.is_done):
            action = await session.act(observation, actor_id=actor_id)
            next_observation, reward, status = await env.step(action)
            # What comes after max_steps is dropped quietly: racing actors need no care.
            await session.observe(Experience(observation, action, reward, next_observation, status, actor_id))
            observation, total_reward, length = next_observation, total_reward + reward, length + 1
        if status.is_done:
            await session.on_episode(total_reward, length, status, actor_id=actor_id)


async def report(session: TrainingSession) -> None:
    while True:
        await anyio.sleep(PRINT_EVERY_S)
        recent = session.stats.window()
        shared = session.total_steps / max(session.n_forward_passes, 1)
        print(
            f"{session.total_steps:>7,} steps  {session.steps_per_sec:>6,.0f} steps/s  "
            f"mean reward of the last 100 episodes: {recent.mean_reward:6.1f}  "
            f"{shared:4.1f} actions per forward pass",
            flush=True,
        )


async def train(steps: int, runs_dir: str, n_actors: int, latency_s: float) -> None:
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV), seed=SEED)
    run = await TrainingRun.create("async-envs", root=runs_dir)
    print(f"the run is in {run.directory}")
    session = TrainingSession(agent, run, max_steps=steps, queue_capacity=64)
    async with session, anyio.create_task_group() as reporting:
        reporting.start_soon(report, session)
        async with anyio.create_task_group() as actors:
            for actor_id in range(n_actors):
                actors.start_soon(play, session, actor_id, latency_s)
        reporting.cancel_scope.cancel()
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes; look at it with:")
    print(f"  stoker show {run.directory}")


def main(steps: int = 30_000, runs_dir: str = "runs", n_actors: int = 64, latency_s: float = 5e-3) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(train, steps, runs_dir, n_actors, latency_s)


if __name__ == "__main__":
    main()
