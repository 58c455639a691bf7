"""Does a step cost the same after ten million of them, in time and in memory? How long does a start take?

64 producers, half with ``observe`` and half with ``observe_many``, end an episode every 200 steps; the
agent does nothing, rows and journal are on. Ten slices, each until it is consumed and durable. Then fresh
processes: what ``import stoker`` and ``stoker --help`` take, beside Python itself and what others import.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import numpy as np
import torch

from benchmarks.measure import QUICK, Idle, file_system, held_bytes, repeated, report
from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession

N_PRODUCERS = 64
EPISODE_STEPS = 200
SLICES = 10
SLICE_EPISODES = 8 if QUICK else 79
SLICE_STEPS = N_PRODUCERS * SLICE_EPISODES * EPISODE_STEPS
TOGETHER = 50
CHECKPOINT_FREQ = 100_000
RUNS = 3 if QUICK else 5


def episode(actor_id: int) -> list[Experience]:
    observation = np.zeros(4, np.float32)
    statuses = [EpisodeStatus.CONTINUING] * (EPISODE_STEPS - 1) + [EpisodeStatus.TRUNCATED]
    return [Experience(observation, 0, 1.0, observation, status, actor_id) for status in statuses]


async def produce(session: TrainingSession, actor_id: int, n_episodes: int) -> None:
    for _ in range(n_episodes):
        steps = episode(actor_id)
        if actor_id % 2:
            for start in range(0, EPISODE_STEPS, TOGETHER):
                await session.observe_many(steps[start : start + TOGETHER])
        else:
            for step in steps:
                await session.observe(step)
        await session.on_episode(200.0, EPISODE_STEPS, EpisodeStatus.TRUNCATED, actor_id=actor_id)


async def a_slice(session: TrainingSession, n_episodes: int) -> None:
    async with anyio.create_task_group() as producers:
        for actor_id in range(N_PRODUCERS):
            producers.start_soon(produce, session, actor_id, n_episodes)
    await session.flush()


async def growth() -> tuple[list[float], list[float], list[str]]:
    """Microseconds per step and megabytes held, after each slice; and what is to be said of the run."""
    cost_us: list[float] = []
    held_mb: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
        run = await TrainingRun.create("bench", root=root)
        async with TrainingSession(Idle(), run, checkpoint_freq=CHECKPOINT_FREQ) as session:
            await a_slice(session, 1)
            for _ in range(SLICES):
                started = time.perf_counter()
                await a_slice(session, SLICE_EPISODES)
                cost_us.append((time.perf_counter() - started) / SLICE_STEPS * 1e6)
                gc.collect()
                held_mb.append(held_bytes() / 1e6)
            said = (
                f"{session.total_steps:,} steps, {session.total_episodes:,} rows; "
                f"{size_bytes(root) / 1e6:.0f} MB on {file_system(Path(root))} at the end"
            )
    return cost_us, held_mb, [said]


def size_bytes(root: str) -> int:
    return sum(file.stat().st_size for file in Path(root).rglob("*") if file.is_file())


def sliced(question: str, unit: str, values: list[float], notes: list[str]) -> None:
    rows = {f"slice {number}": [value] for number, value in enumerate(values, 1)}
    report(question, unit, rows, {"last / first": values[-1] / values[0]}, notes)


def start_ms(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    cost_us, held_mb, notes = anyio.run(growth)
    what = f"in slices of {SLICE_STEPS:,} steps"
    sliced(f"The cost of a step, {what}", "us per step", cost_us, [*notes, "target: flat"])
    per_step = (held_mb[-1] - held_mb[0]) * 1e6 / (SLICE_STEPS * (SLICES - 1))
    grown = f"{per_step:.2f} bytes per step behind the first slice; torch itself is in the numbers"
    sliced(f"Memory held, {what}", "MB", held_mb, [grown, "target: flat"])

    starts = {
        "python -c pass": ("-c", "pass"),
        "import stoker": ("-c", "import stoker"),
        "stoker --help": ("-m", "stoker", "--help"),
        "import torch": ("-c", "import torch"),
    }
    notes = ["target: stoker --help below 500"]
    if find_spec("stable_baselines3"):
        starts["import stable_baselines3"] = ("-c", "import stable_baselines3")
    else:
        notes.append("Stable-Baselines3 is not installed: pip install 'stoker[bench]'")
    for arguments in starts.values():
        start_ms(*arguments)  # from here on the files are in memory
    rows = repeated({name: partial(start_ms, *arguments) for name, arguments in starts.items()}, RUNS)
    median = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {
        f"{name} / stoker --help": value / median["stoker --help"]
        for name, value in median.items()
        if name.startswith("import") and name != "import stoker"
    }
    report("A start, in a fresh process", "ms", rows, ratios, notes)


if __name__ == "__main__":
    main()
