"""Environments for the benchmark of scaling: their steps wait, compute or do nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

EPISODE_STEPS = 200
SPACES: dict[str, tuple[Any, Any]] = {
    "small": (gymnasium.spaces.Box(-10.0, 10.0, (4,), np.float32), gymnasium.spaces.Discrete(2)),
    "continuous": (
        gymnasium.spaces.Box(-10.0, 10.0, (17,), np.float32),
        gymnasium.spaces.Box(-1.0, 1.0, (6,), np.float32),
    ),
    "image": (gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8), gymnasium.spaces.Discrete(6)),
}


class Simulated(gymnasium.Env[Any, Any]):
    """Episodes of 200 steps with random observations.

    Args:
        kind: of its spaces.
        wait_s: how long a step waits.
        loops: how many turns of an empty loop a step computes.
    """

    def __init__(self, kind: str = "small", wait_s: float = 0.0, loops: int = 0) -> None:
        self.observation_space, self.action_space = SPACES[kind]
        generator = np.random.default_rng(0)
        shape = self.observation_space.shape or ()
        dtype = self.observation_space.dtype
        values = (
            generator.integers(0, 255, (16, *shape)) if kind == "image" else generator.random((16, *shape))
        )
        self._observations = values.astype(dtype)
        self._wait_s, self._loops, self._steps = wait_s, loops, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self._steps = 0
        return self._observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        for _ in range(self._loops):
            pass
        if self._wait_s:
            time.sleep(self._wait_s)
        self._steps += 1
        is_over = self._steps == EPISODE_STEPS
        return self._observations[self._steps % 16].copy(), 1.0, False, is_over, {}


@dataclass(frozen=True)
class Steps:
    """Makes them; picklable, and a name for tables."""

    kind: str = "small"
    wait_s: float = 0.0
    loops: int = 0

    def __call__(self) -> Simulated:
        return Simulated(self.kind, self.wait_s, self.loops)
