"""Environments to test actors, trainers and agents with: a tiny one, and ways in which real ones misbehave.

The plain ones are real ``gymnasium.Env`` and ``gymnasium.Wrapper`` objects, so they can be wrapped,
registered and checked like any other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import anyio
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from stoker.errors import ConfigError

__all__ = ["AsyncChainEnv", "ChainEnv", "CrashingEnv", "SlowEnv"]

Position = NDArray[np.float32]


class ChainEnv(gymnasium.Env[Position, Any]):
    """A walk along a chain of cells, from cell 0 to cell ``length``, where it terminates with reward 1.

    Observation: the cell, float32 [1]. Action 1 goes right, 0 goes left (in cell 0: stays). All other
    rewards are 0. An episode is truncated after ``4 * length`` steps. The best return is 1, in ``length``
    steps. The same seed and actions give the same episode.

    Args:
        length: how many steps right the goal is.
        slip: the probability that a step goes the other way, drawn from the seeded generator.

    Raises:
        ConfigError: The length is below 1, or slip is no probability.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, length: int = 5, *, slip: float = 0.0) -> None:
        if length < 1:
            raise ConfigError(f"length={length}: a chain has at least 1 step")
        _check_probability("slip", slip)
        self.length = length
        self.slip = slip
        self.observation_space = spaces.Box(0.0, float(length), (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._position = 0
        self._steps = 0
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Position, dict[str, Any]]:
        """Go back to cell 0."""
        super().reset(seed=seed, options=options)
        self._position = 0
        self._steps = 0
        self._running = True
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Position, float, bool, bool, dict[str, Any]]:
        """Go one cell.

        Raises:
            gymnasium.error.ResetNeeded: No episode is running.
            gymnasium.error.InvalidAction: The action is neither 0 nor 1.
        """
        if not self._running:
            raise ResetNeeded("no episode is running: call reset first")
        if not self.action_space.contains(action):
            raise InvalidAction(f"{action!r} is not an action of a chain: give 0 or 1")
        right = bool(action) != (self.slip > 0.0 and bool(self.np_random.random() < self.slip))
        self._position = self._position + 1 if right else max(self._position - 1, 0)
        self._steps += 1
        terminated = self._position == self.length
        truncated = not terminated and self._steps == 4 * self.length
        self._running = not (terminated or truncated)
        return self._observation(), float(terminated), terminated, truncated, {}

    def _observation(self) -> Position:
        return np.array([self._position], np.float32)


class CrashingEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises ``RuntimeError("simulator crashed")`` in some steps, before the wrapped environment sees them.

    Steps are numbered from 1 on, over all episodes.

    Args:
        env: the environment that would go on otherwise.
        crash_at_steps: the numbers of the steps that crash.
        probability: how likely any other step crashes.
        seed: seeds the generator for that.
        steps: gives each step its number. Share one ``itertools.count(1)`` between an environment and
            those that replace it, so that a remade one goes on counting and does not crash again.

    Raises:
        ConfigError: The probability is none.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        crash_at_steps: Collection[int] = (),
        *,
        probability: float = 0.0,
        seed: int = 0,
        steps: Iterator[int] | None = None,
    ) -> None:
        super().__init__(env)
        _check_probability("probability", probability)
        self._crash_at_steps = frozenset(crash_at_steps)
        self._probability = probability
        self._generator = np.random.default_rng(seed)
        self._numbers = itertools.count(1) if steps is None else steps

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, or crash.

        Raises:
            RuntimeError: This step was to crash.
        """
        by_chance = self._probability > 0.0 and self._generator.random() < self._probability
        if next(self._numbers) in self._crash_at_steps or by_chance:
            raise RuntimeError("simulator crashed")
        return self.env.step(action)


class SlowEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Blocks its thread before each step, as a simulator does.

    Args:
        env: the environment.
        delay_s: for how long, in seconds.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], delay_s: float) -> None:
        super().__init__(env)
        self._delay_s = delay_s

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, late."""
        time.sleep(self._delay_s)
        return self.env.step(action)


class AsyncChainEnv:
    """A ``ChainEnv`` that is awaited, as an environment behind a network is.

    Args:
        length: as for ``ChainEnv``.
        latency: how long each reset and step takes, in seconds; called anew for each if it can be.
    """

    def __init__(self, length: int = 5, latency: Callable[[], float] | float = 0.0) -> None:
        self._chain = ChainEnv(length)
        self._latency = latency
        self.observation_space = self._chain.observation_space
        self.action_space = self._chain.action_space
        self.closed = False

    async def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Position, dict[str, Any]]:
        """Go back to cell 0."""
        await self._travel()
        return self._chain.reset(seed=seed, options=options)

    async def step(self, action: Any) -> tuple[Position, float, bool, bool, dict[str, Any]]:
        """Go one cell; nothing has happened when this is cancelled."""
        await self._travel()
        return self._chain.step(action)

    async def close(self) -> None:
        """Say goodbye."""
        self.closed = True

    async def _travel(self) -> None:
        await anyio.sleep(self._latency() if callable(self._latency) else self._latency)


def _check_probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}={value} is no probability: give a number from 0 to 1")
