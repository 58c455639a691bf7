"""Environments that hold the interpreter: actors as tasks of one process, or each in a process of its own?

CartPole whose every step computes in Python for a millisecond. DQN learns once for each round of them, with
everything on: acting, rows, journal. One environment alone, without a training, says what an interpreter
can do.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from typing import Any

import anyio

from benchmarks.measure import QUICK, repeated, report
from benchmarks.peers.cluster_envs import burning
from stoker import DQN, DQNConfig, StepMetrics, TrainingRun, TrainingSession, run_actors

N_ENVS = 2
STEPS = 1_000 if QUICK else 5_000
RUNS = 1 if QUICK else 3


def alone() -> float:
    """Steps per second of one environment in a bare loop."""
    env = burning()
    env.reset(seed=0)
    started = time.perf_counter()
    for step in range(STEPS // 2):
        if any(env.step(step % 2)[2:4]):
            env.reset()
    return (STEPS // 2) / (time.perf_counter() - started)


def trained(place: Any) -> float:
    """Steps per second of a training, from its first step on."""

    async def main() -> float:
        env = burning()
        config = DQNConfig(learning_starts=200)
        agent = DQN(env.observation_space, env.action_space, config, seed=0)
        with tempfile.TemporaryDirectory(dir=".") as root:
            run = await TrainingRun.create("bench", root=root)
            settings: dict[str, Any] = {"max_steps": STEPS, "opt_interval": N_ENVS}
            async with TrainingSession(agent, run, **settings) as session:
                began: list[float] = []

                async def note(step: StepMetrics) -> None:
                    if not began:  # processes take seconds to begin
                        began.append(time.perf_counter())

                await run_actors(
                    session, burning, N_ENVS, place=place, stepping="inline", seed=0, on_step=note
                )
                return STEPS / (time.perf_counter() - began[0])

    return anyio.run(main, backend_options={"use_uvloop": True})


def main() -> None:
    rows = repeated(
        {
            "one environment, no training": alone,
            "tasks": partial(trained, "tasks"),
            "threads": partial(trained, "threads"),
            "processes": partial(trained, "processes"),
        },
        RUNS,
    )
    best = {name: max(values) for name, values in rows.items()}
    report(
        f"processes: {N_ENVS} environments that compute for 1 ms per step",
        "environment steps per second",
        rows,
        {
            "processes to tasks": best["processes"] / best["tasks"],
            "processes to threads": best["processes"] / best["threads"],
        },
    )


if __name__ == "__main__":
    main()
