"""How many transitions per second do data sets take and give, and how much memory does reading take?

Pendulum-like episodes of 200 steps, and CartPole-like ones of 20; Minari's layout beside its own package.
The files are in the page cache.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from benchmarks.measure import QUICK, held_bytes, repeated, report
from stoker import DatasetInfo, Episode, EpisodeStatus, open_dataset, write_dataset

N_STEPS = 100_000 if QUICK else 400_000
RUNS = 3 if QUICK else 5
SPACES = {
    200: (Box(-8, 8, (3,)), Box(-2, 2, (1,))),
    20: (Box(-5, 5, (4,)), Discrete(2)),
}


def recorded(length: int) -> list[Episode]:
    rng = np.random.default_rng(0)
    observation, action = SPACES[length]
    episodes: list[Episode] = []
    for at in range(N_STEPS // length):
        actions: Any = rng.integers(2, size=length)
        if isinstance(action, Box):
            actions = rng.uniform(-2, 2, (length, 1)).astype(np.float32)
        episodes.append(
            Episode(
                observations=rng.uniform(-5, 5, (length + 1, *observation.shape)).astype(np.float32),
                actions=actions,
                rewards=rng.normal(size=length),
                status=EpisodeStatus.TRUNCATED,
                seed=at,
                policy_versions=np.arange(at, at + length),
            )
        )
    return episodes


def rate(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return N_STEPS / (time.perf_counter() - started)


def writing(episodes: list[Episode], info: DatasetInfo, path: Path, kind: Any) -> float:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    return rate(lambda: write_dataset(episodes, info, path, kind))


def reading(path: Path) -> float:
    with open_dataset(path) as dataset:
        return rate(lambda: sum(len(episode) for episode in dataset.episodes()))


def minari_writing(episodes: list[Episode], info: DatasetInfo, path: Path) -> float:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    buffers: list[EpisodeBuffer] = []
    for at, each in enumerate(episodes):
        ends = np.zeros((2, len(each)), np.bool_)
        ends[1, -1] = True
        columns: Any = (each.observations, each.actions, each.rewards, *ends)
        infos: Any = {"policy_version": each.policy_versions}
        buffers.append(EpisodeBuffer(None, at, None, *columns, infos))
    space, action = info.observation_space, info.action_space
    storage = MinariStorage.new(path / "data", space, action, jpeg_encoding=False)
    return rate(lambda: storage.update_episodes(buffers))


def minari_reading(path: Path) -> float:
    storage = MinariStorage.read(path / "data")
    episodes = storage.get_episodes(range(storage.total_episodes))
    return rate(lambda: sum(len(episode["rewards"]) for episode in episodes))


def main() -> None:
    rows: dict[str, list[float]] = {}
    notes: list[str] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for length, (space, action) in SPACES.items():
            info = DatasetInfo(source="", format="", observation_space=space, action_space=action)
            episodes = recorded(length)
            contenders: dict[str, Callable[[], float]] = {}
            for kind in ("minari", "parquet", "npz"):
                path = root / f"{length}.{kind}"
                contenders[f"{kind}, written, {length} steps"] = partial(writing, episodes, info, path, kind)
                contenders[f"{kind}, read, {length} steps"] = partial(reading, path)
            theirs = root / f"{length}.theirs"
            contenders[f"Minari's package, written, {length} steps"] = partial(
                minari_writing, episodes, info, theirs
            )
            contenders[f"Minari's package, read, {length} steps"] = partial(minari_reading, theirs)
            found = repeated(contenders, RUNS)
            for verb in ("written", "read"):
                ours, other = (
                    statistics.median(found[f"{who}, {verb}, {length} steps"])
                    for who in ("minari", "Minari's package")
                )
                ratios[f"stoker / Minari's package, {verb}, {length} steps"] = ours / other
            rows |= found
            del episodes, contenders
        for kind in ("minari", "parquet", "npz"):
            path = root / f"200.{kind}"
            before = held_bytes()
            reading(path)
            files = [path] if path.is_file() else [*path.rglob("*")]
            size = sum(each.stat().st_size for each in files if each.is_file())
            grown = (held_bytes() - before) / 1e6
            notes.append(f"{kind}: memory has grown by {grown:.1f} MB after {size / 1e6:.1f} MB were read")
    report("Data sets in files", "transitions per second", rows, ratios, notes)


if __name__ == "__main__":
    sys.exit(main())
