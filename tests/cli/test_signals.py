"""Stop, leave or kill a training, and resume it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import launching

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
ENDLESS = ("train", "CartPole-v1", "-n", "100000000", *SMALL, "--eval-freq", "0", "--json")
DEADLINE_S = 40.0

# After 100 steps it blocks for longer than any test lasts, without the interpreter lock. The steps before
# leave time to save: on a blocked event loop nothing new is written.
STUCK_ENV = """
import threading
import time
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Stuck(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps > 50:
            time.sleep(0.02)
        if self.steps == 100:
            open("stuck", "w").close()
            threading.Event().wait(600)
        return super().step(action)

gym.register("Stuck-v0", Stuck)
"""
# Importing it blocks.
STUCK_IMPORT = """
import threading
open("importing", "w").close()
threading.Event().wait(600)
"""


@pytest.fixture(autouse=True)
def no_nohup() -> Iterator[None]:
    """Under nohup the tests' processes would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait until ``found`` returns something, and return that."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError(
        f"nothing came: {process.communicate() if process.poll() is not None else process.pid}"
    )


def newest_step(root: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    return max((int(path.stem.removeprefix("step_")) for path in root.rglob("step_*.pt")), default=0)


def wait_for_checkpoint(root: Path, process: subprocess.Popen[str], beyond: int = 0) -> int:
    """The step of a checkpoint beyond that one, once there is one."""
    return wait_for(lambda: max(0, newest_step(root) - beyond), process) + beyond


def stuck_train(started: Any, root: Path, *flags: str) -> subprocess.Popen[str]:
    """A training whose only environment blocks, after a checkpoint at step 50."""
    (root / "stuck_envs.py").write_text(STUCK_ENV)
    process = started(
        *("train", "stuck_envs:Stuck-v0", *SMALL[:-2], "--num-envs", "1", "--checkpoint-freq", "50"),
        *("--eval-freq", "0", *flags),
        PYTHONPATH=module_path(root),
    )
    wait_for((root / "stuck").exists, process)
    wait_for_checkpoint(root / "runs", process)
    return process


def module_path(root: Path) -> str:
    return os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])


def run_of(root: Path) -> Path:
    """The only run, as the command line names it."""
    [metadata] = (root / "runs").rglob("metadata.json")
    return metadata.parent.relative_to(root)


def insist(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    """Send a signal again and again, as a hurried user does, until the process has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_saves_and_says_how_to_resume(
    started: Any, stoker: Any, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(*ENDLESS, "--checkpoint-freq", "150")
    wait_for_checkpoint(tmp_path / "runs", process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert "finishing: saving the training; press Ctrl-C again to leave at once" in stderr
    line = json.loads(stdout)
    steps, run = line["total_steps"], tmp_path / line["run"]
    assert f"Interrupted: {steps:,} of 100,000,000 steps" in stderr
    assert f"stoker resume {run.relative_to(tmp_path)}" in stderr
    assert (run / f"checkpoints/step_{steps}.pt").exists()
    if number == signal.SIGINT:
        again = stoker("resume", line["run"], "-n", str(steps + 100), "--json")
        assert again.returncode == 0, again.stderr
        assert f"resuming from step {steps:,} of {steps + 100:,}" in again.stderr
        assert json.loads(again.stdout)["total_steps"] == steps + 100
        assert json.loads((run / "config.json").read_bytes())["total_timesteps"] == steps + 100


def test_a_second_signal_leaves_at_once(started: Any, tmp_path: Path) -> None:
    process = stuck_train(started, tmp_path, "--stepping", "thread")
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "finishing")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == f"stoker: interrupted; resume: stoker resume {run_of(tmp_path)}"
    assert not list((tmp_path / "runs").rglob("*.tmp"))


def test_the_last_line_below_a_live_view_is_not_wrapped(tmp_path: Path) -> None:
    (tmp_path / "stuck_envs.py").write_text(STUCK_ENV)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))
    flags = (*SMALL[:-2], "--num-envs", "1", "--stepping", "thread", "--eval-freq", "0")
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = launching.Popen(
        [sys.executable, "-m", "stoker", "train", "stuck_envs:Stuck-v0", *flags],
        cwd=tmp_path,
        stderr=theirs,
        env={**env, "TERM": "xterm", "PYTHONPATH": module_path(tmp_path)},
    )
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # the other side has closed
        while piece := os.read(ours, 65536).decode(errors="replace"):
            shown += piece
            if (tmp_path / "stuck").exists():
                insist(process)
    os.close(ours)
    assert process.wait(DEADLINE_S) == 130
    assert "stoker: interrupted; there is no checkpoint yet\r\n" in shown


def test_a_second_signal_leaves_a_blocked_event_loop(started: Any, tmp_path: Path) -> None:
    process = stuck_train(started, tmp_path, "--stepping", "inline")
    insist(process)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert f"resume: stoker resume {run_of(tmp_path)}" in stderr.splitlines()[-1]


def test_leaving_without_a_checkpoint_says_so(started: Any, tmp_path: Path) -> None:
    (tmp_path / "stuck_envs.py").write_text(STUCK_ENV)
    process = started(
        *("train", "stuck_envs:Stuck-v0", "--num-envs", "1", "--checkpoint-freq", "0", "--eval-freq", "0"),
        *("--stepping", "thread"),
        PYTHONPATH=module_path(tmp_path),
    )
    wait_for((tmp_path / "stuck").exists, process)
    process.send_signal(signal.SIGINT)
    wait_for_line(process, "finishing")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "stoker: interrupted; there is no checkpoint yet"


def test_a_request_that_arrives_as_two_signals_counts_once(started: Any, tmp_path: Path) -> None:
    process = started(*ENDLESS, "--checkpoint-freq", "150")
    wait_for_checkpoint(tmp_path / "runs", process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert stderr.count("finishing:") == 1


def test_an_environment_that_does_not_return_is_abandoned_and_the_rest_saved(
    started: Any, tmp_path: Path
) -> None:
    process = stuck_train(started, tmp_path, "--stepping", "thread", "--grace", "4", "--json")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert "Interrupted: 99 of 100,000 steps" in stderr
    assert json.loads(stdout)["total_steps"] == 99
    assert newest_step(tmp_path / "runs") == 99


def test_when_the_grace_is_over_it_says_what_is_busy_and_leaves(started: Any, tmp_path: Path) -> None:
    process = stuck_train(started, tmp_path, "--stepping", "inline", "--grace", "1s")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    [said] = [line for line in stderr.splitlines() if line.startswith("stoker: error: ")]
    assert said.startswith("stoker: error: --grace of 1 s is over: the event loop does not turn: ")
    assert "learner" not in said
    assert "`stoker resume runs/stuck_envs-Stuck-v0/v1/" in said
    assert newest_step(tmp_path / "runs") == 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_anything_to_finish_one_signal_leaves(
    started: Any, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "stuck_import.py").write_text(STUCK_IMPORT)
    process = started("train", "stuck_import:Any-v0", PYTHONPATH=module_path(tmp_path))
    wait_for((tmp_path / "importing").exists, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert stderr == "stoker: interrupted\n"


def test_a_pipe_in_the_place_of_a_checkpoint_is_refused_and_not_waited_for(
    started: Any, trained: Any, tmp_path: Path
) -> None:
    best = Path(shutil.copytree(trained.run, tmp_path / "run")) / "checkpoints/best.pt"
    best.unlink()
    os.mkfifo(best)  # who opens it to read waits for a writer, then for data
    process = started("eval", "run", "--checkpoint", "best")
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (1, 2)
    assert stderr.count("\n") == 1
    assert "best.pt" in stderr
    assert "it is not a file" in stderr


def test_a_closed_terminal_saves_and_ends_a_training(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ["TERM"] = "xterm"
        os.execv(
            sys.executable,
            [sys.executable, "-m", "stoker", *ENDLESS, "--checkpoint-freq", "150", "--json"],
        )
    try:
        os.set_blocking(terminal, False)
        deadline = time.monotonic() + DEADLINE_S
        while not newest_step(tmp_path / "runs"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
            with contextlib.suppress(BlockingIOError):
                os.read(terminal, 1 << 16)
    finally:
        os.close(terminal)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    [metadata] = (tmp_path / "runs").rglob("metadata.json")
    steps = json.loads(metadata.read_bytes())["total_steps"]
    assert steps == newest_step(tmp_path / "runs")
    last = json.loads((metadata.parent / "events.jsonl").read_bytes().splitlines()[-1])
    assert (last["kind"], last["total_steps"]) == ("attempt_ended", steps)
    assert (last["details"]["how"], last["details"]["signal"]) == ("stopped", "SIGHUP")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_ignored(started: Any, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(
        number, signal.SIG_IGN
    )  # as under nohup, or for `&` in a script; children inherit it
    try:
        process = started(*ENDLESS, "--checkpoint-freq", "150")
    finally:
        signal.signal(number, before)
    step = wait_for_checkpoint(tmp_path / "runs", process)
    process.send_signal(number)
    wait_for_checkpoint(tmp_path / "runs", process, beyond=step + 600)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr


def test_a_reader_that_leaves_does_not_end_the_training(started: Any, tmp_path: Path) -> None:
    process = started(
        *("train", "CartPole-v1", "-n", "900", *SMALL, "--eval-freq", "300", "--eval-episodes", "2", "--json")
    )
    process.stderr.close()
    stdout = process.stdout.read()
    assert process.wait(DEADLINE_S) == 0
    assert json.loads(stdout)["total_steps"] == 900


def test_a_killed_run_resumes_from_its_last_checkpoint_or_what_the_journal_holds_behind_it(
    started: Any, stoker: Any, tmp_path: Path
) -> None:
    process = started(*ENDLESS, "--checkpoint-freq", "150", "--name", "pole")
    wait_for_checkpoint(tmp_path / "runs", process)
    process.kill()
    process.communicate()
    [run] = (tmp_path / "runs/pole/v1").iterdir()
    newest = max(int(path.stem.removeprefix("step_")) for path in run.rglob("step_*.pt"))
    again = stoker("resume", "runs/pole", "-n", str(newest + 1500), "--json")
    assert again.returncode == 0, again.stderr
    said = re.search(r"resuming from step ([\d,]+)", again.stderr)
    assert said
    resumed_at = int(said[1].replace(",", ""))
    assert newest <= resumed_at < newest + 1500
    line = json.loads(again.stdout)
    assert (line["run"], line["total_steps"]) == (str(run), newest + 1500)
    metadata = json.loads((run / "metadata.json").read_bytes())
    assert [attempt["from_steps"] for attempt in metadata["attempts"]] == [0, resumed_at]
