"""Examples are run as a reader runs them: in a process of their own, for fewer steps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import launching

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), str(ROOT / "src")]),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
}
"""Of a reader's process: the examples and this very stoker can be imported, whatever is installed."""

START_S = 60.0
STOP_S = 30.0


class RunOnDisk:
    """A run directory as another program sees it: json, jsonl, torch.load, and nothing of stoker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metadata: dict[str, Any] = json.loads((directory / "metadata.json").read_text())
        self.rows: list[dict[str, Any]] = [
            json.loads(line) for line in (directory / "train_episodes.jsonl").read_text().splitlines()
        ]

    def checkpoint(self, name: str = "latest.pt") -> dict[str, Any]:
        return torch.load(self.directory / "checkpoints" / name, weights_only=True)


def only_run_in(runs_dir: Path) -> RunOnDisk:
    found = list(runs_dir.glob("*/*/*/metadata.json"))
    assert len(found) == 1, found
    return RunOnDisk(found[0].parent)


@contextmanager
def serving(code: str, directory: Path, *, logs: str | None = None) -> Iterator[str]:
    """The address of a web service in a process of its own, stopped as a service manager stops it.

    Its log must hold ``logs`` at the end, or no traceback.
    """
    server = launching.Popen(
        [sys.executable, "-c", code], cwd=directory, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(START_S + 2 * STOP_S, server.kill)
    watchdog.start()
    log: list[str] = []
    try:
        assert server.stderr is not None
        for line in server.stderr:  # ends when the process does
            log.append(line)
            if address := re.search(r"running on (http://[\d.]+:\d+)", line):
                break
        else:
            pytest.fail("the service did not start:\n" + "".join(log))
        rest = threading.Thread(target=lambda: log.extend(server.stderr or ()), daemon=True)
        rest.start()
        yield address[1]
        server.send_signal(signal.SIGTERM)
        code_at_end = server.wait(STOP_S)
        rest.join(STOP_S)
        assert code_at_end in (0, -signal.SIGTERM), "".join(log)
        said = "".join(log)
        assert "Traceback" not in said if logs is None else logs in said, said
    finally:
        watchdog.cancel()
        server.kill()
        server.wait(STOP_S)
        if server.stderr is not None:
            server.stderr.close()


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[str]]:
    return serving


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return ENVIRONMENT


@pytest.fixture
def root() -> Path:
    return ROOT


def run_code(code: str, cwd: Path) -> str:
    """Run code with the examples importable and return what it printed; warnings are errors."""
    done = launching.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def run_python_in() -> Callable[[str, Path], str]:
    return run_code


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[[str], str]:
    return lambda code: run_code(code, tmp_path)


@pytest.fixture
def run_on_disk(tmp_path: Path) -> Callable[..., RunOnDisk]:
    """The only run below a directory, by default below ``runs`` in the test's own one."""
    return lambda runs_dir=tmp_path / "runs": only_run_in(runs_dir)
