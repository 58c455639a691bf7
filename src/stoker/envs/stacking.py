"""Frame stacking: the last n observations as one, as Mnih et al. (2015) gave DQN the last 4 screens.

Padding and axes are those of Gymnasium's ``FrameStackObservation``. Unlike it, this copies each frame at
once, so that an environment may write all observations into one array, and works for async environments too.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from stoker.envs.results import Observations
from stoker.errors import ConfigError

__all__ = ["FrameStack", "stack_frames"]


class FrameStack:
    """The last n observations of one stream of episodes.

    Args:
        n: how many, at least 1.
        space: of one observation; None: observations are arrays.
        name: names the environment in messages.

    Raises:
        ConfigError: n is below 1, or such observations cannot be stacked.
    """

    def __init__(self, n: int, space: spaces.Space[Any] | None, name: str = "env") -> None:
        _check_number(n)
        self._n = n
        self._space = space
        self._observations = Observations(space, name)
        self._frames: deque[Any] = deque(maxlen=n)
        try:
            self.space = None if space is None else batch_space(space, n)
            """Of a stack; None if that of one observation is not known."""
        except (TypeError, ValueError) as error:
            raise ConfigError(f"observations of {space} cannot be stacked: {error}") from error

    def begin(self, observation: Any) -> Any:
        """The stack at an episode's beginning: the first observation n times.

        Raises:
            ConfigError, InvalidExperience: The observation does not fit its space.
        """
        self._frames.extend([self._observations.take(observation, "reset")] * self._n)
        return self._stack()

    def push(self, observation: Any) -> Any:
        """The stack with the next observation, which comes last; shape ``[n, *observation_shape]``.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
            ConfigError, InvalidExperience: The observation does not fit its space.
        """
        if not self._frames:
            raise ResetNeeded("no episode has begun: call reset before step")
        self._frames.append(self._observations.take(observation, "step"))
        return self._stack()

    def _stack(self) -> Any:
        if self._space is None:
            return np.stack(self._frames)
        empty: Any = create_empty_array(self._space, self._n)
        return concatenate(self._space, self._frames, empty)


def stack_frames(factory: Callable[[], Any], n: int) -> Callable[[], Any]:
    """A factory of the same environments with stacks of the last n observations.

    A ``gymnasium.Env`` stays one, and an async environment stays recognizable as async.

    Args:
        factory: makes an environment, plain or async; may itself be async.
        n: how many observations.

    Raises:
        ConfigError: n is below 1; or later, by the factory: such observations cannot be stacked.
    """
    _check_number(n)
    # Of this module, so that a factory which can be sent to another process still can be.
    return partial(_make_awaited if inspect.iscoroutinefunction(factory) else _make, factory, n)


def _make(factory: Callable[[], Any], n: int) -> Any:
    made = factory()
    if inspect.isawaitable(made):
        return _later(made, lambda env: _with_stacks(env, n))
    return _with_stacks(made, n)


async def _make_awaited(factory: Callable[[], Any], n: int) -> Any:
    return _with_stacks(await factory(), n)


class _StackedGym(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A ``gymnasium.Env`` with stacks."""

    def __init__(self, env: gymnasium.Env[Any, Any], n: int) -> None:
        super().__init__(env)
        self._frames = FrameStack(n, env.observation_space, type(env.unwrapped).__name__)
        self.observation_space = cast("Any", self._frames.space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        return _first_replaced(self.env.reset(seed=seed, options=options), self._frames.begin)

    def step(self, action: Any) -> Any:
        return _first_replaced(self.env.step(action), self._frames.push)


class _StackedPlain:
    """Any other environment with stacks; other attributes are those of the environment."""

    def __init__(self, env: Any, n: int) -> None:
        self._env = env
        self._frames = FrameStack(n, getattr(env, "observation_space", None), type(env).__name__)
        self.observation_space: Any = self._frames.space
        self.unwrapped: Any = getattr(env, "unwrapped", env)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not before it is made, nor of what is private to the environment
            raise AttributeError(name)
        return getattr(self._env, name)

    def reset(self, **settings: Any) -> Any:
        return self._replaced(self._env.reset(**settings), self._frames.begin)

    def step(self, action: Any) -> Any:
        return self._replaced(self._env.step(action), self._frames.push)

    def _replaced(self, result: Any, stack: Callable[[Any], Any]) -> Any:
        # A decorated async step does not look like one, but gives what is to be awaited.
        if inspect.isawaitable(result):
            return _later(result, lambda settled: _first_replaced(settled, stack))
        return _first_replaced(result, stack)


class _StackedAsync(_StackedPlain):
    """The same for one that is recognized as async by its ``step``."""

    async def reset(self, **settings: Any) -> Any:
        return _first_replaced(await self._env.reset(**settings), self._frames.begin)

    async def step(self, action: Any) -> Any:
        return _first_replaced(await self._env.step(action), self._frames.push)


def _with_stacks(env: Any, n: int) -> Any:
    if isinstance(env, VectorEnv | type) or not callable(getattr(env, "step", None)):
        return cast("Any", env)  # not an environment: the caller refuses it with a message
    if inspect.iscoroutinefunction(env.step):
        return _StackedAsync(env, n)
    if isinstance(env, gymnasium.Env):
        return _StackedGym(cast("gymnasium.Env[Any, Any]", env), n)
    return _StackedPlain(env, n)


def _first_replaced(result: Any, stack: Callable[[Any], Any]) -> Any:
    """The values of reset or step with a stack as the observation; malformed ones are refused later."""
    if isinstance(result, tuple) and len(cast("tuple[Any, ...]", result)) in (2, 5):
        values = cast("tuple[Any, ...]", result)
        return (stack(values[0]), *values[1:])
    return cast("Any", result)


async def _later(result: Awaitable[Any], then: Callable[[Any], Any]) -> Any:
    return then(await result)


def _check_number(n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"cannot stack n={n!r} observations: give a whole number of at least 1")
