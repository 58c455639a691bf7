"""``--max-time``: how it is written, when finishing begins, and that the process is out by then."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from stoker.cli.limits import Limits, TrainingCommand, seconds
from stoker.cli.main import main
from stoker.errors import ConfigError

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
ENDLESS = ("train", "CartPole-v1", "-n", "100000000", *SMALL)
DEADLINE_S = 60.0

# In an evaluation its first step never comes back; or it keeps even the interpreter lock.
STUCK_ENV = """
import ctypes
import threading
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class EndlessEvaluation(CartPoleEnv):
    made = 0

    def __init__(self, **more):
        super().__init__(**more)
        EndlessEvaluation.made += 1
        self.number = EndlessEvaluation.made

    def step(self, action):
        if self.number > 6:
            threading.Event().wait(600)
        return super().step(action)

class Greedy(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 100:
            ctypes.PyDLL(None).sleep(600)
        return super().step(action)

class EndlessMaking(CartPoleEnv):
    def __init__(self, **more):
        threading.Event().wait(600)

gym.register("EndlessMaking-v0", EndlessMaking)
gym.register("EndlessEvaluation-v0", EndlessEvaluation)
gym.register("Greedy-v0", Greedy)
"""


NO_DURATIONS = [
    *("", " ", "soon", "1x", "1h30", "30m1h", "1.5h", "-5", "1e3", "inf", "nan", "01:30", "1:60:00", "1:2:3"),
    *("0", "0s", "00:00:00", "9" * 400, "4000d", "٣s", "1h 30m", "1-00:00:00"),
]


def test_a_duration_is_read() -> None:
    for text, expected in (
        ("3600", 3600),
        ("0.5", 0.5),
        ("90s", 90),
        ("1.5s", 1.5),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1H30M", 5400),
        ("2d", 172_800),
        ("1d2h3m4s", 93_784),
        ("01:30:00", 5400),
        ("100:00:01", 360_001),
    ):
        assert seconds("--max-time", text) == expected, text


def test_an_invalid_duration_is_one_line_of_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in NO_DURATIONS:
        with pytest.raises(ConfigError, match=rf"^--grace {re.escape(repr(text))} is "):
            TrainingCommand(grace=text).limits()
    monkeypatch.chdir(tmp_path)
    for flag in ("--max-time", "--grace"):
        assert main(["train", "CartPole-v1", f"{flag}=soon"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"stoker: error: {flag} 'soon' is ")
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_all_ways_to_write_it_are_the_same_time(h: int, m: int, s: int) -> None:
    total = 3600 * h + 60 * m + s
    for text in (f"{h:02}:{m:02}:{s:02}", f"{h}h{m}m{s}s", f"{total}", f"{total}s"):
        if total:
            assert seconds("--max-time", text) == total
        else:
            with pytest.raises(ConfigError):
                seconds("--max-time", text)


def test_finishing_begins_a_margin_before() -> None:
    for max_s, margin_s, before in (
        *((100, 0, 2), (100, 1.5, 2), (100, 30, 30), (100, 80, 50)),
        *((3, 0, 1.5), (3, 9, 1.5)),
    ):
        limits = Limits(30.0, max_s, 1000.0)
        assert limits.finishes_at(margin_s) == 1000.0 - before
        assert limits.finishes_at(margin_s) < limits.leaves_at < limits.ends_at


def test_without_a_limit_it_never_begins() -> None:
    limits = TrainingCommand().limits()
    assert limits.finishes_at(5.0) == limits.leaves_at == math.inf


def run_of(root: Path) -> Path:
    [metadata] = (root / "runs").rglob("metadata.json")
    return metadata.parent


def test_the_time_of_train_and_of_resume_is_limited(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("max-time = 6\neval-freq = 0\n")
    done = stoker(*ENDLESS, "--config", "own.toml", "--json")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["total_steps"]
    assert f"Out of time: {steps:,} of 100,000,000 steps" in done.stderr
    assert "finishing: the time is nearly over" in done.stderr
    run = run_of(tmp_path).relative_to(tmp_path)
    assert f"  resume             stoker resume {run}\n" in done.stderr
    assert (tmp_path / run / f"checkpoints/step_{steps}.pt").exists()

    again = stoker("resume", str(run), "--max-time", "00:00:06", "--json")
    assert again.returncode == 0, again.stderr
    more = json.loads(again.stdout)["total_steps"]
    assert f"resuming from step {steps:,} " in again.stderr
    assert f"Out of time: {more:,} of 100,000,000 steps" in again.stderr
    assert more > steps


def test_a_training_that_ends_in_time_is_done(stoker: Any) -> None:
    done = stoker("train", "CartPole-v1", "-n", "200", *SMALL, "--max-time", "1h", "--eval-freq", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Done: 200 steps")
    assert "finishing" not in done.stderr


def stuck(started: Any, root: Path, env: str, *flags: str) -> Any:
    (root / "stuck_envs.py").write_text(STUCK_ENV)
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    train = ("train", f"stuck_envs:{env}", "-n", "100000000", *SMALL, "--checkpoint-freq", "50")
    return started(*train, *flags, PYTHONPATH=path)


def test_an_endless_evaluation_is_abandoned_and_the_rest_saved(started: Any, tmp_path: Path) -> None:
    process = stuck(
        *(started, tmp_path, "EndlessEvaluation-v0", "--stepping", "thread", "--keep-checkpoints", "2"),
        *("--eval-freq", "200", "--eval-episodes", "4", "--max-time", "7s", "--json"),
    )
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    steps = json.loads(stdout)["total_steps"]
    assert f"Out of time: {steps:,} of" in stderr
    assert (run_of(tmp_path) / f"checkpoints/step_{steps}.pt").exists()


def test_the_limit_holds_while_a_call_keeps_the_interpreter_lock(started: Any, tmp_path: Path) -> None:
    process = stuck(started, tmp_path, "Greedy-v0", "--stepping", "inline", "--max-time", "6s")
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert list((run_of(tmp_path) / "checkpoints").glob("step_*.pt"))


def test_a_time_limit_that_ends_before_the_training_begins_is_reported(stoker: Any, tmp_path: Path) -> None:
    done = stoker(*ENDLESS, "--agent", "dqn", "--max-time", "0.001s")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "stoker: error: --max-time of 0.001 s is over: the training has not begun; give it more\n"
    )


def test_the_limit_holds_while_the_agent_that_fits_an_environment_is_found(
    started: Any, tmp_path: Path
) -> None:
    process = stuck(started, tmp_path, "EndlessMaking-v0", "--max-time", "4s")
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert stderr.startswith("stoker: error: --max-time is over: the environment or data set")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
