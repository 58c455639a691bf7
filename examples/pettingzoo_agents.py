"""Agents of a PettingZoo environment that share one policy: each is an actor of the session.

Needs `pip install mpe2`.

python examples/pettingzoo_agents.py
"""

from functools import partial
from typing import Any

import anyio
import torch
from mpe2 import simple_spread_v3

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingRun, TrainingSession

MAX_CYCLES = 25


async def act_together(session: TrainingSession, place: int, observations: dict[str, Any]) -> dict[str, int]:
    """An action for each agent; calls of ``act`` that wait at the same time share one forward pass."""
    actions: dict[str, int] = {}

    async def act(name: str) -> None:
        actions[name] = await session.act(observations[name], actor_id=f"{place}/{name}")

    async with anyio.create_task_group() as together:
        for name in observations:
            together.start_soon(act, name)
    return actions


async def play(session: TrainingSession, place: int) -> None:
    """Play one environment until the session is done."""
    env = simple_spread_v3.parallel_env(max_cycles=MAX_CYCLES)
    seed = place
    while not session.is_done:
        observations, _ = env.reset(seed=seed)
        seed += 1_000
        total = dict.fromkeys(env.agents, 0.0)
        length = 0
        while env.agents and not session.is_done:
            actions = await act_together(session, place, {name: observations[name] for name in env.agents})
            before = observations
            observations, rewards, terminations, truncations, _ = env.step(actions)
            length += 1
            for name, action in actions.items():
                status = EpisodeStatus.of(terminations[name], truncations[name])
                actor_id, total[name] = f"{place}/{name}", total[name] + float(rewards[name])
                await session.observe(
                    Experience(
                        before[name], action, float(rewards[name]), observations[name], status, actor_id
                    )
                )
                if status.is_done:
                    await session.on_episode(total[name], length, status, actor_id=actor_id)
    env.close()


async def train(steps: int, runs_dir: str, n_envs: int) -> None:
    env = simple_spread_v3.parallel_env()
    first = env.possible_agents[0]
    config = DQNConfig(learning_starts=500, epsilon_decay_steps=steps // 2)
    agent = DQN(env.observation_space(first), env.action_space(first), config, seed=0)
    run = await TrainingRun.create("pettingzoo", root=runs_dir)
    session = TrainingSession(agent, run, max_steps=steps, opt_interval=4)
    async with session, anyio.create_task_group() as envs:
        for place in range(n_envs):
            envs.start_soon(play, session, place)
    recent = session.stats.window()
    print(f"{session.total_steps:,} steps of {len(env.possible_agents)} agents per environment")
    print(f"mean reward of the last 100 of {session.total_episodes} episodes: {recent.mean_reward:.1f}")
    print(f"  stoker show {run.directory}")


def main(steps: int = 20_000, runs_dir: str = "runs", n_envs: int = 4) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(partial(train, steps, runs_dir, n_envs))


if __name__ == "__main__":
    main()
