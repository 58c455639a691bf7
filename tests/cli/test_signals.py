"""A training that is stopped, left or killed, and how it goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
ENDLESS = ("train", "CartPole-v1", "-n", "100000000", *SMALL, "--eval-freq", "0", "--json")
DEADLINE_S = 40.0

# After a hundred steps it blocks for longer than any test lasts.
STUCK_ENV = """
import threading
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Stuck(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100:
            threading.Event().wait(600)
        return super().step(action)

gym.register("Stuck-v0", Stuck)
"""


def wait_for_checkpoint(root: Path, process: subprocess.Popen[str]) -> int:
    """The step of a checkpoint, once there is one."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := [int(path.stem.removeprefix("step_")) for path in root.rglob("step_*.pt")]:
            return max(found)
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint: {process.communicate() if process.poll() is not None else root}")


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_says_how_to_go_on(
    started: Any, stoker: Any, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(*ENDLESS, "--checkpoint-freq", "150")
    wait_for_checkpoint(tmp_path / "runs", process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert "finishing: saving what there is; press Ctrl-C again to leave at once" in stderr
    line = json.loads(stdout)
    steps, run = line["total_steps"], tmp_path / line["run"]
    assert f"Interrupted: {steps:,} of 100,000,000 steps" in stderr
    assert f"stoker resume {line['run']}" in stderr
    assert (run / f"checkpoints/step_{steps}.pt").exists()
    if number == signal.SIGINT:
        again = stoker("resume", line["run"], "-n", str(steps + 100), "--json")
        assert again.returncode == 0, again.stderr
        assert f"going on from step {steps:,} of {steps + 100:,}" in again.stderr
        assert json.loads(again.stdout)["total_steps"] == steps + 100
        assert json.loads((run / "config.json").read_bytes())["total_timesteps"] == steps + 100


def test_a_second_signal_leaves_at_once(started: Any, tmp_path: Path) -> None:
    (tmp_path / "stuck_envs.py").write_text(STUCK_ENV)
    process = started(
        "train", "stuck_envs:Stuck-v0", *SMALL[:-2], "--num-envs", "1", "--stepping", "thread",
        "--checkpoint-freq", "50", "--eval-freq", "0", PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    wait_for_checkpoint(tmp_path / "runs", process)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "finishing")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert not list((tmp_path / "runs").rglob("*.tmp"))


def test_a_killed_run_goes_on_from_its_last_checkpoint(started: Any, stoker: Any, tmp_path: Path) -> None:
    process = started(*ENDLESS, "--checkpoint-freq", "150", "--name", "pole")
    wait_for_checkpoint(tmp_path / "runs", process)
    process.kill()
    process.communicate()
    [run] = (tmp_path / "runs/pole/v1").iterdir()
    newest = max(int(path.stem.removeprefix("step_")) for path in run.rglob("step_*.pt"))
    again = stoker("resume", "runs/pole", "-n", str(newest + 200), "--json")
    assert again.returncode == 0, again.stderr
    said = re.search(r"going on from step ([\d,]+)", again.stderr)
    assert said
    assert int(said[1].replace(",", "")) == newest
    line = json.loads(again.stdout)
    assert (line["run"], line["total_steps"]) == (f"runs/pole/v1/{run.name}", newest + 200)
    metadata = json.loads((run / "metadata.json").read_bytes())
    assert [attempt["from_steps"] for attempt in metadata["attempts"]] == [0, newest]
