"""How many episode rows per second become durable, and what does a row cost its actor?

1, 64 and 512 actors in a loop of ``session.on_episode`` and ``session.flush``, so that each waits until its
own row is on disk. Against an fsync for each row of a plain file, against aiofiles with and without one,
and against one write and one fsync for all who wait (the limit). Then ``on_episode`` alone, while the queue
has room, against ``file.write(json.dumps(row))``.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import torch
from anyio import to_thread

from benchmarks.measure import QUICK, Idle, file_system, repeated, report
from stoker import EpisodeStatus, TrainingRun, TrainingSession

SIZES = (1, 64, 512)
MEASURED_S = 0.5 if QUICK else 2.0
RUNS = 2 if QUICK else 5
HERE = "."  # a disk; the system's /tmp may be memory
TOGETHER = 64
BURSTS = 50 if QUICK else 400
ROW: dict[str, Any] = {
    "total_reward": 200.0, "length": 200, "status": "Truncated", "extras": {}, "total_steps": 123456,
    "episode": 617, "actor_id": 17, "time": "2026-01-01T12:34:56.789012Z", "attempt": 1, "crc": "d12822ed",
}  # fmt: skip
"""What a session writes of an episode; ready-made, no checksum is computed for the others."""


async def rate(add: Callable[[int], Awaitable[None]], n_actors: int) -> float:
    """Rows per second that are done; every actor waits for one before it begins the next."""
    n_rows = 0

    async def actor(actor_id: int) -> None:
        nonlocal n_rows
        while time.perf_counter() < until:
            await add(actor_id)
            n_rows += 1

    await add(0)
    started = time.perf_counter()
    until = started + MEASURED_S
    async with anyio.create_task_group() as actors:
        for actor_id in range(n_actors):
            actors.start_soon(actor, actor_id)
    return n_rows / (time.perf_counter() - started)


def stoker_rate(n_actors: int) -> float:
    async def main() -> float:
        with tempfile.TemporaryDirectory(dir=HERE) as root:
            run = await TrainingRun.create("bench", root=root)
            async with TrainingSession(Idle(), run) as session:

                async def add(actor_id: int) -> None:
                    await session.on_episode(200.0, 200, EpisodeStatus.TRUNCATED, actor_id=actor_id)
                    await session.flush()

                return await rate(add, n_actors)

    return anyio.run(main)


def fsync_rate(rows_each: int) -> float:
    """So many rows with one write and one fsync; there is nobody else who writes."""
    with tempfile.TemporaryDirectory(dir=HERE) as root, (Path(root) / "rows.jsonl").open("a") as file:
        n_rows, started = 0, time.perf_counter()
        while time.perf_counter() - started < MEASURED_S:
            file.write("".join(json.dumps(ROW) + "\n" for _ in range(rows_each)))
            file.flush()
            os.fsync(file.fileno())
            n_rows += rows_each
        return n_rows / (time.perf_counter() - started)


def aiofiles_rate(n_actors: int, *, fsync: bool) -> float:
    async def main() -> float:
        with tempfile.TemporaryDirectory(dir=HERE) as root:
            async with aiofiles.open(Path(root) / "rows.jsonl", "a") as file:

                async def add(actor_id: int) -> None:
                    await file.write(json.dumps({**ROW, "actor_id": actor_id}) + "\n")
                    if fsync:
                        await file.flush()
                        await to_thread.run_sync(os.fsync, file.fileno())

                return await rate(add, n_actors)

    return anyio.run(main)


# What the caller pays ----------------------------------------------------------------------------------


def on_episode_us() -> float:
    """The queue is emptied between bursts, off the clock."""

    async def main() -> float:
        with tempfile.TemporaryDirectory(dir=HERE) as root:
            run = await TrainingRun.create("bench", root=root)
            async with TrainingSession(Idle(), run) as session:
                took_s = 0.0
                for _ in range(BURSTS):
                    await session.flush()
                    started = time.perf_counter()
                    for _ in range(TOGETHER):
                        await session.on_episode(200.0, 200, EpisodeStatus.TRUNCATED)
                    took_s += time.perf_counter() - started
        return took_s / (BURSTS * TOGETHER) * 1e6

    return anyio.run(main)


def write_us(encoded: Callable[[Any], str]) -> float:
    with tempfile.TemporaryDirectory(dir=HERE) as root, (Path(root) / "rows.jsonl").open("a") as file:
        took_s = 0.0
        for _ in range(BURSTS):
            file.flush()
            started = time.perf_counter()
            for _ in range(TOGETHER):
                file.write(encoded(ROW) + "\n")
            took_s += time.perf_counter() - started
    return took_s / (BURSTS * TOGETHER) * 1e6


def main() -> None:
    torch.set_num_threads(1)
    disk = f"on {file_system(Path(HERE))}"
    for n_actors in SIZES:
        rows = repeated(
            {
                "stoker": partial(stoker_rate, n_actors),
                "fsync for each row": partial(fsync_rate, 1),
                "aiofiles, fsync for each row": partial(aiofiles_rate, n_actors, fsync=True),
                "aiofiles, not durable": partial(aiofiles_rate, n_actors, fsync=False),
                "one fsync for all who wait (the limit)": partial(fsync_rate, n_actors),
            },
            RUNS,
        )
        median = {name: statistics.median(values) for name, values in rows.items()}
        ours = median["stoker"]
        notes = [disk, "stoker also makes the journal durable and rewrites metadata.json for each flush"]
        if n_actors == 64:
            notes.append("target: 25,000")
        report(
            f"Durable rows, {n_actors} actors waiting",
            "rows per second",
            rows,
            {f"stoker / {name}": ours / value for name, value in median.items() if name != "stoker"},
            notes,
        )
    rows = repeated(
        {
            "session.on_episode, the queue has room": on_episode_us,
            "file.write(json.dumps(row))": partial(write_us, json.dumps),
        },
        RUNS,
    )
    ours, plain = (statistics.median(values) for values in rows.values())
    report("A row, to its caller", "us", rows, {"plain write / stoker": plain / ours}, [disk, "target: 3"])


if __name__ == "__main__":
    main()
