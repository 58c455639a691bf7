"""Agents of a PettingZoo environment that share one policy: each is an actor of the session.

Needs `pip install mpe2`. The same on the command line:

stoker train pettingzoo:mpe2.simple_spread_v3 --agent ppo

python examples/pettingzoo_agents.py
"""

from functools import partial

import anyio
import torch

from stoker import PPO, PPOConfig, TrainingRun, TrainingSession, make_pettingzoo, run_joint_actors

ENV = "pettingzoo:mpe2.simple_spread_v3"
MAX_CYCLES = 25


async def train(steps: int, runs_dir: str, n_envs: int) -> None:
    make = partial(make_pettingzoo, ENV, {"max_cycles": MAX_CYCLES})
    env = make()
    agent = PPO(*env.spaces(env.agents[0]), PPOConfig(rollout_steps=1_000), seed=0)
    run = await TrainingRun.create("pettingzoo", root=runs_dir)
    async with TrainingSession(agent, run, max_steps=steps) as session:
        await run_joint_actors(session, make, n_envs, seed=0)
    recent = session.stats.window()
    print(f"{session.total_steps:,} steps of {len(env.agents)} agents per environment")
    print(f"mean reward of the last 100 of {session.total_episodes} episodes: {recent.mean_reward:.1f}")
    print(f"  stoker show {run.directory}")


def main(steps: int = 20_000, runs_dir: str = "runs", n_envs: int = 4) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(partial(train, steps, runs_dir, n_envs))


if __name__ == "__main__":
    main()
