"""Standard streams that are closed, full, gone or not UTF-8 neither end a training nor hide a loss."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import launching

TRAIN = "train CartPole-v1 -n 300 --eval-freq 150 --eval-episodes 1 --learning-starts 64 --hidden-sizes 16"
NAMES = {1: "stdout", 2: "stderr"}
LOST = "stoker: error: standard output is incomplete: "


def stoker_with(line: str, cwd: Path, *, closed: Sequence[int] = (), full: int | None = None) -> Any:
    """Run ``stoker LINE`` with these streams closed, and this one at the end of a full disk."""
    with Path("/dev/full").open("w") as no_room:
        given = {name: no_room if number == full else subprocess.PIPE for number, name in NAMES.items()}
        command = [sys.executable, "-m", "stoker", *line.split()]
        return launching.run(command, cwd=cwd, closed=closed, text=True, stdin=subprocess.DEVNULL, **given)


def trained_steps(root: Path) -> int:
    [metadata] = (root / "runs").rglob("metadata.json")
    assert list(metadata.parent.glob("checkpoints/step_300.pt"))
    return json.loads(metadata.read_bytes())["total_steps"]


@pytest.mark.parametrize(
    ("flags", "streams", "code", "said"),
    [
        ("", {"closed": [1]}, 1, LOST + "it is closed"),
        ("--json", {"full": 1}, 1, LOST + "No space left on device"),
        ("", {"full": 2}, 0, ""),
        ("--track console --record-freq 100", {"closed": [0, 2]}, 0, ""),
        ("--actors processes --num-envs 2", {"closed": [0, 1, 2]}, 1, ""),
    ],
)
def test_a_training_is_whole_whatever_becomes_of_its_streams(
    flags: str, streams: dict[str, Any], code: int, said: str, tmp_path: Path
) -> None:
    done = stoker_with(f"{TRAIN} {flags}", tmp_path, **streams)
    assert (done.returncode, trained_steps(tmp_path)) == (code, 300), done.stderr
    assert ((done.stderr or "").splitlines() or [""])[-1].startswith(said)
    assert stoker_with("verify runs/CartPole-v1", tmp_path).returncode == 0


def test_a_training_outlives_its_terminal(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "stoker", *TRAIN.split()]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        process = launching.Popen(
            command, cwd=tmp_path, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, text=True,
            env=dict(os.environ) | {"TERM": "xterm"},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGHUP, before)
    os.close(terminal)
    os.close(controller)  # from here on writing to it fails
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, trained_steps(tmp_path)) == (0, 300)
    assert stdout.startswith("Done: 300 steps")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_the_terminal_lacks_are_escaped(trained: Any, encoding: str, tmp_path: Path) -> None:
    odd = tmp_path / "läufe-東"
    odd.symlink_to(trained.root)
    for line in (f"ls {odd}", f"show {odd}/CartPole-v1", f"verify {odd}/CartPole-v1", f"resume {odd}"):
        done = launching.run(
            [sys.executable, "-m", "stoker", *line.split()],
            capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode(encoding)
        assert line.startswith("ls") or "-\\u6771" in said


def test_a_result_that_cannot_be_printed_is_a_failure(trained: Any) -> None:
    for line in ("--help", "train --help", "ls .", "show CartPole-v1", "verify CartPole-v1"):
        full = stoker_with(line, trained.root, full=1)
        assert (full.returncode, full.stderr) == (1, LOST + "No space left on device\n")
        closed = stoker_with(line, trained.root, closed=[1])
        assert (closed.returncode, closed.stderr) == (1, LOST + "it is closed\n")


def test_a_reader_that_leaves_early_is_not_an_error(trained: Any) -> None:
    ours, theirs = os.pipe()
    os.close(ours)  # as when `head` has ended
    done = launching.run(
        [sys.executable, "-m", "stoker", "train", "--help"],
        cwd=trained.root, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_current_directory_that_was_removed_is_one_line(tmp_path: Path) -> None:
    script = 'cd "$1" && rmdir "$1" && exec "$0" -m stoker ls'
    command = ["bash", "-c", script, sys.executable, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "stoker: error: the current directory was removed: change to one that exists\n"
