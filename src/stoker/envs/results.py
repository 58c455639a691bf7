"""Checks and copies of what an environment returns, and the two methods that an environment may lack.

A value of the wrong form (four values, a reward of shape (1,), ``terminated="False"``) comes from the
environment's code and would come again: it is a ``ConfigError``. A value of the right form that nobody can
learn from (a NaN reward), or an exception, may be a passing failure: the environment is made again.
"""

from __future__ import annotations

import copy
import inspect
import re
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

__all__ = [
    "IMMUTABLE",
    "BatchResults",
    "Observations",
    "PassedOn",
    "Results",
    "ResultsWrapper",
    "check_reset_signature",
    "checked_extras",
    "close_of",
    "extras_of",
    "owned",
    "settled",
]

_ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
_FORMS = {
    "reset": (2, "two: observation, info (a dict)"),
    "step": (5, "five: observation, reward, terminated, truncated, info"),
}
"""How many values each call returns, and in words which."""
_NO_SUCH_ARGUMENT = re.compile(r"unexpected keyword argument '(seed|options)'")


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
    if value.__class__ in IMMUTABLE:  # by exact type: the value may be anything
        return value
    copied = _COPIERS.get(value.__class__)
    return _copied_object(value) if copied is None else copied(value)


def _copied_array(value: Any) -> Any:
    return copy.deepcopy(value) if value.dtype.hasobject else value.copy()


def _copied_object(value: Any) -> Any:
    kind: Any = value.__class__
    if issubclass(kind, tuple) and (make := getattr(cast("Any", kind), "_make", None)):  # a named one
        return make(map(owned, value))
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().clone()  # deepcopy refuses one that has a gradient history
    return copy.deepcopy(value)


_COPIERS: dict[type, Callable[[Any], Any]] = {
    np.ndarray: _copied_array,
    dict: lambda value: {key: owned(part) for key, part in value.items()},
    tuple: lambda value: tuple(map(owned, value)),
    list: lambda value: list(map(owned, value)),
    deque: lambda value: deque(map(owned, value), value.maxlen),
}


async def settled(result: Any) -> Any:
    """The result itself, awaited if it is awaitable."""
    # The exact type first: nearly every result is a plain tuple, and isawaitable costs more than that.
    if result.__class__ is not tuple and inspect.isawaitable(result):
        return await result
    return result


class Observations:
    """Checks an environment's observations against their space, and copies them.

    Args:
        space: of one observation; None: they are only copied.
        name: names the environment in messages.
    """

    def __init__(self, space: Any, name: str) -> None:
        self._space: Any = space
        self._name = name
        is_array = isinstance(space, _ARRAY_SPACES)
        self._shape: Any = space.shape if is_array else None
        self._dtype: Any = self._space.dtype if is_array else None
        self._fitting: set[str] = set()  # the calls that gave a fitting one before

    def take(self, value: Any, method: str) -> Any:
        """A copy of an observation from this method of the environment.

        Raises:
            ConfigError: It cannot be copied, or it does not fit the space, as none from this method has.
            InvalidExperience: It does not fit, but an earlier one did: a camera or a connection may have
                failed, and a new environment may work again.
        """
        if (  # nearly every observation: kept short, as this is done in each step
            value.__class__ is np.ndarray and value.shape == self._shape and value.dtype is self._dtype
        ):
            self._fitting.add(method)
            return value.copy()
        if (problem := _misfit(self._space, value, "an observation")) is not None:
            kind = InvalidExperience if method in self._fitting else ConfigError
            raise kind(
                f"{self._name}.{method} gave {problem}: Gymnasium's rule is that every observation is in "
                "observation_space; correct the one or the other"
            )
        self._fitting.add(method)
        try:
            return owned(value)
        except Exception as error:
            raise ConfigError(
                f"{self._name}.{method} gave an observation of type {type(value).__name__}, which cannot be "
                f"copied ({error}): give arrays, numbers, or lists, tuples and dicts of these"
            ) from error


class Results:
    """Checks and copies the results of one environment.

    Args:
        env: the environment.
        name: names it in messages.
    """

    _reward_type: type | None = float
    """The type of a reward that needs no conversion."""
    _flag_type: type | None = bool

    def __init__(self, env: Any, name: str) -> None:
        self._name = f"{name} ({type(getattr(env, 'unwrapped', env)).__name__})"
        self._observations = Observations(getattr(env, "observation_space", None), self._name)

    def given(self, action: Any) -> Any:
        """A copy of the action, which the environment may change."""
        return owned(action)

    def reset(self, result: Any) -> ResetResult:
        """The two values of a reset; the observation is a copy.

        Raises:
            ConfigError: They are not two, or one has the wrong form.
            InvalidExperience: See ``Observations.take``.
        """
        observation, info = self._values(result, "reset")
        info = info if info.__class__ is dict else self._info(info, "reset")
        return self._observations.take(observation, "reset"), info

    def step(self, result: Any) -> StepResult:
        """The five values of a step; the observation is a copy, the reward a float, the flags are bools.

        Raises:
            ConfigError: They are not five, or one has the wrong form.
            InvalidExperience: See ``Observations.take``.
        """
        observation, reward, terminated, truncated, info = self._values(result, "step")
        return (
            self._observations.take(observation, "step"),
            reward if type(reward) is self._reward_type else self._number("reward", reward),
            terminated if type(terminated) is self._flag_type else self._number("terminated", terminated),
            truncated if type(truncated) is self._flag_type else self._number("truncated", truncated),
            info if info.__class__ is dict else self._info(info, "step"),
        )

    def _values(self, result: Any, method: str) -> tuple[Any, ...]:
        count, words = _FORMS[method]
        if isinstance(result, tuple):
            values = cast("tuple[Any, ...]", result)
            if len(values) == count:
                return values
            given = f"{len(values)} value{'' if len(values) == 1 else 's'}"
        else:
            given = "None" if result is None else f"one value of type {type(result).__name__}"
        raise ConfigError(f"{self._name}.{method} returned {given}: Gymnasium's are {words}")

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

    def _info(self, value: Any, method: str) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return cast("Mapping[str, Any]", value)
        raise ConfigError(f"{self._name}.{method} returned info={shown(value)}: Gymnasium's info is a dict")


class BatchResults(Results):
    """Checks and copies the results of a vector environment: ``step`` returns lists of floats and bools."""

    _reward_type = _flag_type = None

    def __init__(self, env: Any) -> None:
        self._num_envs: int = env.num_envs
        super().__init__(env, f"vector environment of {env.num_envs}")

    def _number(self, name: str, value: Any) -> Any:
        """One number for each sub-environment."""
        if _shape_of(value) != (self._num_envs,):
            raise ConfigError(
                f"{self._name}.step returned {name}={shown(value)} of shape {_shape_of(value)}: it is one "
                f"value for each sub-environment, shape ({self._num_envs},)"
            )
        plain, convert = float if name == "reward" else bool, super()._number
        parts = value.tolist() if type(value) is np.ndarray else value
        return [part if type(part) is plain else convert(name, part) for part in parts]


class PassedOn:
    """Passes on the results of an environment that has checked and copied them itself."""

    def given(self, value: Any) -> Any:
        """The value itself."""
        return value

    reset = step = given


class ResultsWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A ``gymnasium.Env`` whose actions and results go through a ``Results`` or ``PassedOn``."""

    def __init__(self, env: gymnasium.Env[Any, Any], results: Results | PassedOn) -> None:
        super().__init__(env)
        self.results: Any = results

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``."""
        return self.results.reset(self.env.reset(seed=seed, options=options))

    def step(self, action: Any) -> Any:
        """See ``gymnasium.Env``."""
        return self.results.step(self.env.step(self.results.given(action)))


def check_reset_signature(error: TypeError, env: Any, name: str) -> None:
    """Raise a ``ConfigError`` if ``reset`` failed because it takes no ``seed`` or ``options``."""
    if (found := _NO_SUCH_ARGUMENT.search(str(error))) is not None:
        kind = type(getattr(env, "unwrapped", env)).__name__
        raise ConfigError(
            f"{name} ({kind}).reset takes no {found[1]!r} ({error}): Gymnasium's signature is "
            "reset(self, *, seed=None, options=None)"
        ) from error


def checked_extras(result: Any, name: str) -> dict[str, float]:
    """A copy of the result of ``episode_extras``.

    Raises:
        ConfigError: It is not a mapping.
    """
    if isinstance(result, Mapping):
        return dict(cast("Mapping[str, float]", result))
    raise ConfigError(
        f"{name}.episode_extras returned {shown(result)}: stoker needs a mapping of names to numbers"
    )


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


def _misfit(space: Any, value: Any, what: str) -> str | None:
    """The part of an observation that does not have its space's form, in words; None: there is none.

    Bounds and dtypes are not checked: many environments violate them, and the agent checks what it needs.
    """
    parts: Iterable[tuple[Any, Any, str]] = ()
    kind: type = space.__class__
    if issubclass(kind, _ARRAY_SPACES):
        shape = _shape_of(value)
        if shape != space.shape:
            return f"{what} {shown(value)} of shape {shape}, not {space.shape}"
    elif issubclass(kind, spaces.Dict):
        keys: list[str] = list(space)
        if not isinstance(value, Mapping) or set(cast("Any", value)) != set(keys):
            return f"{what} {shown(value)}, not a dict of {', '.join(map(repr, keys))}"
        parts = [(space[key], cast("Any", value)[key], f"{what} with {key!r} =") for key in keys]
    elif issubclass(kind, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(cast("Any", value)) != len(space.spaces):
            return f"{what} {shown(value)}, not a tuple of {len(space.spaces)}"
        parts = [(space[at], part, f"{what} with [{at}] =") for at, part in enumerate(cast("Any", value))]
    return next((problem for part in parts if (problem := _misfit(*part)) is not None), None)


def _shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, of a tensor, or of what numpy makes an array of; None: it has none."""
    try:
        return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
    except (TypeError, ValueError):
        return None
