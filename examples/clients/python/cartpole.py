"""Play CartPole in a loop of your own, and let a stoker server learn it.

stoker serve --env CartPole-v1
python cartpole.py http://127.0.0.1:8000 [EPISODES]

``stoker actor --connect URL --env CartPole-v1 -n 8`` does the same for any Gymnasium environment.
"""

import sys

import anyio
import gymnasium

import stoker
from stoker.client import RemoteSession, connect


async def play(session: RemoteSession, actor_id: str, episodes: int) -> None:
    env = gymnasium.make("CartPole-v1")
    for _ in range(episodes):
        await session.on_episode_start(actor_id)
        observation, _ = env.reset()
        total_reward, steps, status = 0.0, 0, stoker.EpisodeStatus.CONTINUING
        while not status.is_done and not session.is_done:
            action = await session.act(observation, actor_id=actor_id)
            after, reward, terminated, truncated, _ = env.step(action)
            status = stoker.EpisodeStatus.of(terminated, truncated)
            await session.observe(
                stoker.Experience(observation, action, float(reward), after, status, actor_id)
            )
            observation, total_reward, steps = after, total_reward + float(reward), steps + 1
        if session.is_done:
            break
        await session.on_episode(total_reward, steps, status, actor_id=actor_id)
    env.close()


async def main(url: str = "http://127.0.0.1:8000", episodes: str = "100") -> None:
    async with connect(url) as session, anyio.create_task_group() as tasks:
        for actor_id in ("left", "right"):
            tasks.start_soon(play, session, actor_id, int(episodes))
    print(f"{session.accepted_steps} steps, all of them on the server's disk")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
