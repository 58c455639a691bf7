"""A run's files as they grow: what counts, what has changed, and a first look at the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker import EpisodeRecord, EpisodeStatus, TrainingRun
from stoker.runs.history import RunHistory

pytestmark = pytest.mark.anyio
TERMINATED = EpisodeStatus.TERMINATED


async def played(run: TrainingRun, n: int) -> None:
    for _ in range(n):
        await run.log_train_episode(EpisodeRecord(1.0, 10, TERMINATED))


def counted(history: RunHistory) -> list[int]:
    return history.train.column("episode")[history.effective(history.train)].tolist()


async def test_rows_of_an_abandoned_future_leave_when_an_attempt_appears(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await played(run, 4)
    await run.log_eval_episode(EpisodeRecord(1.0, 10, TERMINATED), 40)
    history = RunHistory(run.directory)
    assert history.refresh()
    assert history.effective(history.train) == slice(None)
    before = history.cursor
    await run.aclose()

    resumed = await TrainingRun.resume(run.directory)
    resumed.begin_attempt(20, 2)
    assert history.refresh()
    assert history.cursor.generation != before.generation, "rows that were given are void"
    assert counted(history) == [1, 2]
    assert np.asarray(history.effective(history.evaluation)).tolist() == []
    for n in (1, 3):
        await played(resumed, n)
        history.refresh()
        fresh = RunHistory(run.directory)
        fresh.refresh()
        assert counted(history) == counted(fresh) == list(range(1, history.train.n_rows - 1))
    await resumed.aclose()


async def test_a_clean_resume_loses_no_row(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await played(run, 3)
    await run.aclose()
    resumed = await TrainingRun.resume(run.directory)
    resumed.begin_attempt(30, 3)
    await played(resumed, 2)
    await resumed.aclose()
    history = RunHistory(run.directory)
    history.refresh()
    assert history.effective(history.train) == slice(None)
    assert counted(history) == [1, 2, 3, 4, 5]


async def test_the_cursor_changes_with_anything_that_was_read(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    history = RunHistory(run.directory)
    changes: list[Any] = [
        lambda: played(run, 1),
        lambda: run.log_eval_episode(EpisodeRecord(1.0, 10, TERMINATED), 10),
        lambda: run.update_metadata(10, 1),
        lambda: run.write_config({"seed": 3}),
    ]
    history.refresh()
    for change in changes:
        before = history.cursor
        assert not history.refresh()
        assert history.cursor == before
        await change()
        assert history.refresh()
        assert history.cursor != before
        assert history.cursor.generation == before.generation
    await run.aclose()
    assert history.config == {"seed": 3}
    assert history.n_bytes > 0


async def test_a_first_look_reads_the_end_only(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await played(run, 30)
    await run.aclose()
    history = RunHistory(run.directory)
    tail = history.tail(5)
    assert tail.train.column("episode").tolist() == [26, 27, 28, 29, 30]
    assert tail.share_read < 1
    assert tail.metadata is not None
    history.refresh()
    assert tail.cursor.generation != history.cursor.generation
    assert history.tail(100).train.column("episode").tolist() == list(range(1, 31))


async def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await played(run, 2)
    await run.aclose()
    with (run.directory / "train_episodes.jsonl").open("r+b") as file:
        file.write(b"#")
    os.mkfifo(run.directory / "events.jsonl")
    history = RunHistory(run.directory)
    history.refresh()
    assert history.train.n_rows == 1
    rows, events = history.problems
    assert rows.startswith("train_episodes.jsonl: line 1 is not a row")
    assert events == "events.jsonl: it is not a file; move it away"
