"""A program that forks one training process per request, with everything imported already.

Each line on its standard input is a request: ``{"root": ..., "directory": ... or null, "agent": ...,
"serial": ..., "max_steps": ... or null, "saves": true or false}``. The forked worker creates a run below
``root`` or resumes the one at ``directory``, and writes one line of JSON for each thing that stoker has
promised it:

    ["started", pid]                        before anything else
    ["run", directory]                      TrainingRun.create returned
    ["resumed", total_steps, attempt]       the session runs
    ["rows", [serial, ...], [serial, ...]]  training and evaluation rows that are durable: flush returned
    ["flushed", total_steps]                so many steps are durable, and never lost: flush returned
    ["checkpoint", total_steps]             checkpoint returned; so much had been accepted when it was called
    ["best", value]                         maybe_save_best returned True
    ["failed", class, class of the cause]   stoker raised one of its own errors
    ["refused", words]                      the system refused to read what is needed to begin
    ["finished", total_steps, episodes]     the session was left in peace
    ["crashed", traceback]                  anything else: a defect
    ["ended", return code]                  by the server; negative: the signal that it died of

What the worker cannot say any more, nobody was promised. The serials number all episodes of a run, so that
a row can be found again.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import torch

from stoker import DQN, PPO, DQNConfig, PPOConfig, TrainingRun, TrainingSession
from stoker.errors import StokerError, first_error
from stoker.stats import EpisodeRecord
from stoker.testing import ChainEnv
from stoker.types import EpisodeStatus, Experience

N_ACTORS = 64
_PR_SET_PDEATHSIG = 1


def say(*words: Any) -> None:
    """One line, in one write: it arrives whole or not at all."""
    os.write(1, json.dumps(words).encode() + b"\n")


class Worker:
    """Actors that play, and tasks that flush, evaluate and perhaps save as fast as they can."""

    def __init__(self, session: TrainingSession, serial: int) -> None:
        self.session = session
        self.serials = itertools.count(serial)
        self.rows: list[int] = []  # accepted and not yet confirmed
        self.eval_rows: list[int] = []
        self.steps = session.total_steps
        self.rng = random.Random(serial)

    async def play(self, actor_id: int) -> None:
        session = self.session
        env = ChainEnv(3, slip=0.3)
        seeds = itertools.count(actor_id * 1_000_000 + self.rng.randrange(1_000_000))
        while not session.is_done:
            observation, _ = env.reset(seed=next(seeds))
            total_reward, length, status = 0.0, 0, EpisodeStatus.CONTINUING
            while not status.is_done and not session.is_done:
                action = await session.act(observation, actor_id=actor_id)
                following, reward, terminated, truncated, _ = env.step(action)
                status = EpisodeStatus.of(terminated, truncated)
                await session.observe(
                    Experience(observation, action, reward, following, status, actor_id=actor_id)
                )
                if session.config.max_steps is None or self.steps < session.config.max_steps:
                    self.steps += 1
                observation = following
                total_reward += reward
                length += 1
            if status.is_done:
                serial = next(self.serials)
                await session.on_episode(
                    total_reward, length, status, {"serial": float(serial)}, actor_id=actor_id
                )
                self.rows.append(serial)

    async def flush(self) -> None:
        while not self.session.is_done:
            rows, self.rows = self.rows, []
            eval_rows, self.eval_rows = self.eval_rows, []
            steps = self.steps
            await self.session.flush()
            say("flushed", steps)
            for part in itertools.zip_longest(_parts(rows), _parts(eval_rows), fillvalue=[]):
                say("rows", *part)
            await anyio.sleep(self.rng.uniform(0.0, 0.02))

    async def save(self) -> None:
        while not self.session.is_done:
            steps = self.steps
            await self.session.checkpoint()
            say("checkpoint", steps)
            await anyio.sleep(self.rng.uniform(0.0, 0.05))

    async def evaluate(self) -> None:
        while not self.session.is_done:
            serial = next(self.serials)
            snapshot = await self.session.snapshot()
            record = EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED, {"serial": float(serial)})
            await self.session.on_eval_episode(record, snapshot)
            self.eval_rows.append(serial)
            value = float(snapshot.total_steps)
            if await self.session.maybe_save_best(value, snapshot):
                say("best", value)
            await anyio.sleep(self.rng.uniform(0.0, 0.05))


def make_agent(name: str) -> DQN | PPO:
    """The agent as it is made in every attempt."""
    env = ChainEnv(3)
    if name == "ppo":
        rollouts = PPOConfig(hidden_sizes=(8,), rollout_steps=500, batch_size=100, n_epochs=2)
        return PPO(env.observation_space, env.action_space, rollouts)
    config = DQNConfig(
        hidden_sizes=(8,), buffer_size=2_000, learning_starts=64, batch_size=16, epsilon_decay_steps=1_000
    )
    return DQN(env.observation_space, env.action_space, config)


def _parts(rows: list[int]) -> Iterator[list[int]]:
    return (rows[i : i + 100] for i in range(0, len(rows), 100))


async def work(
    root: str, directory: str | None, agent: str, serial: int, max_steps: int | None, saves: bool
) -> None:
    if directory is None:
        run = await TrainingRun.create("power", root=root)
        say("run", str(run.directory))
    else:
        run = await TrainingRun.resume(directory)
    session = TrainingSession(
        make_agent(agent), run, max_steps=max_steps, opt_interval=16, keep_journal="all",
        flush_interval_s=0.02, metadata_interval_s=0.05,
    )  # fmt: skip
    async with session:
        say("resumed", session.total_steps, run.attempt)
        worker = Worker(session, serial)
        async with anyio.create_task_group() as tasks:
            for actor_id in range(N_ACTORS):
                tasks.start_soon(worker.play, actor_id)
            for task in (worker.flush, worker.evaluate, *([worker.save] if saves else [])):
                tasks.start_soon(task)
    say("finished", session.total_steps, session.total_episodes)


def worker(request: dict[str, Any]) -> None:
    try:
        anyio.run(partial(work, **request))
    except BaseException as group:  # noqa: BLE001 - everything is told to the one who asked
        error = first_error(group)
        if isinstance(error, StokerError):
            say("failed", type(error).__name__, type(error.__cause__).__name__)
        elif isinstance(error, OSError):
            say("refused", str(error))
        else:
            say("crashed", traceback.format_exc()[-3_000:])


def serve() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for line in sys.stdin:
        request = json.loads(line)
        if (pid := os.fork()) == 0:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            say("started", os.getpid())  # itself: it may say more before the server has its turn again
            worker(request)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        say("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_agent("dqn")  # torch and anyio import much at first use
    anyio.run(anyio.sleep, 0)
    serve()
