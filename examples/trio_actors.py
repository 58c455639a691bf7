"""Sixteen actors on trio: a session needs no asyncio.

Needs `pip install 'stoker[trio]'`.

python examples/trio_actors.py
"""

import torch
import trio

from stoker import DQN, EpisodeStatus, Experience, TrainingRun, TrainingSession, make_gym, preset

ENV = "CartPole-v1"


async def play(session: TrainingSession, actor_id: int) -> None:
    """One actor: act, step, observe, until the session is done."""
    env = make_gym(ENV)
    while not session.is_done:
        observation, _ = env.reset(seed=actor_id)
        status, total_reward, length = EpisodeStatus.CONTINUING, 0.0, 0
        while not (status.is_done or session.is_done):
            action = await session.act(observation, actor_id=actor_id)
            await trio.sleep(0.001)  # a simulator that takes its time
            next_observation, reward, terminated, truncated, _ = env.step(action)
            status = EpisodeStatus.of(terminated, truncated)
            await session.observe(
                Experience(observation, action, float(reward), next_observation, status, actor_id)
            )
            observation, total_reward, length = next_observation, total_reward + float(reward), length + 1
        if status.is_done:
            await session.on_episode(total_reward, length, status, actor_id=actor_id)


async def train(steps: int, runs_dir: str, n_actors: int) -> None:
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV), seed=0)
    run = await TrainingRun.create("trio", root=runs_dir)
    async with TrainingSession(agent, run, max_steps=steps) as session, trio.open_nursery() as actors:
        for actor_id in range(n_actors):
            actors.start_soon(play, session, actor_id)
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes; look at it with:")
    print(f"  stoker show {run.directory}")


def main(steps: int = 20_000, runs_dir: str = "runs", n_actors: int = 16) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    trio.run(train, steps, runs_dir, n_actors)


if __name__ == "__main__":
    main()
