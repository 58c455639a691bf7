"""Does it train well? CartPole through the command that a user types; ``test_presets`` has the long forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def trained(runs_dir: Path, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "stoker", "train", "CartPole-v1", "--json", "--no-progress", *flags]
    done = subprocess.run(
        [*command, "--runs-dir", str(runs_dir)], capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_gets_better_within_seconds(tmp_path: Path) -> None:
    """A random policy balances the pole for about 22 steps."""
    result = trained(tmp_path, "-n", "6000", "--seed", "3", "--eval-freq", "2000")
    assert result["total_steps"] == 6000
    assert result["best_eval_reward"] >= 80
