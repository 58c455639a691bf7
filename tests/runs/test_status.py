"""What became of a run, by who holds it, its events and its config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import EpisodeRecord, EpisodeStatus, TrainingRun, TrainingSession
from stoker.runs.event_rows import EventRow
from stoker.runs.events import (
    ActorFellSilent,
    AttemptBegan,
    AttemptEnded,
    CheckpointWritten,
    Forked,
    RunEvent,
)
from stoker.runs.history import RunHistory
from stoker.runs.status import RunStatus, status_of
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
BEGAN = AttemptBegan(pid=1, host="h", command="c", python="3.11", torch="2", stoker="0.1.0", from_steps=0)
WROTE = CheckpointWritten(step=40, n_bytes=10, took_s=0.1)
FAILED = AttemptEnded(how="failed", part="agent", error="ValueError", text="no number")

# the events, the steps wanted, and the status of a run of 50 steps that nobody holds
ENDED: list[tuple[list[RunEvent], int | None, str, str]] = [
    ([], None, "ended", "it ended at step 50; its config names no total"),
    ([], 50, "done", "it has all of its 50 steps"),
    ([], 1000, "stopped", "it ended at step 50 of 1,000"),
    ([BEGAN, AttemptEnded(how="finished")], 50, "done", "it has all of its 50 steps"),
    (
        [BEGAN, AttemptEnded(how="stopped", signal="SIGINT")],
        1000,
        "stopped",
        "attempt stopped by SIGINT at step 50 of 1,000",
    ),
    ([BEGAN, FAILED], 50, "crashed", "attempt failed in the agent: ValueError: no number"),
    ([BEGAN, WROTE], 1000, "crashed", "it was killed: its last attempt recorded no end"),
    ([BEGAN, *[WROTE] * 40], None, "crashed", "it was killed: its last attempt recorded no end"),
]


async def run_with(root: Path, events: list[RunEvent], wanted: int | None) -> TrainingRun:
    run = await TrainingRun.create("x", root=root)
    await run.log_train_episode(EpisodeRecord(1.0, 50, EpisodeStatus.TERMINATED))
    await run.update_metadata(50, 1)
    if wanted is not None:
        await run.write_config({"total_timesteps": wanted})
    await run.event_log.append_rows([EventRow.of(event, total_steps=50, attempt=1) for event in events])
    return run


async def both(run: TrainingRun) -> RunStatus:
    """The status, which is the same of a run and of its history."""
    history = RunHistory(run.directory)
    await anyio.to_thread.run_sync(history.refresh)
    status = status_of(run)
    assert status_of(history) == status
    return status


async def test_runs_that_nobody_holds(tmp_path: Path) -> None:
    for k, (events, wanted, name, reason) in enumerate(ENDED):
        run = await run_with(tmp_path / str(k), events, wanted)
        await run.aclose()
        assert await both(run) == RunStatus(name, reason)  # pyright: ignore[reportArgumentType] - a table


async def test_a_run_is_live_while_a_session_writes_it(tmp_path: Path) -> None:
    run = await TrainingRun.create("own", root=tmp_path)
    async with TrainingSession(FakeAgent(), run):
        assert (await both(run)).name == "live"
        assert f"process {os.getpid()} on" in (await both(run)).reason
    assert (await both(run)).name == "ended"


async def test_a_run_that_is_held_but_writes_nothing_is_stalled(tmp_path: Path) -> None:
    silent = ActorFellSilent(actor_id=3, doing="step", still_s=61.0)
    run = await run_with(tmp_path, [BEGAN, silent], 1000)
    assert await both(run) == RunStatus("stalled", "actor 3 was silent for 61 s: step")
    await run.log_train_episode(EpisodeRecord(1.0, 50, EpisodeStatus.TERMINATED))
    assert (await both(run)).name == "live", "rows came after the event"
    await run.aclose()
    run = await run_with(tmp_path, [BEGAN], 1000)
    for path in run.directory.rglob("*"):
        os.utime(path, (1e9, 1e9))
    status = await both(run)
    assert status.name == "stalled"
    assert "holds it, but has written nothing for" in status.reason
    await run.aclose()


async def test_a_fork_that_was_not_trained_is_not_crashed(tmp_path: Path) -> None:
    run = await run_with(tmp_path, [Forked(source="other", step=50)], 1000)
    await run.aclose()
    assert (await both(run)).name == "stopped"


async def test_a_run_without_metadata_is_broken(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    run.metadata_path.write_bytes(b"{")
    history: Any = RunHistory(run.directory)
    history.refresh()
    status = status_of(history)
    assert status.name == "broken"
    assert "metadata.json: cannot be read" in status.reason
