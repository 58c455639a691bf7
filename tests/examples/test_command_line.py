"""``stoker train`` on environments that are not CartPole: other spaces of Gymnasium."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

TAXI = max(name for name in gymnasium.registry if name.startswith("Taxi-v"))  # its version is Gymnasium's
CASES = [
    pytest.param([TAXI], id="taxi"),
    pytest.param(["FrozenLake-v1", "--agent", "ppo", "--rollout-steps", "128"], id="frozen lake"),
    pytest.param(["Blackjack-v1"], id="blackjack"),
]


@pytest.mark.parametrize("words", CASES)
def test_it_trains_is_resumed_and_evaluated(words: list[str], tmp_path: Path, environment: Any) -> None:
    def stoker(*args: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "stoker", *args, "--json"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    shorter = ["--num-envs", "2", "--eval-freq", "0", "--opt-interval", "8", "--name", "short"]
    assert stoker("train", *words, "-n", "300", *shorter)["total_steps"] == 300
    assert stoker("resume", "runs/short", "-n", "400")["total_steps"] == 400
    assert stoker("eval", "runs/short", "--episodes", "2")["n_episodes"] == 2
