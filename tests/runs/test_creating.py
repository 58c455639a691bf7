"""New runs: the layout, the metadata, names that stay inside, never two in one directory."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

import launching
from stoker import ConfigError, EpisodeRecord, EpisodeStatus, RunMetadata, TrainingRun, WriteFailed, list_runs
from stoker.runs import layout

pytestmark = pytest.mark.anyio
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) + "/" * path.is_dir() for path in root.rglob("*"))


async def test_the_layout_is_as_documented(tmp_path: Path) -> None:
    run = await TrainingRun.create("cartpole", "v2", root=tmp_path / "runs")
    run_id = run.directory.name
    assert re.fullmatch(r"\d{8}_\d{6}", run_id)
    assert tree(tmp_path) == [
        "runs/",
        "runs/cartpole/",
        "runs/cartpole/v2/",
        f"runs/cartpole/v2/{run_id}/",
        f"runs/cartpole/v2/{run_id}/checkpoints/",
        f"runs/cartpole/v2/{run_id}/metadata.json",
    ]
    await run.write_config({"env": "CartPole-v1"})
    await run.log_train_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TERMINATED))
    await run.log_eval_episode(EpisodeRecord(1.0, 1, EpisodeStatus.TRUNCATED), 1)
    await run.aclose()
    assert {path.name for path in run.directory.iterdir()} == {
        "metadata.json", "config.json", "checkpoints", "train_episodes.jsonl", "eval_episodes.jsonl", ".lock",
        ".lease.1",
    }  # fmt: skip
    names = (run.checkpoint_path(7).name, run.latest_checkpoint_path.name, run.best_checkpoint_path.name)
    assert run.journal_directory == run.journal.directory == run.directory / "journal"
    assert run.open_segment(64).path == run.directory / "journal" / "0001-000000000064.journal"
    assert names == ("step_7.pt", "latest.pt", "best.pt")
    assert {run.checkpoint_path(7).parent, run.best_checkpoint_path.parent} == {run.directory / "checkpoints"}
    assert str(run.directory) in repr(run)


async def test_metadata_says_when_in_rfc_3339(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    run = await TrainingRun.create("cartpole", root=tmp_path)
    content = json.loads((run.directory / "metadata.json").read_text())
    for key in ("started_at", "last_updated"):
        assert RFC_3339_UTC.fullmatch(content[key])
        assert timedelta() <= datetime.fromisoformat(content[key]) - before < timedelta(seconds=60)
    assert content == {
        "name": "cartpole", "version": "v1", "run_id": run.directory.name, "total_steps": 0,
        "total_episodes": 0, "started_at": content["started_at"], "last_updated": content["started_at"],
        "best_value": None, "best_step": None, "forked_from": None, "forked_at_step": None,
        "attempts": [{
            "number": 1, "started_at": content["started_at"], "from_steps": 0, "from_episodes": 0,
            "from_events": 0, "from_opt_steps": None, "relearned_steps": 0,
        }],
    }  # fmt: skip


async def test_update_metadata_changes_counters_and_time_only(tmp_path: Path) -> None:
    run = await TrainingRun.create("cartpole", root=tmp_path)
    before = run.metadata
    await run.update_metadata(1000, 12)
    after = (await TrainingRun.open(run.directory)).metadata
    assert after == run.metadata
    assert (after.total_steps, after.total_episodes) == (1000, 12)
    assert after.last_updated > before.last_updated
    assert after.started_at == before.started_at
    assert isinstance(after, RunMetadata)


async def test_updates_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    run = await TrainingRun.create("cartpole", root=tmp_path)
    async with anyio.create_task_group() as tasks:
        for k in range(20):
            tasks.start_soon(run.update_metadata, k, k)
    metadata = (await TrainingRun.open(run.directory)).metadata
    assert metadata.total_steps == metadata.total_episodes
    assert {path.name for path in run.directory.iterdir()} == {
        "metadata.json",
        "checkpoints",
        ".lock",
        ".lease.1",
    }


async def test_creates_in_one_second_give_a_directory_each(tmp_path: Path) -> None:
    runs: list[TrainingRun] = []

    async def create() -> None:
        runs.append(await TrainingRun.create("x", "v1", root=tmp_path))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(create)
    directories = {run.directory for run in runs}
    assert len(directories) == 20
    assert set((tmp_path / "x" / "v1").iterdir()) == directories
    for run in runs:
        assert run.metadata.run_id == run.directory.name
        assert re.fullmatch(r"\d{8}_\d{6}(_\d+)?", run.directory.name)
    listed = await list_runs(tmp_path)
    assert [found.directory for found in listed if isinstance(found, TrainingRun)] == sorted(
        directories, key=lambda path: layout.natural_key(path.name)
    )


REFUSED = [
    "", ".", "..", "...", "a/b", "/abs", "a\\b", "..\\x", "../x", "x/..", "-x", "--help", "_x", ".hidden",
    "~", "x\0", "\0", "x\n", "a\tb", "x.", "x ", " x", "a" * 101, "a:b", "a*b", "$HOME", "checkpoints",
]  # fmt: skip


async def test_names_that_would_leave_the_directory_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for name in REFUSED:
        with pytest.raises(ConfigError) as caught:
            await TrainingRun.create(name, root=root)
        assert f"run name {name!r}" in str(caught.value)
        with pytest.raises(ConfigError) as caught:
            await TrainingRun.create("fine", name, root=root)
        assert f"run version {name!r}" in str(caught.value)
    assert not root.exists(), "nothing was made"


async def test_other_names_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("a", "7", "CartPole-v1", "a.b_c-d+e=f@g h", "Ünïcode", "a" * 100, "x..y"):
        run = await TrainingRun.create(name, name, root=tmp_path)
        assert run.directory.parent == tmp_path / name / name
        assert (await TrainingRun.open(tmp_path / name)).directory == run.directory


@given(st.text(max_size=120))
def test_no_accepted_name_leaves_the_directory(name: str) -> None:
    try:
        layout.checked_name("run name", name)
    except ConfigError:
        return
    joined = Path("/runs") / name / "x"
    assert joined.parent.parent == Path("/runs")
    assert joined.resolve() == Path(f"/runs/{name}/x")


async def test_a_name_too_long_for_any_file_system_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes 300 bytes .* at most 255: choose a shorter one"):
        await TrainingRun.create("字" * 100, root=tmp_path)
    assert tree(tmp_path) == []
    await TrainingRun.create("字" * 85, root=tmp_path)
    with pytest.raises(WriteFailed, match="File name too long; choose a shorter name or directory"):
        await TrainingRun.create("x", root=tmp_path / ("d" * 256))


async def test_a_path_that_no_file_system_can_hold_is_refused_by_name() -> None:
    for path in ("runs\0", "runs/\ud800"):
        with pytest.raises(ConfigError, match=re.escape(repr(path))):
            await TrainingRun.open(path)
        with pytest.raises(ConfigError, match=re.escape(repr(path))):
            await TrainingRun.create("name", root=path)


def test_without_a_working_directory_a_relative_path_is_a_typed_error(tmp_path: Path) -> None:
    program = (
        "import anyio, os; from stoker import RunDirectoryError, TrainingRun; os.rmdir(os.getcwd())\n"
        "for find in (TrainingRun.open, TrainingRun.create):\n"
        "    try: anyio.run(find, 'runs')\n"
        "    except RunDirectoryError as error: print(error)"
    )
    (here := tmp_path / "gone").mkdir()
    done = launching.run(
        [sys.executable, "-c", program], cwd=here, capture_output=True, text=True, timeout=60, check=True
    )
    assert (
        done.stdout.splitlines()
        == ["runs: the working directory is gone; change to one that exists, or give an absolute path"] * 2
    )


@pytest.mark.parametrize("where", [".", "x", "x/v1"])
async def test_a_file_in_the_way_is_a_typed_error(tmp_path: Path, where: str) -> None:
    path = tmp_path / "runs" / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(WriteFailed, match="cannot write .*runs"):
        await TrainingRun.create("x", "v1", root=tmp_path / "runs")


async def test_a_directory_that_takes_no_runs_is_a_typed_error() -> None:
    with pytest.raises(WriteFailed, match="/proc/runs"):
        await TrainingRun.create("x", root="/proc/runs")


async def test_config_of_a_value_without_a_json_form_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    bad: Any = {"agent": object()}
    with pytest.raises(ConfigError, match=r"config\.json: cannot be written as JSON"):
        await run.write_config(bad)
    with pytest.raises(ConfigError, match=r"config\['layers'\]\[1\]\['rate'\]=nan is not finite"):
        await run.write_config({"layers": [{"rate": 0.5}, {"rate": float("nan")}]})
    assert not (run.directory / "config.json").exists()
