"""DQN learns CartPole in a plain loop: no event loop, no callbacks.

python examples/plain_loop.py
"""

from functools import partial

import anyio
import torch

from stoker import DQN, EpisodeStatus, Experience, SyncTrainingSession, TrainingRun, make_gym, preset

ENV = "CartPole-v1"
SEED = 0


def main(steps: int = 30_000, runs_dir: str = "runs", print_every: int = 20) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV), seed=SEED)
    run = anyio.run(partial(TrainingRun.create, "plain-loop", root=runs_dir))
    print(f"the run is in {run.directory}")

    # A small queue keeps the policy that acts close to the one that learns.
    with SyncTrainingSession(agent, run, max_steps=steps, queue_capacity=64) as session:
        episode = 0
        while not session.is_done:
            observation, _ = env.reset(seed=SEED if episode == 0 else None)
            status, total_reward, length = EpisodeStatus.CONTINUING, 0.0, 0
            while not status.is_done and not session.is_done:
                action = session.act(observation)
                next_observation, reward, terminated, truncated, _ = env.step(action)
                status = EpisodeStatus.of(terminated, truncated)
                session.observe(Experience(observation, action, float(reward), next_observation, status))
                observation, total_reward, length = next_observation, total_reward + float(reward), length + 1
            if not status.is_done:
                break  # the last step that was asked for fell into the middle of an episode
            session.on_episode(total_reward, length, status)
            episode += 1
            if episode % print_every == 0:
                recent = session.session.stats.window()
                print(
                    f"{session.total_steps:>7,} steps  {episode:>4} episodes  "
                    f"mean reward of the last 100: {recent.mean_reward:6.1f}  "
                    f"{session.steps_per_sec:,.0f} steps/s",
                    flush=True,
                )
    env.close()
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes; look at it with:")
    print(f"  stoker show {run.directory}")


if __name__ == "__main__":
    main()
