"""What do actions cost when many actors ask at the same time?

256 tasks in a loop of ``await session.act(observation)`` on a [64, 64] policy, against one forward pass per
call: in torch, as one writes it first, and by stoker's own policy; and against the bare batched forward pass.
"""

from __future__ import annotations

import random
import statistics
import time

import anyio
import gymnasium
import numpy as np
import torch
from torch import nn

from benchmarks.measure import QUICK, repeated, report
from stoker import DQN, ActMode, TrainingSession

N_ACTORS = 256
ROUNDS = 20 if QUICK else 100
RUNS = 3 if QUICK else 5


def agent() -> DQN:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    return DQN(box, gymnasium.spaces.Discrete(2), seed=0)


def together_us() -> float:
    async def main() -> float:
        observation = np.zeros(4, np.float32)

        async def actor(session: TrainingSession, actor_id: int) -> None:
            for _ in range(ROUNDS):
                await session.act(observation, actor_id=actor_id)

        async with TrainingSession(agent()) as session:
            started = time.perf_counter()
            async with anyio.create_task_group() as actors:
                for actor_id in range(N_ACTORS):
                    actors.start_soon(actor, session, actor_id)
            took_s = time.perf_counter() - started
            passes.append(session.n_forward_passes)
        return took_s / (N_ACTORS * ROUNDS) * 1e6

    return anyio.run(main)


def each_alone_us() -> float:
    network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    generator = random.Random(0)
    observation = np.zeros(4, np.float32)
    calls = N_ACTORS * max(1, ROUNDS // 10)

    async def act() -> int:
        if generator.random() < 0.05:
            return generator.randrange(2)
        with torch.no_grad():
            return int(network(torch.as_tensor(observation).unsqueeze(0)).argmax(dim=1).item())

    async def main() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            await act()
        return (time.perf_counter() - started) / calls * 1e6

    return anyio.run(main)


def each_alone_by_stoker_us() -> float:
    policy = agent().policy()
    observation = np.zeros(4, np.float32)
    calls = N_ACTORS * max(1, ROUNDS // 10)

    async def main() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            policy.act([observation], ActMode.EXPLORE)
        return (time.perf_counter() - started) / calls * 1e6

    return anyio.run(main)


def batched_us() -> float:
    policy = agent().policy()
    observations = [np.zeros(4, np.float32)] * N_ACTORS
    started = time.perf_counter()
    for _ in range(ROUNDS):
        policy.act(observations, ActMode.EXPLORE)
    return (time.perf_counter() - started) / (N_ACTORS * ROUNDS) * 1e6


passes: list[int] = []


def main() -> None:
    torch.set_num_threads(1)
    rows = repeated(
        {
            "session.act, 256 tasks": together_us,
            "one torch pass per call": each_alone_us,
            "one pass of ours per call": each_alone_by_stoker_us,
            "bare batched forward pass": batched_us,
        },
        RUNS,
    )
    median = {name: statistics.median(values) for name, values in rows.items()}
    ours = median["session.act, 256 tasks"]
    report(
        "Acting together",
        "us per action",
        rows,
        {
            "one torch pass per call / stoker": median["one torch pass per call"] / ours,
            "one pass of ours per call / stoker": median["one pass of ours per call"] / ours,
            "stoker / bare batch": ours / median["bare batched forward pass"],
        },
        [f"{passes[0]} forward passes for {N_ACTORS * ROUNDS:,} calls"],
    )


if __name__ == "__main__":
    main()
