"""The spaces of an environment, as agents take them: shapes, dtypes, and the check of every input.

The checks run in the session's ``observe`` and ``act``, once per transition: an input that passes them can be
stored and learned from without a second look.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.types import Experience

__all__ = ["AgentSpaces", "BoxActions", "DiscreteActions", "is_float_box", "shown"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32 = np.dtype(np.float32)
_SHORT = 16
"""Numbers in a vector that are looked at one by one."""


class _OneLine(reprlib.Repr):
    """Short texts of values; arrays of several rows are put on one line, too."""

    def repr(self, x: Any) -> str:
        return " ".join(super().repr(x).split())


_one_line = _OneLine()
_one_line.maxother = 120  # an array is "other", and 30 characters would hide its values
shown = _one_line.repr


class DiscreteActions:
    """A Discrete space of ``n`` actions, the lowest of which is ``first``."""

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        self.n = int(space.n)
        self.first = int(space.start)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"n": self.n, "start": self.first}

    def check(self, action: Any) -> None:
        """Refuse an action that is not an integer of the space.

        Raises:
            InvalidExperience: The message names the action.
        """
        taken = f"give an int from {self.first} to {self.first + self.n - 1}"
        if not _is_integer(action):
            raise InvalidExperience(
                f"action {shown(action)} is a {type(action).__name__}, not an integer: {taken}"
            )
        if not 0 <= (index := int(action)) - self.first < self.n:
            raise InvalidExperience(f"action {index} is out of range: {taken}")


class BoxActions:
    """A Box of floats of any shape.

    Attributes:
        shape: of one action.
        dtype: of one action.
        low, high: the bounds, float64 ``[n]``.
        is_short: whether an action has few numbers.
    """

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        self.dtype = np.dtype(cast("Any", space).dtype.name)
        self.low = np.asarray(space.low, np.float64).reshape(-1)
        self.high = np.asarray(space.high, np.float64).reshape(-1)
        self.is_short = len(self.low) <= _SHORT

    @property
    def n(self) -> int:
        """How many numbers an action has."""
        return math.prod(self.shape)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self.shape)}

    def check(self, action: Any) -> None:
        """Refuse what is not an array of finite numbers of the space's shape.

        Raises:
            InvalidExperience: The message names the action.
        """
        if type(action) is np.ndarray and action.shape == self.shape and action.dtype.kind == "f":
            # A sum of finite numbers is finite, or the slow check clears it.
            total = sum(action.reshape(-1).tolist()) if self.is_short else float(action.sum(dtype=np.float64))
            if total - total == 0.0:
                return
        taken = f"give {self.dtype.name} {list(self.shape)}"
        try:
            array = np.asarray(action)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(f"action {shown(action)} is not an array ({error}): {taken}") from error
        if array.dtype.kind not in "iuf" or array.shape != self.shape:
            raise InvalidExperience(
                f"action {shown(action)} is {array.dtype} {list(array.shape)}, which does not fit: {taken}"
            )
        if not np.isfinite(array).all():
            raise InvalidExperience(f"action {shown(action)} is not finite: {taken}")


class AgentSpaces:
    """A Box of numbers to observe, and a Discrete set or a Box of floats to act in.

    Args:
        agent: its name in messages.
        observation_space: what it observes.
        actions: what it acts in.

    Attributes:
        actions: what it acts in.
        observation_shape: of one observation.
        observation_dtype: what observations are stored as: float32 for every kind of float, else the
            space's own.
        array_dtype: the same, as numpy's.

    Raises:
        ConfigError: The observation space is of another kind.
    """

    def __init__(
        self, agent: str, observation_space: gymnasium.Space[Any], actions: DiscreteActions | BoxActions
    ) -> None:
        if not isinstance(observation_space, gymnasium.spaces.Box) or 0 in observation_space.shape:
            raise ConfigError(
                f"{agent} cannot observe {observation_space}: it takes a Box with at least one number, of "
                "any shape and of floats, integers or bools (gymnasium.wrappers.FlattenObservation makes one "
                "of Discrete, MultiDiscrete, MultiBinary, Tuple and Dict spaces)"
            )
        self.actions: Any = actions
        dtype = np.dtype(cast("Any", observation_space).dtype.name)  # in this machine's byte order
        self.array_dtype = _FLOAT32 if dtype.kind == "f" else dtype
        self.observation_dtype = torch.as_tensor(np.empty(0, self.array_dtype)).dtype
        self.observation_shape: tuple[int, ...] = tuple(cast("Any", observation_space).shape)
        self._takes_floats = dtype.kind == "f"
        self._is_short = len(self.observation_shape) == 1 and self.observation_shape[0] <= _SHORT
        # An int from first to last needs no further check; with a Box there is none.
        is_discrete = isinstance(actions, DiscreteActions)
        self._first, self._last = (actions.first, actions.first + actions.n - 1) if is_discrete else (1, 0)

    def describe(self) -> dict[str, Any]:
        """The spaces in plain types, to be compared with those of a saved state."""
        return {
            "observation_space": {"shape": list(self.observation_shape), "dtype": self.array_dtype.name},
            "action_space": self.actions.describe(),
        }

    def stack(self, observations: Sequence[Any]) -> NDArray[Any]:
        """Checked observations as one array ``[B, *observation_shape]`` of the stored dtype."""
        rows = np.empty((len(observations), *self.observation_shape), self.array_dtype)
        for row, observation in enumerate(observations):
            rows[row] = observation
        return rows

    def check_observation(self, observation: Any, name: str = "observation") -> None:
        """Refuse what is not an array of finite numbers of the right shape.

        Raises:
            InvalidExperience: The message names the value and what is taken.
        """
        if type(observation) is np.ndarray and observation.shape == self.observation_shape:
            dtype = observation.dtype
            if not self._takes_floats:
                if dtype == self.array_dtype:
                    return
            elif dtype is _FLOAT32 and self._is_short:
                # The quickest way to look at a few numbers; a sum of floats cannot overflow a double.
                total = sum(observation.tolist())
                if total - total == 0.0:
                    return
            # One product instead of a look at each value. It overflows for some arrays that are fine, which
            # the slow check clears. vdot and float: dot, and a comparison in half precision, would warn.
            elif dtype.kind == "f" and float(np.vdot(observation, observation)) <= _FLOAT32_MAX:
                return
        self._check_unusual(observation, name)

    def check_experience(self, experience: Experience) -> None:
        """Refuse a transition that could not be stored as it is.

        Raises:
            InvalidExperience: An observation, the action or the reward is unfit; the message names it.
        """
        self.check_observation(experience.observation)
        self.check_observation(experience.next_observation, "next_observation")
        action = experience.action
        if type(action) is not int or not self._first <= action <= self._last:
            self.actions.check(action)
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(
                f"reward {shown(reward)} is a {type(reward).__name__}, not a number: give a float"
            )
        if not -_FLOAT32_MAX <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward {reward!r} is not finite as float32: scale or clip rewards")

    def _check_unusual(self, observation: Any, name: str) -> None:
        """The same check for anything numpy can read, and the search for what is wrong with it."""
        taken = f"give {self.array_dtype.name} {list(self.observation_shape)}"
        try:
            array = np.asarray(observation)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(
                f"{name} {shown(observation)} is not an array ({error}): {taken}"
            ) from error
        if array.dtype.kind not in ("biuf" if self._takes_floats else "biu"):
            raise InvalidExperience(
                f"{name} {shown(observation)} has dtype {array.dtype}, which does not fit: {taken}"
            )
        if array.shape != self.observation_shape:
            raise InvalidExperience(f"{name} {shown(observation)} has shape {list(array.shape)}: {taken}")
        low, high = self._limits()
        # A half-precision array would be compared with limits cut to infinity.
        exact = array.astype(np.float64) if array.dtype.kind == "f" else array
        fits = (exact >= low) & (exact <= high)  # False for NaN too
        if not fits.all():
            where = np.unravel_index(int(np.argmin(fits)), array.shape)
            place = f"{name}[{', '.join(str(int(index)) for index in where)}]" if where else name
            raise InvalidExperience(
                f"{place} is {array[where]}: {taken}, each value finite and from {low:g} to {high:g}"
            )

    def _limits(self) -> tuple[float, float]:
        if self._takes_floats:
            return -_FLOAT32_MAX, _FLOAT32_MAX
        if self.array_dtype.kind == "b":
            return 0, 1
        limits = np.iinfo(self.array_dtype.name)
        return int(limits.min), int(limits.max)


def is_float_box(space: gymnasium.Space[Any]) -> bool:
    """Whether the space is a Box of floats."""
    return isinstance(space, gymnasium.spaces.Box) and np.issubdtype(cast("Any", space).dtype, np.floating)


def _is_integer(action: Any) -> bool:
    if isinstance(action, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[Any]]", action)
        return array.shape == () and array.dtype.kind in "iu"
    return isinstance(action, (int, np.integer)) and not isinstance(action, bool)
