"""Standard streams that are closed, full, gone or not UTF-8 neither end a training nor hide a loss."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TRAIN = "train CartPole-v1 -n 300 --eval-freq 150 --eval-episodes 1 --learning-starts 64 --hidden-sizes 16"
LOST = "stoker: error: standard output is incomplete: "


def shell(line: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``stoker LINE``, redirections and all, as a shell does."""
    return subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m stoker {line}'],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ) | more,
    )  # fmt: skip


def trained_steps(root: Path) -> int:
    [metadata] = (root / "runs").rglob("metadata.json")
    assert list(metadata.parent.glob("checkpoints/step_300.pt"))
    return json.loads(metadata.read_bytes())["total_steps"]


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (">&-", 1, LOST + "it is closed"),
        ("--json >/dev/full", 1, LOST + "No space left on device"),
        ("2>/dev/full", 0, ""),
        ("--track console --record-freq 100 <&- 2>&-", 0, ""),
        ("--actors processes --num-envs 2 <&- >&- 2>&-", 1, ""),
    ],
)
def test_a_training_is_whole_whatever_becomes_of_its_streams(
    redirected: str, code: int, said: str, tmp_path: Path
) -> None:
    done = shell(f"{TRAIN} {redirected}", tmp_path)
    assert (done.returncode, trained_steps(tmp_path)) == (code, 300), done.stderr
    assert (done.stderr.splitlines() or [""])[-1].startswith(said)
    assert shell("verify runs/CartPole-v1", tmp_path).returncode == 0


def test_a_training_outlives_its_terminal(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "stoker", *TRAIN.split()]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        process = subprocess.Popen(
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
        done = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m stoker {line}'],
            capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode(encoding)
        assert line.startswith("ls") or "-\\u6771" in said


@pytest.mark.parametrize("line", ["--help", "train --help", "ls", "show CartPole-v1", "verify CartPole-v1"])
def test_a_result_that_cannot_be_printed_is_a_failure(line: str, trained: Any) -> None:
    runs = "." if line == "ls" else ""
    full = shell(f"{line} {runs} >/dev/full", trained.root)
    assert (full.returncode, full.stderr) == (1, LOST + "No space left on device\n")
    closed = shell(f"{line} {runs} >&-", trained.root)
    assert (closed.returncode, closed.stderr) == (1, LOST + "it is closed\n")


def test_a_reader_that_has_seen_enough_is_no_failure_to_speak_of(trained: Any) -> None:
    done = shell("train --help | head -1; exit ${PIPESTATUS[0]}", trained.root)
    assert (done.returncode, done.stderr) == (1, "")
