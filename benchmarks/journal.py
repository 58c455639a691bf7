"""What does it cost to write every transition down and to make it durable, in steps of the main job?

DQN with its preset learns CartPole from eight environments, as ``stoker train`` does it: with the journal and
a commit every half a second, and without either. Rows are written in both.
"""

from __future__ import annotations

import statistics
import tempfile
import time

import anyio
import torch

from benchmarks.measure import QUICK, repeated, report
from stoker import DQN, TrainingRun, TrainingSession, make_gym, preset, run_actors

N_STEPS = 4_000 if QUICK else 12_000
RUNS = 2 if QUICK else 7
NEVER_S = 1e6


def rate(*, journal: bool) -> float:
    """Steps per second, until the last one is consumed; the warm-up without learning is counted for both."""

    async def main() -> float:
        env = make_gym("CartPole-v1")
        agent = DQN(env.observation_space, env.action_space, preset("dqn", "CartPole-v1"), seed=0)
        with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
            run = await TrainingRun.create("bench", root=root)
            session = TrainingSession(
                agent,
                run,
                max_steps=N_STEPS,
                checkpoint_freq=0,
                queue_capacity=16,
                journal=journal,
                flush_interval_s=0.5 if journal else NEVER_S,
            )
            async with session:
                started = time.perf_counter()
                await run_actors(session, lambda: make_gym("CartPole-v1"), 8, seed=0)
                await session.snapshot()  # when the last step is consumed
                elapsed_s = time.perf_counter() - started
            return session.total_steps / elapsed_s

    return anyio.run(main)


def main() -> None:
    torch.set_num_threads(1)
    rows = repeated({"with both": lambda: rate(journal=True), "without": lambda: rate(journal=False)}, RUNS)
    pairs = [ours / bare for ours, bare in zip(*rows.values(), strict=True)]
    ratios = {"with / without": statistics.median(pairs)}
    report("Journal and group commit", "environment steps per second", rows, ratios)


if __name__ == "__main__":
    main()
