"""A program that changes its working directory: what it named by a relative path stays where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession, fork, list_runs
from stoker.recorders import TensorBoardRecorder
from stoker.runs.verifying import verify_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


async def train(run: TrainingRun, elsewhere: Path) -> int:
    """Three more steps, with the working directory changed in the middle."""
    async with TrainingSession(FakeAgent(), run, recorders=[TensorBoardRecorder("events")]) as session:
        for step in range(3):
            await session.observe(Experience([0.0], 0, 1.0, [0.0], EpisodeStatus.CONTINUING))
            if step == 1:
                os.chdir(elsewhere)
        await session.on_episode(3.0, 3, EpisodeStatus.TRUNCATED)
        await session.record({"a": 1.0})
        await session.checkpoint()
    return session.total_steps


@pytest.mark.parametrize("root", ["runs", "./link/runs"])
async def test_a_run_is_found_and_written_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    home, elsewhere, real = tmp_path / "home", tmp_path / "elsewhere", tmp_path / "real"
    for directory in (home, elsewhere, real):
        directory.mkdir()
    (home / "link").symlink_to(real)
    monkeypatch.chdir(home)
    run = await TrainingRun.create("x", root=root)
    assert run.directory.is_relative_to(home / root), "a link in the path is kept as it was given"
    assert await train(run, elsewhere) == 3
    os.chdir(home)
    again = await TrainingRun.resume(Path(root) / "x")
    (listed,) = await list_runs(root)
    forked = await fork(again, 3, "y", root=root)
    os.chdir(elsewhere)
    assert isinstance(listed, TrainingRun)
    assert listed.checkpoint_steps() == [3]
    assert (await forked.read_train_episodes())["episode"] == [1]
    os.chdir(home)
    assert await train(again, elsewhere) == 6
    assert {one.kind for one in verify_run(again)} <= {"ok", "note"}
    assert len(list((home / "events").iterdir())) == 2
    assert list(elsewhere.iterdir()) == []
