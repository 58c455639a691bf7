"""What do arrays of a vector environment cost on their way through a session?

``observe_batch`` of 64 transitions, until an agent that does nothing has consumed them: without a run, and
with a run whose journal holds every one. Against the same transitions one by one, and against adding them to
Stable-Baselines3's ``ReplayBuffer``, which writes nothing down. And ``act_many`` of 64 observations on a
[64, 64] policy, against one pass of the same policy without a session.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import anyio
import gymnasium
import numpy as np
import torch

from benchmarks.measure import QUICK, Idle, repeated, report
from stoker import DQN, PPO, ActMode, ExperienceBatch, TrainingRun, TrainingSession

N = 64
N_BATCHES = 1_000 if QUICK else 6_000
ROUNDS = 500 if QUICK else 3_000
RUNS = 3 if QUICK else 5
BOX = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
DISCRETE = gymnasium.spaces.Discrete(2)


class IdleColumns(Idle):
    """An agent that does nothing but count, and takes columns."""

    def observe_batch(self, batch: ExperienceBatch) -> None:
        self.total_steps += len(batch)


def rounds() -> list[ExperienceBatch]:
    """A hundred rounds of 64 environments; each begins with the observations that the last one ended with."""
    generator = np.random.default_rng(0)
    shown = generator.standard_normal((101, N, 4), np.float32)
    actions = generator.integers(0, 2, (100, N))
    ids, over = tuple(range(N)), np.zeros(N, np.bool_)
    return [
        ExperienceBatch(shown[t], actions[t], np.ones(N), shown[t + 1], over, over, ids) for t in range(100)
    ]


def batches_rate(*, has_run: bool) -> float:
    """Transitions per second, until the last one is consumed and, with a run, on its way to the disk."""

    async def main() -> float:
        given = rounds()
        with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
            run = await TrainingRun.create("bench", root=root) if has_run else None
            async with TrainingSession(IdleColumns(), run, checkpoint_freq=0, opt_interval=0) as session:
                started = time.perf_counter()
                for number in range(N_BATCHES):
                    await session.observe_batch(given[number % 100])
                await session.barrier()
                return N * N_BATCHES / (time.perf_counter() - started)

    return anyio.run(main)


def singles_rate() -> float:
    async def main() -> float:
        given = [batch.experiences() for batch in rounds()]
        async with TrainingSession(IdleColumns(), opt_interval=0) as session:
            started = time.perf_counter()
            for number in range(N_BATCHES // 10):
                await session.observe_many(given[number % 100])
            await session.barrier()
            return N * (N_BATCHES // 10) / (time.perf_counter() - started)

    return anyio.run(main)


def buffer_rate() -> float:
    from stable_baselines3.common.buffers import ReplayBuffer

    buffer = ReplayBuffer(100_000, BOX, DISCRETE, "cpu", n_envs=N)
    given = rounds()
    infos: list[dict[str, Any]] = [{} for _ in range(N)]
    started = time.perf_counter()
    for number in range(N_BATCHES):
        batch = given[number % 100]
        buffer.add(
            batch.observations,
            batch.next_observations,
            batch.actions,
            batch.rewards,
            batch.terminated,
            infos,
        )
    return N * N_BATCHES / (time.perf_counter() - started)


def act_many_us(make: Callable[[], Any]) -> float:
    """A call of ``act_many``, once it is warm."""

    async def main() -> float:
        observations, ids = np.zeros((N, 4), np.float32), tuple(range(N))
        async with TrainingSession(make()) as session:
            for _ in range(50):
                await session.act_many(observations, ids)
            started = time.perf_counter()
            for _ in range(ROUNDS):
                await session.act_many(observations, ids)
            return (time.perf_counter() - started) / ROUNDS * 1e6

    return anyio.run(main)


def pass_us(make: Callable[[], Any]) -> float:
    policy, observations = make().policy(), np.zeros((N, 4), np.float32)
    for _ in range(50):
        policy.act(observations, ActMode.EXPLORE)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        policy.act(observations, ActMode.EXPLORE)
    return (time.perf_counter() - started) / ROUNDS * 1e6


def main() -> None:
    torch.set_num_threads(1)
    rows = repeated(
        {
            "stoker, without a run": lambda: batches_rate(has_run=False),
            "stoker, with run and journal": lambda: batches_rate(has_run=True),
            "stoker, one by one": singles_rate,
            "Stable-Baselines3's ReplayBuffer": buffer_rate,
        },
        RUNS,
    )
    median = {name: statistics.median(values) for name, values in rows.items()}
    bare, journaled, singles, buffer = median.values()
    report(
        f"observe_batch of {N}",
        "transitions per second",
        rows,
        {
            "with a journal / a million": journaled / 1e6,
            "with a journal / one by one": journaled / singles,
            "with a journal / ReplayBuffer": journaled / buffer,
            "without a run / ReplayBuffer": bare / buffer,
        },
    )
    makers = {"DQN": lambda: DQN(BOX, DISCRETE, seed=0), "PPO": lambda: PPO(BOX, DISCRETE, seed=0)}
    for name, make in makers.items():
        rows = repeated(
            {
                "session.act_many": lambda m=make: act_many_us(m),
                "the pass alone": lambda m=make: pass_us(m),
            },
            RUNS,
        )
        many, alone = (statistics.median(values) for values in rows.values())
        report(f"act_many of {N}, {name} [64, 64]", "us per call", rows, {"act_many / pass": many / alone})


if __name__ == "__main__":
    main()
