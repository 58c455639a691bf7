"""``kill -9`` on a group of two policies: a resume lets both stand at the joint step of the last commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from breaking import amount

import launching


def killed(root: Path, n_kills: int, seed: int) -> str:
    worker = Path(__file__).with_name("group_worker.py")
    process = launching.Popen(
        [sys.executable, str(worker), str(root), str(n_kills), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=60 + 5 * n_kills)
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def test_a_group_is_killed(tmp_path: Path) -> None:
    print("\n" + killed(tmp_path, 3, seed=0))


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_group_is_killed_often(tmp_path: Path) -> None:
    print("\n" + killed(tmp_path, amount("KILLS", 50), seed=1))
