"""Examples are run as a reader runs them: in a process of their own, for fewer steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Runs code with the examples importable and returns what it printed; warnings are errors."""

    def run(code: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(  # noqa: PLW1510 - the assertion below shows what went wrong
            [sys.executable, "-W", "error", "-c", code],
            cwd=cwd,
            env={
                "PYTHONPATH": f"{ROOT / 'examples'}{os.pathsep}{ROOT / 'src'}",
                "PATH": str(Path(sys.executable).parent),
            },
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def run_on_disk(tmp_path: Path) -> Callable[..., RunOnDisk]:
    """The only run below a directory, by default below ``runs`` in the test's own one."""
    return lambda runs_dir=tmp_path / "runs": only_run_in(runs_dir)
