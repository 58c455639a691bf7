"""Take a policy out of a run, and play it without a session, a run or a learner.

python examples/play_policy.py runs/CartPole-v1
"""

import os
import sys

import anyio
import torch

from stoker import DQN, ActMode, TrainingRun, make_gym, preset
from stoker.agents import Policy

ENV = "CartPole-v1"


async def best_policy(path: str) -> Policy:
    """The best policy of the newest run there, or its newest one if none was evaluated."""
    run = await TrainingRun.open(path)
    best = run.best_checkpoint_path
    checkpoint = best if best.exists() else run.latest_checkpoint_path
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV))
    agent.load_state_dict(torch.load(checkpoint, weights_only=True)["agent"])
    return agent.policy()  # an independent copy of the weights; the agent may go


def main(path: str = "runs/CartPole-v1", episodes: int = 10) -> None:
    policy = anyio.run(best_policy, path)
    env = make_gym(ENV)
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        total_reward, is_over = 0.0, False
        while not is_over:
            (action,), _ = policy.act([observation], ActMode.EXPLOIT)
            observation, reward, terminated, truncated, _ = env.step(action)
            total_reward, is_over = total_reward + float(reward), terminated or truncated
        print(f"episode {episode}: {total_reward:.0f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
