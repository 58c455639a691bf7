"""``stoker prune``: what goes, what stays, what it says, and that it keeps its hands off a live run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from stoker.cli.main import main
from stoker.journal import SegmentEncoder, SegmentHeader
from stoker.runs import TrainingRun

STEPS = [10, 20, 30, 40]


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    """Four checkpoints, each of which needs the journal's segment before it."""
    run = anyio.run(lambda: TrainingRun.create("x", root=tmp_path / "runs"))
    run.acquire()
    run.begin_journal()
    for step in STEPS:
        header = SegmentHeader(
            attempt=1, first_event=step - 10, total_steps=step - 10, agent_type="DQN", opt_interval=1
        )
        run.open_segment(step - 10).path.write_bytes(SegmentEncoder().begin(header))
        run.publish_step({"journal": {"events": step, "needs_from": step - 10}, "agent": "x" * 5000}, step)
    run.publish_best({"best": {"value": 1.0, "total_steps": 20}})
    run.release()
    return run


def left(run: TrainingRun) -> tuple[list[int], list[int]]:
    return run.checkpoint_steps(), [segment.first_event for segment in run.journal.segments()]


@pytest.mark.parametrize(
    ("flags", "steps", "segments"),
    [
        ("", [20, 30, 40], [10, 20, 30]),
        ("--keep 1", [40], [30]),
        ("--keep 1 --every 20", [20, 40], [30]),
        ("--keep 2 --all-journal", [30, 40], [0, 10, 20, 30]),
        ("--keep 0", [], [30]),
        ("--keep 9", [10, 20, 30, 40], [0, 10, 20, 30]),
    ],
)
def test_what_goes_and_what_stays(
    run: TrainingRun, capsys: pytest.CaptureFixture[str], flags: str, steps: list[int], segments: list[int]
) -> None:
    before = {path: path.stat().st_size for path in run.directory.rglob("*") if path.is_file()}
    assert main(["prune", str(run.directory), *flags.split(), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert left(run) == (STEPS, [0, 10, 20, 30])
    assert main(["prune", str(run.directory), *flags.split(), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert left(run) == (steps, segments)
    assert (run.checkpoints_directory / "latest.pt").exists()
    assert run.best_checkpoint_path.exists()
    assert planned == {**done, "dry_run": True}
    gone = {path: size for path, size in before.items() if not path.exists() and path.stem != ".lease"}
    assert {run.directory / file["file"]: file["bytes"] for file in done["removed"]} == gone
    shared = {run.checkpoint_path(40)} & set(gone)
    assert done["freed_bytes"] == sum(size for path, size in gone.items() if path not in shared)
    assert run.holder() is None


def test_what_it_says(run: TrainingRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(run.directory), "--keep", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert str(run.directory) in said
    assert "would remove 7 files and free " in said
    (line,) = [line for line in said.splitlines() if "step_40.pt" in line]
    assert line.endswith("(has another name, which stays)")
    assert main(["prune", str(run.directory), "--keep", "0"]) == 0
    assert "removed 7 files, freed " in capsys.readouterr().out
    assert main(["prune", str(run.directory), "--keep", "0"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_a_live_run_is_refused_with_its_holder(
    run: TrainingRun, stoker: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run.acquire()
    refused = stoker("prune", str(run.directory), "--keep", "1")
    holder = run.holder()
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"stoker: error: {run.directory}: is being written by "
        f"{str(holder).replace(' (this very process)', '')}; wait for that session to end, or stop it first"
    ]
    assert left(run) == (STEPS, [0, 10, 20, 30])
    run.release()
