"""The journal of a run: what of it is kept for the newest checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker import EpisodeStatus, Experience, TrainingRun
from stoker.journal import SegmentEncoder, SegmentHeader
from stoker.runs import Retention

pytestmark = pytest.mark.anyio


def write_segment(run: TrainingRun, first: int, n: int) -> None:
    """A segment of the present attempt with that many events."""
    encoder = SegmentEncoder()
    header = SegmentHeader(
        attempt=run.attempt, first_event=first, total_steps=first, agent_type="DQN", opt_interval=1
    )
    events = [Experience(float(k), 0, 0.0, float(k + 1), EpisodeStatus.CONTINUING, 0) for k in range(n)]
    run.journal_directory.mkdir(exist_ok=True)
    run.open_segment(first).path.write_bytes(encoder.begin(header) + encoder.encode_all(events))


def checkpoint(events: int, needs_from: int | None) -> dict[str, Any]:
    position = None if needs_from is None else {"events": events, "needs_from": needs_from}
    return {"journal": position, "session": {"total_steps": events}}


def firsts(run: TrainingRun) -> list[int]:
    return [segment.first_event for segment in run.journal.segments()]


@pytest.fixture
async def run(tmp_path: Path) -> TrainingRun:
    """Segments of ten events, a checkpoint at every tenth; each needs the twenty events before it."""
    run = await TrainingRun.create("x", root=tmp_path)
    run.acquire()
    for first in range(0, 60, 10):
        write_segment(run, first, 10)
        end = first + 10
        run.publish_step(checkpoint(end, max(0, end - 20)), end)
    return run


async def test_the_whole_journal_is_kept_by_default(run: TrainingRun) -> None:
    assert firsts(run) == [0, 10, 20, 30, 40, 50]
    assert run.prune_journal(Retention(all_journal=True)) == []
    assert [number for number, _ in run.journal.read(0, 60)] == list(range(60))


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(last=1), [40, 50]),
        (Retention(last=2), [30, 40, 50]),
        (Retention(last=3), [20, 30, 40, 50]),
        (Retention(last=None), [0, 10, 20, 30, 40, 50]),
        (Retention(last=1, every=10), [40, 50]),
        (Retention(last=0), [40, 50]),
        (Retention(last=1, all_journal=True), [0, 10, 20, 30, 40, 50]),
    ],
)
async def test_what_none_of_the_newest_needs_is_removed(
    run: TrainingRun, retention: Retention, left: list[int]
) -> None:
    run.publish_step(checkpoint(60, 40), 60, retention)
    assert firsts(run) == left
    assert len(list(run.journal.read(left[0], 60))) == 60 - left[0]


async def test_a_checkpoint_that_needs_none_keeps_none_and_removes_none(run: TrainingRun) -> None:
    for step in (70, 80):
        run.publish_step(checkpoint(step, None), step, Retention(last=1))
    assert firsts(run) == [0, 10, 20, 30, 40, 50]


async def test_what_is_not_known_is_not_removed_until_it_is_gone_or_read(run: TrainingRun) -> None:
    run.release()
    resumed = await TrainingRun.resume(run.directory)
    resumed.acquire()
    path, _ = next(resumed.candidates())
    assert path == run.checkpoint_path(60)
    resumed.begin_attempt(60, 0, 60)
    retention = Retention(last=2)
    write_segment(resumed, 60, 10)
    assert resumed.prune_journal(retention) == [], "nobody has read what step 50 needs"
    doomed = resumed.doomed(retention)
    resumed.publish_step(checkpoint(70, 50), 70, retention)
    assert firsts(resumed) == [40, 50, 60]
    assert [path.name for path in doomed] == [
        *(f"step_{step}.pt" for step in (10, 20, 30, 40)),
        *(f"0001-{first:012d}.journal" for first in (0, 10, 20)),
    ]
    assert resumed.prune(retention) == []


@pytest.mark.parametrize("back_to", [10, 30, 50])
async def test_what_an_abandoned_checkpoint_needed_does_not_count(run: TrainingRun, back_to: int) -> None:
    retention = Retention(last=0)
    run.begin_attempt(back_to, 0, back_to)
    run.prune_journal(retention)
    needed = max(0, back_to - 20)
    assert [number for number, _ in run.journal.read(needed, back_to)] == list(range(needed, back_to))
    write_segment(run, back_to, 3)
    run.publish_step(checkpoint(back_to + 3, needed), back_to + 3, retention)
    assert len(list(run.journal.read(needed, back_to + 3))) == back_to + 3 - needed


async def test_what_is_known_of_checkpoints_that_are_gone_is_forgotten(run: TrainingRun) -> None:
    for step in range(61, 81):
        run.publish_step(checkpoint(step, 40), step, Retention(last=2))
    assert run.latest_checkpoint_path == run.checkpoint_path(80)
    assert len(run._needs) <= 3


async def test_an_abandoned_future_is_not_needed(run: TrainingRun) -> None:
    run.release()
    resumed = await TrainingRun.resume(run.directory)
    resumed.acquire()
    assert len(list(resumed.candidates())) == 6
    resumed.begin_attempt(30, 0, 30)
    write_segment(resumed, 30, 20)
    assert resumed.journal.n_events() == 50
    resumed.publish_step(checkpoint(50, 30), 50, Retention(last=1))
    assert {(segment.attempt, segment.first_event) for segment in resumed.journal.segments()} == {
        (1, 30),
        (1, 40),
        (1, 50),
        (2, 30),
    }, "what was abandoned goes when the needed events have passed it"
    write_segment(resumed, 50, 20)
    resumed.publish_step(checkpoint(70, 60), 70, Retention(last=1))
    assert {(segment.attempt, segment.first_event) for segment in resumed.journal.segments()} == {(2, 50)}
