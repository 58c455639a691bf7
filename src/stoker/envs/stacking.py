"""Frame stacking: the last n observations as one, as Mnih et al. (2015) gave DQN the last 4 screens.

Padding and axes are those of Gymnasium's ``FrameStackObservation``. Unlike it, this copies each frame at
once, so that an environment may write all observations into one array, and works for async environments too.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from stoker.envs.results import Results, ResultsWrapper, owned, then
from stoker.errors import ConfigError


class _FrameStack(Results):
    """Checks results, and stacks their observations: ``[n, *observation_shape]``, the newest one last.

    The stack at an episode's beginning is the first observation n times.
    """

    def __init__(self, env: Any, n: int) -> None:
        super().__init__(env, "stacked env")
        self._n = n
        self._frames: deque[Any] = deque(maxlen=n)
        try:
            self.space: Any = None if self._space is None else batch_space(self._space, n)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"observations of {self._space} cannot be stacked: {error}") from error

    def taken(self, observation: Any, method: str) -> Any:
        frame = super().taken(observation, method)
        if method == "reset":
            self._frames.extend([frame] * self._n)
        elif self._frames:
            self._frames.append(frame)
        else:
            raise ResetNeeded("no episode has begun: call reset before step")
        if self._space is None:
            return np.stack(self._frames)
        stack: Any = concatenate(self._space, self._frames, create_empty_array(self._space, self._n))
        # of a Graph or Sequence space the frames themselves, which the next stack holds too
        return stack if stack.__class__ is np.ndarray else owned(stack)


def stack_frames(factory: Callable[[], Any], n: int) -> Callable[[], Any]:
    """A factory of the same environments with stacks of the last n observations.

    A ``gymnasium.Env`` stays one, and an async environment stays recognizable as async.

    Args:
        factory: makes an environment, plain or async; may itself be async.
        n: how many observations.

    Raises:
        ConfigError: n is below 1; or later, by the factory: such observations cannot be stacked.
    """
    if isinstance(cast("Any", n), bool) or not isinstance(cast("Any", n), int) or n < 1:
        raise ConfigError(f"cannot stack n={n!r} observations: give a whole number of at least 1")
    # Of this module, so that a factory which can be sent to another process still can be.
    return partial(_make_awaited if inspect.iscoroutinefunction(factory) else _make, factory, n)


def _make(factory: Callable[[], Any], n: int) -> Any:
    return then(factory(), partial(_with_stacks, n=n))


async def _make_awaited(factory: Callable[[], Any], n: int) -> Any:
    return _with_stacks(await factory(), n)


def _with_stacks(env: Any, n: int) -> Any:
    if isinstance(env, VectorEnv | type) or not callable(getattr(env, "step", None)):
        return cast("Any", env)  # not an environment: the player refuses it
    if inspect.iscoroutinefunction(env.step):
        return _StackedAsync(env, n)
    if not isinstance(env, gymnasium.Env):
        return _Stacked(env, n)
    frames = _FrameStack(env, n)
    wrapped = ResultsWrapper(cast("gymnasium.Env[Any, Any]", env), frames)
    wrapped.observation_space = frames.space
    return wrapped


class _Stacked:
    """An environment with stacks that is not a ``gymnasium.Env``; other attributes are the environment's."""

    checks_results = True

    def __init__(self, env: Any, n: int) -> None:
        self._env = env
        self._frames = _FrameStack(env, n)
        self.observation_space: Any = self._frames.space
        self.unwrapped: Any = getattr(env, "unwrapped", env)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not before it is made, nor of what is private to the environment
            raise AttributeError(name)
        return getattr(self._env, name)

    def reset(self, **settings: Any) -> Any:
        return then(self._env.reset(**settings), self._frames.reset)

    def step(self, action: Any) -> Any:
        return then(self._env.step(self._frames.given(action)), self._frames.step)


class _StackedAsync(_Stacked):
    """The same, recognizable as async by its ``step``."""

    async def step(self, action: Any) -> Any:
        return await super().step(action)
