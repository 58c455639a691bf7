"""Checks and copies of what an environment returns, and the two methods that an environment may lack.

A value of the wrong form (four values, a reward of shape (1,), ``terminated="False"``) comes from the
environment's code and would come again: it is a ``ConfigError``. A value of the right form that nobody can
learn from (a NaN reward), or an exception, may be a passing failure: the environment is made again.
"""

from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces

from stoker.envs.protocol import ResetResult, StepResult
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import as_float, shown

_log = logging.getLogger(__name__)

ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
"""Spaces whose values are arrays or numbers of one shape, and together an array ``[N, *shape]``."""

_FORMS = {
    "reset": (2, "are two: observation, info (a dict)"),
    "step": (5, "are five: observation, reward, terminated, truncated, info"),
}
"""How many values each call returns, and in words which."""


IMMUTABLE: frozenset[type] = frozenset(
    (bool, int, float, complex, str, bytes, type(None), *np.sctypeDict.values())
) - {np.object_, np.void}
"""Types whose values are handed out as they are."""


def owned(value: Any) -> Any:
    """A copy of an observation or action, nested containers included.

    An environment may write its next observation into the array, list, deque or dict that held the last one,
    and may change an action in place; that cannot be seen from outside, so everything mutable is copied.

    Raises:
        Exception: Whatever ``copy.deepcopy`` raises for an object that cannot be copied.
    """
    kind: Any = value.__class__  # the exact type: the value may be anything
    if kind in IMMUTABLE:
        return value
    if kind is np.ndarray:
        return copy.deepcopy(value) if value.dtype.hasobject else value.copy()
    if kind is dict:
        return {key: owned(part) for key, part in value.items()}
    if kind is tuple:
        return tuple(map(owned, value))
    if kind is list:
        return list(map(owned, value))
    if kind is deque:
        return deque(map(owned, value), value.maxlen)
    if issubclass(kind, tuple) and (make := getattr(cast("Any", kind), "_make", None)):  # a named one
        return make(map(owned, value))
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().clone()  # deepcopy refuses one that has a gradient history
    return copy.deepcopy(value)


async def settled(result: Any) -> Any:
    """The result itself, awaited if it is awaitable."""
    # The exact type first: nearly every result is a plain tuple, and isawaitable costs more than that.
    if result.__class__ is not tuple and inspect.isawaitable(result):
        return await result
    return result


def then(result: Any, function: Callable[[Any], Any]) -> Any:
    """The function of a result; of an awaitable one, a coroutine of it."""
    if result.__class__ is tuple or not inspect.isawaitable(result):
        return function(result)

    async def later() -> Any:
        return function(await result)

    return later()


class Results:
    """Checks and copies the results of one environment.

    Args:
        env: the environment.
        name: names it in messages.
    """

    def __init__(self, env: Any, name: str) -> None:
        self._name = f"{name} ({type(getattr(env, 'unwrapped', env)).__name__})"
        self._space: Any = getattr(env, "observation_space", None)
        is_array = isinstance(self._space, ARRAY_SPACES)
        self._shape: Any = self._space.shape if is_array else None
        self._dtype: Any = self._space.dtype if is_array else None
        self._fitting: set[str] = set()  # the calls that gave a fitting observation before

    def given(self, action: Any) -> Any:
        """A copy of the action, which the environment may change."""
        return owned(action)

    def reset(self, result: Any) -> ResetResult:
        """The two values of a reset; the observation is a copy.

        Raises:
            ConfigError: They are not two, or one has the wrong form.
            InvalidExperience: The observation does not fit its space, but an earlier one did.
        """
        observation, info = self._values(result, "reset")
        return self.taken(observation, "reset"), info

    def step(self, result: Any) -> StepResult:
        """The five values of a step; the observation is a copy, the reward a float, the flags are bools.

        Raises:
            ConfigError: They are not five, or one has the wrong form.
            InvalidExperience: The observation does not fit its space, but an earlier one did.
        """
        if result.__class__ is tuple and len(result) == _FORMS["step"][0]:
            observation, reward, terminated, truncated, info = result
            if (  # nearly every step of one environment
                reward.__class__ is float
                and terminated.__class__ is bool
                and truncated.__class__ is bool
                and info.__class__ is dict
            ):
                return self.taken(observation, "step"), reward, terminated, truncated, info
        observation, reward, terminated, truncated, info = self._values(result, "step")
        return (
            self.taken(observation, "step"),
            self._number("reward", reward),
            self._number("terminated", terminated),
            self._number("truncated", truncated),
            info,
        )

    def goes_on(self, result: Any) -> bool:
        """Whether this is what ``step`` returns for it but for the copy, and ends no episode."""
        if result.__class__ is not tuple or len(result) != _FORMS["step"][0]:
            return False
        observation, reward, terminated, truncated, info = result
        if (  # nearly every step: kept short, as this is done for each part of a vector environment
            terminated is False
            and truncated is False
            and reward.__class__ is float
            and info.__class__ is dict
            and observation.__class__ is np.ndarray
            and observation.shape == self._shape
            and observation.dtype is self._dtype
        ):
            self._fitting.add("step")
            return True
        return False

    def taken(self, observation: Any, method: str) -> Any:
        """A copy of an observation from this method of the environment.

        Raises:
            ConfigError: It cannot be copied, or it does not fit the space, as none from this method has.
            InvalidExperience: It does not fit, but an earlier one did: a camera or a connection may have
                failed, and a new environment may work again.
        """
        if (  # nearly every observation: kept short, as this is done in each step
            observation.__class__ is np.ndarray
            and observation.shape == self._shape
            and observation.dtype is self._dtype
        ):
            self._fitting.add(method)
            return observation.copy()
        if (problem := _misfit(self._space, observation, "an observation")) is not None:
            kind = InvalidExperience if method in self._fitting else ConfigError
            raise kind(
                f"{self._name}.{method} gave {problem}: Gymnasium's rule is that every observation is in "
                "observation_space; correct the one or the other"
            )
        self._fitting.add(method)
        try:
            return owned(observation)
        except Exception as error:
            raise ConfigError(
                f"{self._name}.{method} gave an observation of type {type(observation).__name__}, which "
                f"cannot be copied ({error}): give arrays, numbers, or lists, tuples and dicts of these"
            ) from error

    def _values(self, result: Any, method: str) -> tuple[Any, ...]:
        count, rule = _FORMS[method]
        values = cast("tuple[Any, ...]", result)
        if not isinstance(result, tuple):
            given = "None" if result is None else f"one value of type {type(result).__name__}"
        elif len(values) != count:
            given = f"{len(values)} value{'' if len(values) == 1 else 's'}"
        else:
            info = values[-1]
            if info.__class__ is dict or isinstance(info, Mapping):
                return values
            given, rule = f"info={shown(info)}", "info is a dict"
        raise ConfigError(f"{self._name}.{method} returned {given}: Gymnasium's {rule}")

    def _number(self, name: str, value: Any) -> Any:
        """A reward as a float, a flag as a bool."""
        if name == "reward":
            if (reward := as_float(value)) is not None:
                return reward
            rule = "one number (a float)"
        else:
            if getattr(value, "shape", ()) == () and bool(value in (0, 1)):
                return bool(value)
            rule = "True or False"
        raise ConfigError(f"{self._name}.step returned {name}={shown(value)}: Gymnasium's {name} is {rule}")


class BatchResults(Results):
    """Checks and copies the results of a vector environment.

    ``step`` returns a float64 array of rewards and two bool arrays of flags, ``[num_envs]`` each.
    """

    def __init__(self, env: Any) -> None:
        self._num_envs: int = env.num_envs
        super().__init__(env, f"vector environment of {env.num_envs}")

    def _number(self, name: str, value: Any) -> Any:
        """One number for each sub-environment."""
        kind, kinds = (np.float64, "fiu") if name == "reward" else (np.bool_, "b")
        is_array = value.__class__ is np.ndarray
        if is_array and value.shape == (self._num_envs,) and value.dtype.kind in kinds:
            return value.astype(kind)  # a copy: the environment may write its next ones into this one
        if _shape_of(value) != (self._num_envs,):
            raise ConfigError(
                f"{self._name}.step returned {name}={shown(value)} of shape {_shape_of(value)}: it is one "
                f"value for each sub-environment, shape ({self._num_envs},)"
            )
        convert = super()._number
        return np.array([convert(name, part) for part in (value.tolist() if is_array else value)], kind)


class PassedOn:
    """Passes on the results of an environment that has checked and copied them itself."""

    def given(self, value: Any) -> Any:
        """The value itself."""
        return value

    reset = step = given


class ResultsWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A ``gymnasium.Env`` whose results are checked and copied."""

    checks_results = True

    def __init__(self, env: gymnasium.Env[Any, Any], results: Results) -> None:
        super().__init__(env)
        self._results = results

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``."""
        return self._results.reset(self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        if action.__class__ not in IMMUTABLE:
            action = self._results.given(action)
        return self._results.step(self.env.step(action))


class PartWrapper(ResultsWrapper):
    """The same for a part of a ``SyncVectorEnv``, which copies what its parts return in each step.

    It does so after it may have reset a part, so where an episode ends there is a copy.
    """

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        result = self.env.step(action)
        return result if self._results.goes_on(result) else self._results.step(result)


def extras_of(env: Any) -> Any:
    """Call ``episode_extras`` of the environment, or of the nearest one below its wrappers; else ``{}``."""
    if hasattr(env, "has_wrapper_attr"):
        # Gymnasium's wrappers hide the attributes of what they wrap, except when asked in this way.
        extras = env.get_wrapper_attr("episode_extras") if env.has_wrapper_attr("episode_extras") else None
    else:
        extras = getattr(env, "episode_extras", None)
    return {} if extras is None else extras()


def close_of(env: Any) -> Any:
    """Call ``close`` of the environment if it has one."""
    close = getattr(env, "close", None)
    return None if close is None else close()


def close_unused(env: Any) -> None:
    """Close an environment that was made and not used, without an event loop.

    The ``close`` of an async one is not awaited: it has nothing to end. An error of ``close`` is logged.
    """
    try:
        closing = close_of(env)
        if inspect.iscoroutine(closing):
            closing.close()
    except Exception:  # noqa: BLE001 - logged
        _log.exception("closing a %s failed", type(env).__name__)


def _misfit(space: Any, value: Any, what: str) -> str | None:
    """The part of an observation that does not have its space's form, in words; None: there is none.

    Bounds and dtypes are not checked: many environments violate them, and the agent checks what it needs.
    """
    parts: Iterable[tuple[Any, Any, Any]] = ()
    kind: type = space.__class__
    if issubclass(kind, ARRAY_SPACES):
        shape = _shape_of(value)
        if shape != space.shape:
            return f"{what} {shown(value)} of shape {shape}, not {space.shape}"
    elif issubclass(kind, spaces.Dict):
        inner = space.spaces
        if not isinstance(value, Mapping) or cast("Any", value).keys() != inner.keys():
            return f"{what} {shown(value)}, not a dict of {', '.join(map(repr, inner))}"
        parts = [(each, cast("Any", value)[key], key) for key, each in inner.items()]
    elif issubclass(kind, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(cast("Any", value)) != len(space.spaces):
            return f"{what} {shown(value)}, not a tuple of {len(space.spaces)}"
        parts = [(space[at], part, [at]) for at, part in enumerate(cast("Any", value))]
    for each, part, place in parts:
        if _misfit(each, part, what) is not None:  # its place is only put into words if it is wrong
            return _misfit(each, part, f"{what} with {place!r} =")
    return None


def _shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, of a tensor, or of what numpy makes an array of; None: it has none."""
    try:
        return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
    except (TypeError, ValueError):
        return None
