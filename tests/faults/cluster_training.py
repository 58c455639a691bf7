"""A training whose environments write down each step they did, in files that outlive their processes.

Run as a program ``cluster_training.py ROOT PLACE WORKERS ENVS``, PLACE the address of a Ray cluster or
``tasks``: it makes a run in ROOT or resumes it, and trains until its standard input is closed. Its standard
output has a ``Report`` as a line of JSON ten times a second. An error of stoker's is one line on its standard
error.
"""

from __future__ import annotations

import itertools
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import gymnasium
import msgspec
import numpy as np

from stoker import DQN, ActorGroup, DQNConfig, StokerError, TrainingRun, TrainingSession
from stoker.distributed import RayPlace, WorkerStatus
from stoker.exits import single_error

LENGTH = 25
STEP_S = 0.02
SCALE = 1 << 20
RECORD = "<4I"
"""Of a step: the episode, the step in it, the action, the process."""
BOX = gymnasium.spaces.Box(0, 1, (4,), np.float32)


class Report(msgspec.Struct, frozen=True):
    """How the training stands.

    Attributes:
        steps: that were consumed.
        still_s: the longest time without any, after the first one, in which some worker always played.
        workers: on the cluster.
    """

    steps: int
    still_s: float
    workers: tuple[WorkerStatus, ...]


class Writing(gymnasium.Env[Any, Any]):
    """Writes a ``RECORD`` of each step, into a file of its own.

    Its observations name this environment, the episode and the step: 20 bits in each number, so that they are
    exact in float32; its rewards follow from these and the action.
    """

    observation_space = BOX
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, folder: str) -> None:
        self._name = secrets.randbelow(1 << 40)
        self._file = os.open(
            Path(folder) / f"{os.getpid()}-{self._name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND
        )
        self._episode = self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self._episode, self._step = self._episode + 1, 0
        return observation_of(self._name, self._episode, 0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(STEP_S)
        reward = reward_of(self._episode, self._step, int(action))
        self._step += 1
        following = observation_of(self._name, self._episode, self._step)
        os.write(self._file, struct.pack(RECORD, self._episode, self._step - 1, int(action), os.getpid()))
        return following, reward, self._step == LENGTH, False, {}

    def close(self) -> None:
        os.close(self._file)


def observation_of(name: int, episode: int, step: int) -> Any:
    return np.array([name >> 20, name & (SCALE - 1), episode, step], np.float32) / np.float32(SCALE)


def named_by(observation: Any) -> tuple[int, int, int]:
    """The environment, the episode and the step that an observation is of."""
    high, low, episode, step = (int(number) for number in np.asarray(observation) * SCALE)
    return high << 20 | low, episode, step


def reward_of(episode: int, step: int, action: int) -> float:
    return float(episode * 1_000 + step * 10 + action)


def agent() -> DQN:
    config = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=64, buffer_size=2_000)
    return DQN(BOX, gymnasium.spaces.Discrete(2), config, seed=0)


async def run_in(root: Path) -> TrainingRun:
    if any(root.glob("t/*/*/metadata.json")):  # noqa: ASYNC240 - nothing else runs yet
        return await TrainingRun.resume(root / "t")
    return await TrainingRun.create("t", root=root)


async def train(root: Path, place: RayPlace | str, n_actors: int) -> None:
    folder = root / "played"
    folder.mkdir(exist_ok=True)
    session = TrainingSession(
        agent(), await run_in(root), opt_interval=16, keep_journal="all", checkpoint_freq=5_000
    )
    async with session:
        group = ActorGroup(session, partial(Writing, str(folder)), n_actors, place=place, seed=0)
        status: Callable[[], Any] = tuple if isinstance(place, str) else place.workers
        with single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(report, session, status)
                tasks.start_soon(end_when_asked, tasks.cancel_scope)
                await group.run()
                tasks.cancel_scope.cancel()
    print(f"ended at {session.total_steps}", flush=True)


async def report(session: TrainingSession, status: Callable[[], tuple[WorkerStatus, ...]]) -> None:
    """Look a hundred times a second, and print every tenth look."""
    first = steps = session.total_steps
    still_s, moved_at = 0.0, time.monotonic()
    for look in itertools.count():
        now, workers = time.monotonic(), status()
        is_playing = steps > first and any(worker.state == "playing" for worker in workers)
        if is_playing and session.total_steps == steps:
            still_s = max(still_s, now - moved_at)
        else:
            steps, moved_at = session.total_steps, now
        if look % 10 == 0:
            print(msgspec.json.encode(Report(steps, still_s, workers)).decode(), flush=True)
        await anyio.sleep(0.01)


async def end_when_asked(scope: anyio.CancelScope) -> None:
    await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()


def main(root: Path, where: str, n_workers: int, n_envs: int) -> None:
    place = where if where == "tasks" else RayPlace(where, envs_per_worker=n_envs, max_workers=n_workers)
    try:
        anyio.run(train, root, place, n_workers * n_envs)
    finally:
        if isinstance(place, RayPlace):
            place.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    except StokerError as error:
        sys.exit(f"error: {error}")
