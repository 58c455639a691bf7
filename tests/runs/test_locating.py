"""Finding runs again: exact, by version, by name; natural order; broken ones passed over and told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from stoker import (
    EpisodeStatus,
    RunBroken,
    RunDirectoryError,
    RunNotFound,
    StokerError,
    TrainingRun,
    list_runs,
)
from stoker.data import DatasetInfo, Episode, write_dataset
from stoker.runs import layout
from stoker.runs.metadata import Attempt, RunMetadata, now, write_json

pytestmark = pytest.mark.anyio


def make_run(root: Path, name: str, version: str, run_id: str) -> Path:
    """A run as a program of another day has left it."""
    directory = root / name / version / run_id
    (directory / "checkpoints").mkdir(parents=True)
    metadata = RunMetadata(
        name=name, version=version, run_id=run_id, started_at=now(), last_updated=now(),
        attempts=(Attempt(number=1, started_at=now()),),
    )  # fmt: skip
    write_json(directory / "metadata.json", metadata)
    return directory


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for version, run_id in [
        ("v1", "20250101_000000"),
        ("v2", "20250101_000000"),
        ("v9", "20250301_000000"),
        ("v10", "20250201_000000"),
        ("v10", "20250201_000000_2"),
        ("v10", "20250201_000000_9"),
        ("v10", "20250201_000000_10"),
        ("v10", "20241231_235959_99"),
    ]:
        make_run(tmp_path, "cartpole", version, run_id)
    make_run(tmp_path, "acrobot", "v1", "20260101_000000")
    return tmp_path


async def test_an_exact_run_a_version_or_a_name(runs: Path) -> None:
    for path, found in (
        ("cartpole/v1/20250101_000000", "cartpole/v1/20250101_000000"),
        ("cartpole/v10/20250201_000000_2", "cartpole/v10/20250201_000000_2"),
        ("cartpole/v9", "cartpole/v9/20250301_000000"),
        ("cartpole/v10", "cartpole/v10/20250201_000000_10"),
        ("cartpole", "cartpole/v10/20250201_000000_10"),
        ("cartpole/", "cartpole/v10/20250201_000000_10"),
        ("acrobot", "acrobot/v1/20260101_000000"),
    ):
        for find in (TrainingRun.resume, TrainingRun.open):
            run = await find(os.path.join(runs, path))  # noqa: PTH118 - a trailing slash is kept
            assert run.directory == runs / found
            assert run.metadata.run_id == run.directory.name
            assert not run.is_new


async def test_a_data_set_of_minari_is_no_run(tmp_path: Path) -> None:
    episode = Episode(
        observations=np.zeros((3, 1), np.float32),
        actions=np.zeros(2, np.int64),
        rewards=np.zeros(2),
        status=EpisodeStatus.TERMINATED,
    )
    spaces = {"observation_space": Box(0, 1, (1,)), "action_space": Discrete(2)}
    for name in ("data", "other/data", "v1"):
        write_dataset([episode], DatasetInfo(source="", format="npz", **spaces), tmp_path / name, "minari")
    make_run(tmp_path, "cartpole", "v1", "data")  # as long as it holds none, the name is free
    assert [run.directory.name for run in await list_runs(tmp_path) if isinstance(run, TrainingRun)] == [
        "data"
    ]
    assert len(await list_runs(tmp_path)) == 1


def test_natural_order() -> None:
    for names in (
        ["v1", "v2", "v9", "v10", "v99", "v100"],
        ["20241231_235959_99", "20250101_000000", "20250101_000000_2", "20250101_000000_10"],
        ["1", "2", "10", "a", "a2", "a10", "b"],
        ["v1.2", "v1.10", "v1.10b", "v2"],
    ):
        assert sorted(sorted(names, reverse=True), key=layout.natural_key) == names


async def test_a_broken_newest_run_is_passed_over_with_a_warning(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = runs / "cartpole/v10/20250201_000000_10"
    for content in (b"", b"{", b'{"name":"x"}', b"\xff\xfe", b"null", b"\x00" * 100, None):
        if content is None:
            (newest / "metadata.json").unlink()
        else:
            (newest / "metadata.json").write_bytes(content)
        caplog.clear()
        run = await TrainingRun.resume(runs / "cartpole")
        assert run.directory.name == "20250201_000000_9"
        (warning,) = caplog.records
        assert warning.levelname == "WARNING"
        assert str(newest / "metadata.json") in warning.message
        with pytest.raises(RunBroken, match=r"20250201_000000_10.metadata\.json: cannot be read"):
            await TrainingRun.resume(newest)


async def test_runs_that_are_all_broken_are_an_error(runs: Path) -> None:
    for path in (runs / "cartpole" / "v10").glob("*/metadata.json"):
        path.write_text("{")
    with pytest.raises(RunBroken, match="none of the 5 runs there can be read"):
        await TrainingRun.resume(runs / "cartpole" / "v10")
    run = await TrainingRun.resume(runs / "cartpole")
    assert run.directory == runs / "cartpole/v9/20250301_000000", "the newest of the version before"


async def test_a_path_without_a_run_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path in ("missing", "empty", "file", "file/below"):
        with pytest.raises(RunNotFound, match=f"{path}: no run there"):
            await TrainingRun.resume(tmp_path / path)
    assert issubclass(RunNotFound, RunDirectoryError)
    assert issubclass(RunNotFound, StokerError)
    assert issubclass(RunNotFound, OSError)


async def test_leftovers_are_removed_under_the_lock_and_by_no_reader(runs: Path) -> None:
    run = await TrainingRun.open(runs / "acrobot")
    segment = run.journal_directory / "0001-000000000000.journal"
    left = [
        run.directory / ".metadata.json.7.8.tmp",
        run.checkpoints_directory / ".step_5.pt.7.8.tmp",
        segment.with_name(f".{segment.name}.7.8.tmp"),
    ]
    kept = [run.checkpoints_directory / "step_5.pt", run.directory / "train_episodes.jsonl.torn"]
    run.journal_directory.mkdir()
    for path in [*left, *kept]:
        path.write_bytes(b"half")
    await TrainingRun.open(run.directory)
    resumed = await TrainingRun.resume(run.directory)
    assert all(path.exists() for path in [*left, *kept]), "they may be those of one who is writing"
    resumed.acquire()
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


async def test_all_runs_are_listed_broken_ones_as_their_error(runs: Path) -> None:
    (runs / "cartpole/v2/20250101_000000/metadata.json").write_text("{")
    (runs / "notes").mkdir()
    (runs / "notes" / "readme.txt").write_text("no run")
    found = await list_runs(runs)
    assert [
        str(run.directory.relative_to(runs)) if isinstance(run, TrainingRun) else type(run).__name__
        for run in found
    ] == [
        "acrobot/v1/20260101_000000",
        "cartpole/v1/20250101_000000",
        "RunBroken",
        "cartpole/v9/20250301_000000",
        "cartpole/v10/20241231_235959_99",
        "cartpole/v10/20250201_000000",
        "cartpole/v10/20250201_000000_2",
        "cartpole/v10/20250201_000000_9",
        "cartpole/v10/20250201_000000_10",
    ]


async def test_a_missing_runs_directory_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    assert await list_runs(tmp_path) == []
    with pytest.raises(RunNotFound, match="no such runs directory"):
        await list_runs(tmp_path / "missing")
