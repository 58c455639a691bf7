"""The command line as its users start it: a process of its own, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import launching
from stoker.cli.main import main

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
"""Settings with which a training of some hundred steps takes a second."""


def environment() -> dict[str, str]:
    """This process's environment without what would change how terminals are taken."""
    dropped = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CI"}
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def stoker(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m stoker`` in ``tmp_path`` and returns how it ended."""

    def run(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return launching.run(
            [sys.executable, "-m", "stoker", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment() | more.pop("env", {}),
            **more,
        )

    return run


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in this process, where starting one is not what is tested."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            capsys.readouterr()
            code = main(list(args))
        return subprocess.CompletedProcess(args, code, *capsys.readouterr())

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m stoker`` in ``tmp_path``; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*args: str, **more: str) -> subprocess.Popen[str]:
        process = launching.Popen(
            [sys.executable, "-m", "stoker", *args],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | more,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Trained(NamedTuple):
    """A training of 1,200 steps with evaluations at 600 and 1,200, and what the command line said."""

    root: Path
    run: Path
    line: dict[str, Any]
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One training for all tests that read a run; copy it to change it."""
    root = tmp_path_factory.mktemp("cli") / "runs"
    done = launching.run(
        [
            *(sys.executable, "-m", "stoker", "train", "CartPole-v1", "-n", "1200", "--runs-dir", str(root)),
            *(*SMALL, "--checkpoint-freq", "400", "--keep-checkpoints", "2"),
            *("--eval-freq", "600", "--eval-episodes", "3", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    return Trained(root, Path(line["run"]), line, done.stdout, done.stderr)
