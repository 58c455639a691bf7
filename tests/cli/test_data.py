"""``stoker data``: a run's journal as a data set, that data set read again, and both described."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import anyio.from_thread
import numpy as np
import pytest
from gymnasium.spaces import Box

from stoker.cli.data import write_watched
from stoker.data import DatasetInfo, Episode, JournalDataset, describe, open_dataset
from stoker.types import EpisodeStatus

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def trained(command: Run, tmp_path: Path) -> Path:
    small = ("--learning-starts", "32", "--batch-size", "32", "--hidden-sizes", "16", "--num-envs", "3")
    done = command("train", "CartPole-v1", "-n", "150", *small, "--eval-freq", "0", "--no-progress")
    assert done.returncode == 0, done.stderr
    done = command("resume", "runs/CartPole-v1", "-n", "220", "--no-progress")
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs" / "CartPole-v1"


def test_what_is_exported_and_imported_is_what_was_learned(
    command: Run, trained: Path, tmp_path: Path
) -> None:
    names = ["one.npz", "sub/two", "three.parquet", "four"]
    before = "runs/CartPole-v1"
    for name, kind in zip(names, ("npz", "minari", "parquet", "minari"), strict=True):
        verb = "export" if before.startswith("runs") else "import"
        done = command("data", verb, before, "-o", name, "--format", kind)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{name}: ")
        assert "episodes, 220 steps, " in done.stdout
        before = name
    learned = list(JournalDataset(trained).episodes())
    for name in names:
        with open_dataset(tmp_path / name) as dataset:
            assert dataset.info.env_id == "CartPole-v1"
            for mine, its in zip(learned, dataset.episodes(), strict=True):
                for column in ("observations", "actions", "rewards", "policy_versions"):
                    one, other = getattr(mine, column), getattr(its, column)
                    assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
                assert (mine.status, mine.seed, mine.actor_id) == (its.status, its.seed, its.actor_id)
    assert {episode.actor_id for episode in learned} == {0, 1, 2}
    assert all(episode.seed is not None for episode in learned), "an episode that goes on after a resume"
    assert max(int(episode.policy_versions[-1]) for episode in learned if episode.policy_versions is not None)


def test_a_part_is_exported(command: Run, trained: Path, tmp_path: Path) -> None:
    flags = ("--from-step", "20", "--to-step", "90", "--actors", "0", "2", "--min-reward", "3")
    done = command("data", "export", "runs/CartPole-v1", "-o", "part.npz", "--format", "npz", *flags)
    assert done.returncode == 0, done.stderr
    part = JournalDataset(trained, from_step=20, to_step=90, actors={0, 2}, min_reward=3)
    with open_dataset(tmp_path / "part.npz") as dataset:
        assert [len(each) for each in dataset.episodes()] == [len(each) for each in part.episodes()]
        assert all(episode.total_reward >= 3 for episode in dataset.episodes())


def test_a_run_and_its_data_set_are_described_alike(command: Run, trained: Path) -> None:
    assert command("data", "export", "runs/CartPole-v1", "-o", "x.npz", "--format", "npz").returncode == 0
    of_run, of_file = (
        json.loads(command("data", "describe", source, "--json").stdout)
        for source in ("runs/CartPole-v1", "x.npz")
    )
    assert of_run.pop("source") != of_file.pop("source")
    assert (of_run.pop("format"), of_file.pop("format")) == ("journal", "npz")
    assert of_run == of_file
    assert of_run["n_steps"] == 220
    assert of_run["ends"]["continuing"] >= 3, "the resume broke them off"
    text = command("data", "describe", "x.npz").stdout
    for part in ("220", "CartPole-v1", "Discrete(2)", "continuing", "returns from", "entropy"):
        assert part in text


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    episode = Episode(
        observations=np.zeros((3, 2)),
        actions=np.zeros(2),
        rewards=np.zeros(2),
        status=EpisodeStatus.TERMINATED,
    )
    info = DatasetInfo(
        source="x", format="npz", observation_space=Box(0, 1, (2,)), action_space=Box(0, 1, ())
    )

    async def export() -> bool:
        with anyio.CancelScope() as scope:

            def episodes() -> Iterator[Episode]:
                for _ in range(100):
                    yield episode
                    anyio.from_thread.run_sync(scope.cancel)

            dataset: Any = SimpleNamespace(info=info, episodes=episodes)
            await write_watched(dataset, str(tmp_path / "x.npz"), "npz", "exported", progress=False)
        return scope.cancelled_caught

    assert anyio.run(export)
    assert list(tmp_path.iterdir()) == []


def test_bad_values_are_counted_by_describe_and_refused_by_import(command: Run, tmp_path: Path) -> None:
    observations = np.zeros((6, 2), np.float32)
    observations[4, 1] = np.nan
    np.savez(
        tmp_path / "bad.npz",
        observations=observations,
        actions=np.array([0, 1, 2, 0, 1, 2]),
        rewards=np.ones(6),
        next_observations=np.roll(observations, -1, 0),
        terminated=np.array([0, 0, 1, 0, 0, 1], bool),
        truncated=np.zeros(6, bool),
    )
    report = describe(open_dataset(tmp_path / "bad.npz", check=False))
    column = report.columns[0]
    assert (column.name, column.n_not_finite, column.first_bad) == ("observations", 1, (1, 1))
    assert (report.spaces_are_inferred, report.actions[0].shares) == (True, (1 / 3, 1 / 3, 1 / 3))
    assert report.distinct == 4 / 6
    done = command("data", "import", "bad.npz", "-o", "good.npz", "--format", "npz")
    assert done.returncode == 2
    assert "episode 1, step 1" in done.stderr
    assert not (tmp_path / "good.npz").exists()
