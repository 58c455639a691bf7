"""A game at 60 frames per second whose characters learn while it runs: no frame waits for the training.

Each frame moves every character once. At the end you see how long the frames took, without the waits between
them.

python examples/game_loop.py
"""

import time
from functools import partial

import anyio
import torch

from stoker import DQN, EpisodeStatus, Experience, TrainingRun, TrainingSession, make_gym, preset

ENV = "CartPole-v1"
FRAME_S = 1 / 60


class Character:
    """Something in the game that acts once per frame."""

    def __init__(self, actor_id: int) -> None:
        self.actor_id = actor_id
        self.env = make_gym(ENV)
        self.begin()

    def begin(self) -> None:
        """Begin an episode."""
        self.observation, _ = self.env.reset()
        self.total_reward, self.length = 0.0, 0

    async def move(self, session: TrainingSession) -> None:
        """Act, step and observe; all characters that move in one frame share a forward pass."""
        action = await session.act(self.observation, actor_id=self.actor_id)
        following, reward, terminated, truncated, _ = self.env.step(action)
        status = EpisodeStatus.of(terminated, truncated)
        await session.observe(
            Experience(self.observation, action, float(reward), following, status, self.actor_id)
        )
        self.observation, self.total_reward, self.length = (
            following,
            self.total_reward + float(reward),
            self.length + 1,
        )
        if status.is_done:
            await session.on_episode(self.total_reward, self.length, status, actor_id=self.actor_id)
            self.begin()


async def play(frames: int, runs_dir: str, n_characters: int, frame_s: float) -> list[float]:
    env = make_gym(ENV)
    agent = DQN(env.observation_space, env.action_space, preset("dqn", ENV), seed=0)
    run = await TrainingRun.create("game", root=runs_dir)
    took: list[float] = []
    # The queue has room for several frames: a slow update must not make a frame wait in observe.
    async with TrainingSession(agent, run, queue_capacity=16 * n_characters) as session:
        characters = [Character(actor_id) for actor_id in range(n_characters)]
        due = time.perf_counter()
        for _ in range(frames):
            began = time.perf_counter()
            async with anyio.create_task_group() as frame:
                for character in characters:
                    frame.start_soon(character.move, session)
            took.append(time.perf_counter() - began)
            due = max(due + frame_s, time.perf_counter())
            await anyio.sleep(max(0.0, due - time.perf_counter()))
    took.sort()
    p50, p99, longest = (took[min(int(len(took) * q), len(took) - 1)] * 1e3 for q in (0.5, 0.99, 1.0))
    print(f"{frames} frames of {n_characters}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms")
    print(f"{session.total_steps:,} steps, {session.opt_steps:,} updates; stoker show {run.directory}")
    return took


def main(
    frames: int = 1_200, runs_dir: str = "runs", n_characters: int = 8, frame_s: float = FRAME_S
) -> None:
    torch.set_num_threads(
        1
    )  # the fastest for a network this small, and it leaves the other cores to the game
    anyio.run(partial(play, frames, runs_dir, n_characters, frame_s))


if __name__ == "__main__":
    main()
