"""How many transitions per second go from a journal into a data set, and from one data set into another?

Episodes of 200 steps of a Pendulum, journaled in batches of 64 environments, and one by one from 8 actors.
Beside them are a plain loop of h5py over episodes that are in memory, and Minari's own collector around
CartPole with random actions, whose environment is timed alone, too. The collector needs a Python with
``minari[create]``, ``h5py`` and ``pillow``: ``python -m benchmarks.data --minari /path/to/python``; without
it, it is left out.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import h5py
import msgspec
import numpy as np
from gymnasium.spaces import Box

from benchmarks.measure import QUICK, file_system, repeated, report
from stoker import ExperienceBatch, TrainingRun
from stoker.data import Episode, JournalDataset, describe, open_dataset, write_dataset
from stoker.journal import EpisodeStarted, SegmentEncoder, SegmentHeader, segment_name
from stoker.protocol import Spaces

LENGTH = 200
N_EPISODES = 512 if QUICK else 2_048
N_STEPS = LENGTH * N_EPISODES
N_SEGMENT_ROUNDS = 1_000
RUNS = 3 if QUICK else 5
OBSERVATION, ACTION = Box(-8, 8, (3,)), Box(-2, 2, (1,))
COLLECTOR = """
import sys, tempfile, time
import gymnasium, minari
def rate(env, n_steps):
    env.action_space.seed(0)
    env.reset(seed=0)
    started = time.perf_counter()
    for _ in range(n_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return started
n = int(sys.argv[1])
started = rate(gymnasium.make("CartPole-v1"), n)
alone = n / (time.perf_counter() - started)
env = minari.DataCollector(gymnasium.make("CartPole-v1"))
started = rate(env, n)
collected = n / (time.perf_counter() - started)
env.create_dataset("cart/pole-v0", algorithm_name="a", author="b", author_email="c@d.e", code_permalink="f")
print(alone, collected, n / (time.perf_counter() - started))
"""


def journaled(root: Path, n_actors: int, *, batched: bool) -> Path:
    """A run whose journal has the episodes, and no checkpoint."""
    run = anyio.run(partial(TrainingRun.create, "batched" if batched else "single", root=root))
    rng = np.random.default_rng(0)
    ids, ends, none = tuple(range(n_actors)), np.ones(n_actors, np.bool_), np.zeros(n_actors, np.bool_)
    n_rounds = N_STEPS // n_actors
    journal = run.journal_directory
    journal.mkdir()
    n_events, encoder, path, data = 0, SegmentEncoder(), journal, b""
    shown = rng.uniform(-1, 1, (n_actors, 3)).astype(np.float32)
    for number in range(n_rounds):
        if number % N_SEGMENT_ROUNDS == 0:
            if data:
                path.write_bytes(data)
            steps = number * n_actors
            path = journal / segment_name(1, n_events)
            header = SegmentHeader(
                attempt=1, first_event=n_events, total_steps=steps, agent_type="SAC", opt_interval=1
            )
            data = encoder.begin(header)
        if number % LENGTH == 0:
            shown = rng.uniform(-1, 1, (n_actors, 3)).astype(np.float32)
            data += encoder.encode_all([EpisodeStarted(each, seed=number) for each in ids])
            n_events += n_actors
        after = rng.uniform(-1, 1, (n_actors, 3)).astype(np.float32)
        batch = ExperienceBatch(
            shown,
            rng.uniform(-2, 2, (n_actors, 1)).astype(np.float32),
            rng.standard_normal(n_actors),
            after,
            none,
            ends if number % LENGTH == LENGTH - 1 else none,
            ids,
            None,
            np.full(n_actors, number),
        )
        data += encoder.encode_batch(batch) if batched else encoder.encode_all(batch.experiences())
        n_events += n_actors
        shown = after
    path.write_bytes(data)
    config = {"env": "Pendulum-v1", "spaces": msgspec.to_builtins(Spaces.of(OBSERVATION, ACTION))}
    anyio.run(run.write_config, config)
    anyio.run(run.aclose)
    return run.directory


def rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    n_steps = work()
    assert n_steps == N_STEPS, n_steps
    return n_steps / (time.perf_counter() - started)


def read_events(run: Path) -> int:
    journal = TrainingRun.find(run).journal
    return sum(hasattr(event, "reward") for _, event in journal.read(0))


def read_episodes(run: Path) -> int:
    return sum(len(episode) for episode in JournalDataset(run).episodes())


def export(run: Path, out: Path) -> int:
    shutil.rmtree(out, ignore_errors=True)
    dataset = JournalDataset(run)
    return write_dataset(dataset.episodes(), dataset.info, out, "minari").n_steps


def import_again(source: Path, out: Path) -> int:
    shutil.rmtree(out, ignore_errors=True)
    with open_dataset(source) as dataset:
        return write_dataset(dataset.episodes(), dataset.info, out, "minari").n_steps


def looked_at(source: Path) -> int:
    with open_dataset(source, check=False) as dataset:
        return describe(dataset).n_steps


def plain_loop(episodes: list[Episode], out: Path) -> int:
    """The least that a script with h5py does for the same arrays."""
    with h5py.File(out, "w") as file:
        for at, episode in enumerate(episodes):
            group: Any = cast("Any", file).create_group(f"episode_{at}")
            flags = np.zeros((2, len(episode)), np.bool_)
            flags[1, -1] = True
            group["observations"], group["actions"] = episode.observations, episode.actions
            group["rewards"], group["terminations"], group["truncations"] = episode.rewards, *flags
            group["infos/policy_version"] = episode.policy_versions
    return sum(map(len, episodes))


def collected(python: str) -> dict[str, list[float]]:
    """Steps per second of Minari's collector, and of its environment alone."""
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [python, "-c", COLLECTOR, str(N_STEPS // 10)],
            env={"MINARI_DATASETS_PATH": place, "PATH": "/usr/bin:/bin", "HOME": place},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"--minari {python}: Minari's collector failed:\n{done.stderr}")
    names = ("CartPole alone", "Minari's collector around it", "the same, until the data set is there")
    return {name: [float(word)] for name, word in zip(names, done.stdout.split(), strict=True)}


def main() -> None:
    words = sys.argv[1:]
    python = words[words.index("--minari") + 1] if "--minari" in words else None
    with tempfile.TemporaryDirectory(dir=".") as name:  # a disk; the system's /tmp may be memory
        root = Path(name)
        contenders: dict[str, Callable[[], int]] = {}
        for kind, n_actors in (("batches of 64", 64), ("single steps", 8)):
            run = journaled(root / "runs", n_actors, batched=n_actors == 64)
            out = root / kind.replace(" ", "_")
            contenders[f"journal read as events, {kind}"] = partial(read_events, run)
            contenders[f"journal read as episodes, {kind}"] = partial(read_episodes, run)
            contenders[f"journal exported for Minari, {kind}"] = partial(export, run, out)
        contenders["imported from Minari's layout to it"] = partial(import_again, out, root / "again")
        contenders["described"] = partial(looked_at, out)
        episodes = list(JournalDataset(run).episodes())
        contenders["a plain loop of h5py, from memory"] = partial(plain_loop, episodes, root / "plain.h5")
        rows = repeated({name: partial(rate, work) for name, work in contenders.items()}, RUNS)
        notes = [f"files on {file_system(root)}"]
    median = {name: statistics.median(values) for name, values in rows.items()}
    ratios = {
        f"episodes / events, {kind}": median[f"journal read as episodes, {kind}"]
        / median[f"journal read as events, {kind}"]
        for kind in ("batches of 64", "single steps")
    }
    exports = [median[f"journal exported for Minari, {kind}"] for kind in ("batches of 64", "single steps")]
    ratios["exported, batches / plain loop"] = exports[0] / median["a plain loop of h5py, from memory"]
    ratios["exported, single steps / plain loop"] = exports[1] / median["a plain loop of h5py, from memory"]
    if python is not None:
        rows |= (theirs := collected(python))
        ratios["exported, single steps / Minari's collector"] = (
            exports[1] / next(reversed(theirs.values()))[0]
        )
    report("Data sets of journals", "transitions per second", rows, ratios, notes)


if __name__ == "__main__":
    main()
