"""Fakes for tests: an agent that records its calls, tiny environments, and environments that misbehave.

The plain environments are real ``gymnasium.Env`` and ``gymnasium.Wrapper`` objects: Gymnasium wraps,
registers and checks them like any other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import anyio
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.plain import shown
from stoker.types import ActMode, ActorId, Experience

Position = NDArray[np.float32]


class FakeAgent:
    """Records what it is given, in order, learns nothing, and answers each observation with one action.

    Args:
        action: the action.
        total_steps: the first value of its counter.
        fail_at: ``observe`` raises ``RuntimeError`` once the counter reaches this number.
        policy_extras: whether its policy gives each observation back as policy extras.
    """

    needs_policy_extras = False

    def __init__(
        self,
        action: Any = 0,
        *,
        total_steps: int = 0,
        fail_at: int | None = None,
        policy_extras: bool = False,
    ) -> None:
        self.action = action
        self.total_steps: int = total_steps
        self.fail_at = fail_at
        self.policy_extras = policy_extras
        self.experiences: list[Experience] = []
        self.learned_at: list[int] = []
        """``total_steps`` at each call of ``learn``."""
        self.started: list[ActorId] = []
        self.batch_sizes: list[int] = []
        """The number of observations of each forward pass."""

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """Answer each observation with the fixed action."""
        del mode
        self.batch_sizes.append(len(observations))
        return [self.action] * len(observations), list(observations) if self.policy_extras else None

    def policy(self) -> FakeAgent:
        """Itself: it has no parameters."""
        return self

    def publish(self, policy: Any) -> None:
        """Do nothing: the policy is the agent."""

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Record the transitions.

        Raises:
            RuntimeError: ``fail_at`` is reached.
        """
        self.experiences.extend(experiences)
        self.total_steps += len(experiences)
        if self.fail_at is not None and self.total_steps >= self.fail_at:
            raise RuntimeError(f"failed at {self.total_steps} steps, as set by fail_at")

    def learn(self) -> Mapping[str, float] | None:
        """Record ``total_steps``."""
        self.learned_at.append(self.total_steps)
        return {}

    def episode_extras(self, actor_id: ActorId) -> Mapping[str, float]:
        """``total_steps``, as ``seen``."""
        del actor_id
        return {"seen": float(self.total_steps)}

    def on_episode_start(self, actor_id: ActorId) -> None:
        """Record the actor."""
        self.started.append(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """The counter."""
        return {"total_steps": self.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counter.

        Raises:
            ConfigError: The state has no counter.
        """
        if "total_steps" not in state:
            raise ConfigError(f"{shown(state)} is not the state of a FakeAgent: give one with total_steps")
        self.total_steps = state["total_steps"]


class ChainEnv(gymnasium.Env[Position, Any]):
    """A walk along a chain of cells, from cell 0 to cell ``length``, where it terminates with reward 1.

    Observation: the cell, float32 [1]. Action 1 goes right, 0 goes left (in cell 0: stays). All other
    rewards are 0. An episode is truncated after ``4 * length`` steps. The best return is 1, in ``length``
    steps. The same seed and actions give the same episode.

    Args:
        length: how many steps right the goal is.
        slip: the probability that a step goes the other way, drawn from the seeded generator.

    Raises:
        ConfigError: The length is below 1, or slip is not a probability.
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
    """Raises ``RuntimeError("simulator crashed")`` in some steps, before it steps the wrapped environment.

    Steps are numbered from 1, over all episodes.

    Args:
        env: the wrapped environment.
        crash_at_steps: the numbers of the steps that crash.
        probability: the probability that any other step crashes.
        seed: seeds the generator of these crashes.
        steps: numbers the steps. Share one ``itertools.count(1)`` between an environment and its
            replacements, so that a replacement continues the count and does not crash again.

    Raises:
        ConfigError: The probability is not between 0 and 1.
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
            RuntimeError: This step crashes.
        """
        by_chance = self._probability > 0.0 and self._generator.random() < self._probability
        if next(self._numbers) in self._crash_at_steps or by_chance:
            raise RuntimeError("simulator crashed")
        return self.env.step(action)


class SlowEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Blocks its thread before each step, as a simulator does.

    Args:
        env: the environment.
        delay_s: the delay in seconds.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], delay_s: float) -> None:
        super().__init__(env)
        self._delay_s = delay_s

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment after the delay."""
        time.sleep(self._delay_s)
        return self.env.step(action)


class AsyncChainEnv:
    """A ``ChainEnv`` that is awaited, like an environment behind a network.

    Args:
        length: as for ``ChainEnv``.
        latency: the seconds that each reset and step takes; a function is called for each.
    """

    def __init__(self, length: int = 5, latency: Callable[[], float] | float = 0.0) -> None:
        self._chain = ChainEnv(length)
        self._latency = latency
        self.observation_space: Any = self._chain.observation_space
        self.action_space: Any = self._chain.action_space
        self.closed: bool = False

    async def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Position, dict[str, Any]]:
        """Go back to cell 0."""
        await self._travel()
        return self._chain.reset(seed=seed, options=options)

    async def step(self, action: Any) -> tuple[Position, float, bool, bool, dict[str, Any]]:
        """Go one cell; a cancelled step changes nothing."""
        await self._travel()
        return self._chain.step(action)

    async def close(self) -> None:
        """Record the call."""
        self.closed = True

    async def _travel(self) -> None:
        await anyio.sleep(self._latency() if callable(self._latency) else self._latency)


def _check_probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}={value} is not a probability: give a number from 0 to 1")
