"""``stoker explain``: of a run that has ended, was killed, has a slow disk, or recorded nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
Runs = Callable[..., subprocess.CompletedProcess[str]]
Starts = Callable[..., subprocess.Popen[str]]


def test_a_run_that_has_ended_is_explained_from_its_records(command: Runs, trained: Any) -> None:
    told = command("explain", str(trained.run))
    assert told.returncode == 0
    assert "steps/s" in told.stdout
    for part in ("loop", "learner", "inference", "actors", "writer", "checkpoints"):
        assert f"\n{part}" in told.stdout
    line = json.loads(command("explain", str(trained.run), "--json").stdout)
    assert line["findings"][0]["culprit"] == line["bottleneck"]
    for shares in line["profile"]["shares"].values():
        assert sum(shares.values()) == pytest.approx(1)


def test_the_last_seconds_alone(command: Runs, trained: Any) -> None:
    whole = json.loads(command("explain", str(trained.run), "--json").stdout)
    last = json.loads(command("explain", str(trained.run), "--json", "--seconds", "0").stdout)
    assert 0 < last["profile"]["seconds"] <= whole["profile"]["seconds"]


def test_seconds_before_the_end_are_not_negative(command: Runs, trained: Any) -> None:
    told = command("explain", str(trained.run), "--seconds", "-5")
    assert (told.returncode, told.stdout) == (2, "")
    assert "--seconds -5" in told.stderr


def test_a_trace_has_each_part_as_a_track(command: Runs, trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    assert command("explain", str(trained.run), "--trace", str(path)).returncode == 0
    events = json.loads(path.read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"loop", "learner", "actors"} <= tracks
    for event in events:
        if event["ph"] == "C" and event["name"].endswith("learner %"):
            assert sum(event["args"].values()) == pytest.approx(100, abs=0.1)
        if event["ph"] == "X":
            assert event["dur"] > 0


def test_a_run_that_recorded_nothing_says_what_to_turn_on(stoker: Runs) -> None:
    assert stoker("train", "CartPole-v1", "-n", "100", *SMALL, "--record-freq", "0").returncode == 0
    told = stoker("explain", "runs/CartPole-v1")
    assert told.returncode == 1
    assert "--record-freq" in told.stderr


def test_a_killed_run_is_explained_from_its_rows(started: Starts, command: Runs, tmp_path: Path) -> None:
    process = started(
        "train", "CartPole-v1", "-n", "1000000", *SMALL, "--record-freq", "100", "--no-progress"
    )
    deadline = time.monotonic() + 60
    while not any(path.read_bytes().count(b"\n") >= 3 for path in tmp_path.rglob("metrics.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    line = json.loads(command("explain", "runs/CartPole-v1", "--json").stdout)
    assert line["profile"]["shares"]["learner"]
    assert line["profile"]["steps_per_s"] > 0


def _may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(
    not _may_trace(), reason="strace delays the system calls of the disk, and may not trace here"
)
@pytest.mark.faults
def test_a_slow_disk_is_named(tmp_path: Path, command: Runs) -> None:
    slow = ["strace", "-f", "--seccomp-bpf", "-o", str(tmp_path / "strace"), "-e", "trace=fsync,fdatasync"]
    slow += ["-e", "inject=fsync,fdatasync:delay_enter=300000"]
    train = [sys.executable, "-m", "stoker", "train", "CartPole-v1", "-n", "1500", *SMALL, "--eval-freq", "0"]
    train += ["--checkpoint-freq", "100", "--record-freq", "100", "--vectorize", "none"]
    done = subprocess.run(
        [*slow, *train], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    told = command("explain", "runs/CartPole-v1")
    line = json.loads(command("explain", "runs/CartPole-v1", "--json").stdout)
    assert line["bottleneck"] == "disk", told.stdout
