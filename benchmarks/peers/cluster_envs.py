"""The environments that ``cluster.py`` gives to stoker and to its peers; needs nothing but Gymnasium."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np

LATENCY_S = 10e-3
BURN_S = 1e-3
EPISODE_STEPS = 200
OBSERVATIONS = np.random.default_rng(0).standard_normal((EPISODE_STEPS + 1, 4), np.float32)


class Waiting(gymnasium.Env[Any, Any]):
    """CartPole's spaces, 200 steps in an episode; each step waits for 10 ms."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, config: Any = None) -> None:
        del config  # RLlib gives one
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self._steps = 0
        return OBSERVATIONS[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        time.sleep(LATENCY_S)
        self._steps += 1
        return OBSERVATIONS[self._steps], 1.0, False, self._steps == EPISODE_STEPS, {}


class Burning(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Computes for a millisecond of processor time in each step."""

    def step(self, action: Any) -> Any:
        until = time.thread_time() + BURN_S
        while time.thread_time() < until:
            pass
        return super().step(action)


def burning(config: Any = None) -> gymnasium.Env[Any, Any]:
    """CartPole that computes."""
    del config
    return Burning(gymnasium.make("CartPole-v1", disable_env_checker=True))
