"""``stoker train`` on environments that are not CartPole: other spaces of Gymnasium, and images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import launching

# As a user's own module in the working directory: a Dict and an image environment.
OWN_ENVIRONMENTS = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict, Discrete

class Rooms(gymnasium.Env):
    observation_space = Dict({"room": Discrete(3), "way": Box(-1.0, 1.0, (2,), np.float32)})
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        return self.seen(), float(action), self.steps == 10, False, {}

    def seen(self):
        numbers = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"room": int(self.np_random.integers(3)), "way": numbers}

class Frames(Rooms):
    observation_space = Box(0, 255, (36, 36), np.uint8)

    def seen(self):
        return self.np_random.integers(0, 256, (36, 36), dtype=np.uint8)

gymnasium.register("Rooms-v0", entry_point=Rooms)
gymnasium.register("Frames-v0", entry_point=Frames)
"""

TAXI = max(name for name in gymnasium.registry if name.startswith("Taxi-v"))  # its version is Gymnasium's
CASES = [
    pytest.param([TAXI], id="taxi"),
    pytest.param(["FrozenLake-v1"], id="frozen lake"),
    pytest.param(["Blackjack-v1", "--agent", "ppo", "--rollout-steps", "128"], id="blackjack"),
    pytest.param(["Rooms-v0", "--import", "own"], id="dict"),
    pytest.param(
        ["Frames-v0", "--import", "own", "--learning-starts", "64", "--batch-size", "8"], id="images"
    ),
    pytest.param(["own:Rooms"], id="a class of a module"),
]


@pytest.mark.parametrize("words", CASES)
def test_it_trains_is_resumed_and_evaluated(words: list[str], tmp_path: Path, environment: Any) -> None:
    (tmp_path / "own.py").write_text(OWN_ENVIRONMENTS)

    def stoker(*args: str) -> dict[str, Any]:
        done = launching.run(
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
    if words[0] in (TAXI, "Rooms-v0"):
        assert stoker("resume", "runs/short", "-n", "400")["total_steps"] == 400
    assert stoker("eval", "runs/short", "--episodes", "2")["n_episodes"] == 2
