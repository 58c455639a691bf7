"""Take a policy out of a run, and play it without a session, an agent or a learner.

stoker train CartPole-v1 && python examples/play_policy.py runs/CartPole-v1
"""

import os
import sys

import gymnasium

from stoker import load_policy


def main(path: str = "runs/CartPole-v1", episodes: int = 10) -> None:
    policy = load_policy(path)  # the best evaluated one; also of a directory that `stoker export` made
    env = gymnasium.make(policy.description["env"])
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        total_reward, is_over = 0.0, False
        while not is_over:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            total_reward, is_over = total_reward + float(reward), terminated or truncated
        print(f"episode {episode}: {total_reward:.0f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
