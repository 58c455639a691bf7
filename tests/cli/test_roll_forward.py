"""``stoker resume`` of a run that was killed between two checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.main import main
from stoker.journal import Journal


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Path:
    """The trained run as a kill at its last step leaves it: its newest checkpoint is of step 800."""
    run = Path(shutil.copytree(trained.run, tmp_path / "runs/CartPole-v1/v1" / trained.run.name))
    for name in ("step_1200.pt", "latest.pt"):
        (run / "checkpoints" / name).unlink()
    return run


def damage(run: Path, event: int) -> Path:
    """Flip a bit of that event's record."""
    [(path, length)] = Journal(run / "journal", [(1, 0)]).parts(0, event + 1)
    data = bytearray(path.read_bytes())
    data[(length or len(data)) - 2] ^= 1
    path.write_bytes(bytes(data))
    return path


def test_it_learns_the_tail_again_and_goes_on(trained: Any, run: Path, stoker: Any) -> None:
    done = stoker("resume", str(run), "-n", "1300", "--json")
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stderr.splitlines()]
    assert "learning 400 steps again that were journaled after step 800" in said
    assert any(line.startswith("learned 400 steps again in ") for line in said)
    assert "resuming from step 1,200 of 1,300" in said
    assert json.loads(done.stdout)["total_steps"] == 1300
    before = (trained.run / "train_episodes.jsonl").read_bytes()
    assert (run / "train_episodes.jsonl").read_bytes().startswith(before), "every row is still there"
    assert main(["verify", str(run)]) == 0
    assert main(["replay", str(run), "--verify"]) == 0


def test_a_run_whose_tail_reaches_its_total_is_done(run: Path, stoker: Any) -> None:
    done = stoker("resume", str(run), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total_steps"] == 1200
    assert (run / "checkpoints/step_1200.pt").exists()


def test_it_goes_back_to_the_checkpoint_if_it_is_told_to(run: Path, stoker: Any) -> None:
    done = stoker("resume", str(run), "-n", "900", "--no-roll-forward", "--json")
    assert done.returncode == 0, done.stderr
    assert "resuming from step 800 of 900" in done.stderr
    assert "again" not in done.stderr
    assert json.loads(done.stdout)["total_steps"] == 900


def test_a_damaged_tail_fails_if_that_is_wanted_and_is_named(run: Path, stoker: Any) -> None:
    path = damage(run, 1000)
    metadata = (run / "metadata.json").read_bytes()
    done = stoker("resume", str(run), "-n", "1300", "--strict")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("stoker: error: ")]
    assert path.name in line
    assert (run / "metadata.json").read_bytes() == metadata
    done = stoker("resume", str(run), "-n", "1300", "--json")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("stoker: warning: ")]
    assert path.name in line
    assert "the training goes on from step " in line
    assert json.loads(done.stdout)["total_steps"] == 1300


def test_strict_and_no_roll_forward_contradict_each_other(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run), "--strict", "--no-roll-forward"]) == 2
    assert "--strict --no-roll-forward: give one of them" in capsys.readouterr().err
