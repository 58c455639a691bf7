"""Checkpoints of a run: which are pruned, which is loaded, which is the latest."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker import CheckpointCorrupt, TrainingRun, WriteFailed
from stoker.writer import load_checkpoint, publish_checkpoint

pytestmark = pytest.mark.anyio
STEPS = [5, 9, 10, 100, 99, 1000]


@pytest.fixture
async def run(tmp_path: Path) -> TrainingRun:
    run = await TrainingRun.create("x", root=tmp_path)
    for step in STEPS:
        run.publish_step({"step": step}, step, keep=None)
    run.publish_best({"step": 9})
    return run


def names(run: TrainingRun) -> set[str]:
    return {path.name for path in run.checkpoints_directory.iterdir()}


@pytest.mark.parametrize(
    ("keep", "left"),
    [(6, sorted(STEPS)), (99, sorted(STEPS)), (3, [99, 100, 1000]), (1, [1000]), (0, [])],
)
async def test_prune_keeps_the_newest_by_number_and_never_touches_latest_or_best(
    run: TrainingRun, keep: int, left: list[int]
) -> None:
    stray = ["step_7.pt.broken", "step_x.pt", "step_8.pt.tmp", "notes.txt"]
    for name in stray:
        (run.checkpoints_directory / name).write_text("")
    assert await run.prune_checkpoints(keep) == [step for step in sorted(STEPS) if step not in left]
    assert run.checkpoint_steps() == left
    assert names(run) == {f"step_{step}.pt" for step in left} | {"latest.pt", "best.pt", *stray}
    assert load_checkpoint(run.best_checkpoint_path) == {"step": 9}


async def test_one_that_cannot_be_removed_does_not_keep_the_others(run: TrainingRun) -> None:
    (run.checkpoint_path(5)).unlink()
    (run.checkpoint_path(5)).mkdir()  # no checkpoint, and nothing that unlink could remove
    assert await run.prune_checkpoints(1) == [9, 10, 99, 100]
    assert run.checkpoint_steps() == [1000]
    assert run.checkpoint_path(5).is_dir()


async def test_latest_is_a_second_name_of_what_was_published_last(run: TrainingRun) -> None:
    assert run.latest_checkpoint_path.samefile(run.checkpoint_path(1000))
    run.publish_step({"step": 1001}, 1001, keep=2)
    assert run.latest_checkpoint_path.samefile(run.checkpoint_path(1001))
    assert run.checkpoint_steps() == [1000, 1001]
    run.publish_step({"step": 1002}, 1002, keep=0)
    assert run.checkpoint_steps() == []
    assert run.load_newest() == {"step": 1002}, "latest is left"


async def test_a_checkpoint_that_is_rewritten_does_not_change_under_its_other_name(run: TrainingRun) -> None:
    run.publish_step({"step": "again"}, 1000, keep=None)
    assert run.load_newest() == {"step": "again"}
    assert run.latest_checkpoint_path.samefile(run.checkpoint_path(1000))
    publish_checkpoint({"step": "alone"}, run.checkpoint_path(1000))
    assert not run.latest_checkpoint_path.samefile(run.checkpoint_path(1000))


async def test_newer_ones_that_do_not_load_are_set_aside(
    run: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.checkpoint_path(1000).write_bytes(b"torn")
    run.checkpoint_path(100).write_bytes(b"")
    assert run.load_newest() == {"step": 99}
    assert {"step_1000.pt.broken", "step_100.pt.broken"} <= names(run)
    assert run.checkpoint_steps() == [5, 9, 10, 99]
    assert [record.message.split("; ")[-1] for record in caplog.records] == [
        "set aside as step_1000.pt.broken, trying the one before",
        "set aside as step_100.pt.broken, trying the one before",
    ]


async def test_when_none_loads_that_is_an_error_and_latest_stays(run: TrainingRun) -> None:
    for path in run.checkpoints_directory.glob("*.pt"):
        path.unlink()
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointCorrupt, match="latest"):
        run.load_newest()
    assert run.latest_checkpoint_path.exists()
    assert run.load_best_score() is None
    assert "best.pt.broken" in names(run)


async def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    run = await TrainingRun.create("new", root=tmp_path)
    assert run.checkpoint_steps() == []
    assert run.load_newest() is None
    assert run.load_best_score() is None
    assert await run.prune_checkpoints(3) == []


async def test_a_checkpoint_in_place_of_a_directory_is_refused_and_typed(run: TrainingRun) -> None:
    run.checkpoint_path(2000).mkdir()
    with pytest.raises(WriteFailed, match=r"step_2000\.pt"):
        run.publish_step({"step": 2000}, 2000, keep=1)
    assert run.load_newest() == {"step": 1000}
    assert len(run.checkpoint_steps()) == len(STEPS), "nothing is pruned for one that was not written"
