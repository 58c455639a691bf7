"""Runs that are made without training are what a session writes: stoker's own readers find nothing wrong."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import numpy as np
from benchmarks.made_runs import SPIKE, MadeRun, config_of, make_runs

from stoker import EpisodeRecord, EpisodeStatus, TrainingRun, list_runs
from stoker.runs.locking import holder_of
from stoker.runs.metadata import write_json
from stoker.runs.verifying import verify_run


def test_a_made_run_verifies_and_has_the_rows_that_were_asked_for(tmp_path: Path) -> None:
    made = MadeRun(tmp_path, spikes=(7, 12_001), n_wanted=12_345)
    pieces = list(made.add_episodes(12_345))
    made.add_record()
    made.add_evaluation(20)
    made.end()
    run = TrainingRun.find(made.directory)
    assert {found.kind for found in verify_run(run)} <= {"ok", "note"}
    train = anyio.run(run.read_train_episodes)
    assert np.array_equal(train["total_reward"], np.concatenate([piece.rewards for piece in pieces]))
    assert np.flatnonzero(train["total_reward"] == SPIKE).tolist() == [6, 12_000]
    assert run.metadata.total_steps == train["total_steps"][-1] == 12_345 * 200
    assert len(anyio.run(run.read_eval_episodes)["length"]) == 20
    assert [event.kind for event in anyio.run(run.read_events)][-1] == "attempt_ended"


def test_its_files_have_the_form_of_those_of_a_run(tmp_path: Path) -> None:
    async def write() -> Path:
        run = await TrainingRun.create("written", root=tmp_path)
        await run.write_config(config_of())
        record = EpisodeRecord(1.0, 200, EpisodeStatus.TERMINATED, {"epsilon": 1.0})
        await run.log_train_episode(record)
        await run.log_eval_episode(record, 200)
        await run.aclose()
        return run.directory

    made = MadeRun(tmp_path, "made")
    made.grow(1)
    made.add_evaluation(1)
    written = anyio.run(write)
    for name in ("train_episodes.jsonl", "eval_episodes.jsonl"):
        ours, theirs = (
            msgspec.json.decode((place / name).read_bytes()) for place in (made.directory, written)
        )
        assert list(ours) == list(theirs), name
    assert (made.directory / "config.json").read_bytes() == (written / "config.json").read_bytes()
    metadata = TrainingRun.find(made.directory).metadata
    as_made = (made.directory / "metadata.json").read_bytes()
    write_json(made.directory / "metadata.json", metadata)
    assert (made.directory / "metadata.json").read_bytes() == as_made


def test_a_held_run_grows_and_is_live(tmp_path: Path) -> None:
    first, second = make_runs(tmp_path, 2, 10, is_held=True)
    first.grow(5)
    assert [run.metadata.total_episodes for run in anyio.run(list_runs, tmp_path)] == [15, 10]
    first.end("stopped", signal="SIGTERM")
    held = {run.directory for run in (first, second) if holder_of(run.directory) is not None}
    second.release()
    assert held == {second.directory}
