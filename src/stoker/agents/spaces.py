"""The spaces of an environment, as agents take them: shapes, dtypes, and the check of every input.

The checks run in the session's ``observe`` and ``act``, once per transition: an input that passes them can be
stored and learned from without a second look.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.nested import is_same
from stoker.plain import shown
from stoker.replay import ArraySpec
from stoker.types import Experience, ExperienceBatch

__all__ = ["AgentSpaces", "ArrayValues", "BoxActions", "DiscreteActions"]

_FLOAT32_MIN, _FLOAT32_MAX = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
_ARRAY: type[Any] = np.ndarray
_SHORT = 16
"""The greatest length of a vector whose numbers are summed one by one, which is then faster."""


class ArrayValues:
    """Arrays of one shape: the values of a Box.

    Args:
        space: the Box.
        dtype: what they are stored as.
        kinds: the kinds of dtype, by numpy's letters, that they may come in.

    Attributes:
        shape: of one array.
        size: how many numbers an array has.
        dtype: what they are stored as.
    """

    def __init__(self, space: Box, dtype: np.dtype[Any], kinds: str) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        self.size = math.prod(self.shape)
        self.dtype = dtype
        self._kinds = kinds
        self._takes_floats = dtype.kind == "f"
        self._low, self._high = _limits(dtype)
        self.is_short = self._takes_floats and len(self.shape) == 1 and self.size <= _SHORT
        """Whether the sum of an array's numbers, one by one, is the quickest way to look at them."""

    @property
    def spec(self) -> ArraySpec:
        """How a replay holds one."""
        return ArraySpec(torch.as_tensor(np.empty(0, self.dtype)).dtype, self.shape)

    def stack(self, values: Sequence[Any]) -> NDArray[Any]:
        """Checked values as one array ``[B, *shape]`` of the stored dtype."""
        given: Any = values
        if type(given) is np.ndarray:
            return given.astype(self.dtype, copy=False)
        rows = np.empty((len(values), *self.shape), self.dtype)
        for row, value in enumerate(values):
            rows[row] = value
        return rows

    def check(self, value: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for a value that is not finite numbers of this shape."""
        if type(value) is np.ndarray and value.shape == self.shape:
            dtype = value.dtype
            if not self._takes_floats:
                if dtype == self.dtype:
                    return
            elif dtype is self.dtype and self.is_short:
                # A sum with NaN or infinity is not finite.
                total = sum(value.tolist())
                if total - total == 0.0:
                    return
            # One product instead of a look at each number. It overflows for some arrays that are fine, which
            # the slow check clears. vdot and float: dot, and a comparison in half precision, would warn.
            elif dtype.kind == "f" and float(np.vdot(value, value)) <= self._high:
                return
        self._check_unusual(value, name)

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` surely passes each row of an array ``[B, *shape]``."""
        if type(rows) is not np.ndarray or rows.shape[1:] != self.shape:
            return False
        if not self._takes_floats:
            return rows.dtype == self.dtype
        if rows.dtype.kind != "f":
            return False
        flat = rows.reshape(-1)
        return float(np.vdot(flat, flat)) <= self._high

    def _check_unusual(self, value: Any, name: str) -> None:
        """The same check for anything numpy can read, and the search for what is wrong with it."""
        taken = f"give {self.dtype.name} {list(self.shape)}"
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(f"{name}={shown(value)} is not an array ({error}): {taken}") from error
        if array.dtype.kind not in self._kinds:
            raise InvalidExperience(
                f"{name}={shown(value)} has dtype {array.dtype}, which does not fit: {taken}"
            )
        if array.shape != self.shape:
            raise InvalidExperience(f"{name}={shown(value)} has shape {list(array.shape)}: {taken}")
        # A half-precision array would be compared with limits cut to infinity.
        exact = array.astype(np.float64) if array.dtype.kind == "f" else array
        fits = (exact >= self._low) & (exact <= self._high)  # False for NaN too
        if not fits.all():
            where = np.unravel_index(int(np.argmin(fits)), array.shape)
            place = f"{name}[{', '.join(str(int(index)) for index in where)}]" if where else name
            raise InvalidExperience(
                f"{place} is {array[where]}: {taken}, each value finite and from {self._low:g} to "
                f"{self._high:g}"
            )


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        most = min(float(np.finfo(dtype).max), sys.float_info.max)
        return -most, most
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


class DiscreteActions:
    """A Discrete space: ``n`` actions, the ints from ``first`` to ``last``."""

    described = "a Discrete space, of any number of actions and any start"
    spec = ArraySpec(torch.int64)

    def __init__(self, space: Discrete) -> None:
        self.n = int(space.n)
        self.first = int(space.start)
        self.last = self.first + self.n - 1

    @staticmethod
    def fits(space: gymnasium.Space[Any]) -> bool:
        """Whether the space is of this kind."""
        return isinstance(space, Discrete)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"n": self.n, "start": self.first}

    def check(self, action: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for an action that is not an integer of the space."""
        taken = f"give an int from {self.first} to {self.last}"
        # An array without axes is a number, too.
        number: Any = cast("Any", action)[()] if isinstance(action, np.ndarray) else action
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise InvalidExperience(f"{name}={shown(action)} is not an integer: {taken}")
        if not self.first <= (index := int(cast("int", number))) <= self.last:
            raise InvalidExperience(f"{name}={index} is out of range: {taken}")

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` passes each row of an array ``[B]``."""
        return (
            type(rows) is np.ndarray
            and rows.ndim == 1
            and rows.dtype.kind in "iu"
            and bool(((rows >= self.first) & (rows <= self.last)).all())
        )

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Indices ``[B, 1]``, counted from 0, as the plain ints that the environment takes."""
        return self.column(chosen).tolist()

    def column(self, chosen: NDArray[Any]) -> NDArray[np.int64]:
        """The same as int64 ``[B]``."""
        return chosen[:, 0].astype(np.int64) + self.first

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the index ``[1]`` that was chosen."""
        return action - self.first == chosen[0]

    def are_chosen(self, actions: NDArray[Any], chosen: NDArray[Any]) -> bool:
        """Whether that is so for each of the actions ``[B]`` and indices ``[B, 1]``."""
        return bool((actions - self.first == chosen[:, 0]).all())


class BoxActions(ArrayValues):
    """A Box of floats of any shape; the bounds ``low`` and ``high`` are float64 ``[size]``."""

    described = "a Box of at least one float"
    first, last = 1, 0  # no int is an action

    def __init__(self, space: Box) -> None:
        super().__init__(space, _native(space), "iuf")
        self.low = np.asarray(space.low, np.float64).reshape(-1)
        self.high = np.asarray(space.high, np.float64).reshape(-1)
        self._bounds: tuple[list[float], list[float]] = self.low.tolist(), self.high.tolist()

    @staticmethod
    def fits(space: gymnasium.Space[Any]) -> bool:
        """Whether the space is of this kind."""
        return isinstance(space, Box) and 0 not in space.shape and _native(cast("Any", space)).kind == "f"

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self.shape)}

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Chosen actions ``[B, size]`` as arrays ``[*shape]``, clipped to the bounds."""
        rows = self.column(chosen)
        return [rows[row, ...] for row in range(len(rows))]  # with "...", rows of shape () are arrays too

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the numbers ``[size]`` that were chosen.

        They are compared in the space's dtype, or in the action's own where that is less precise.
        """
        given = np.asarray(action).reshape(-1)
        if self.size <= _SHORT and given.tolist() == list(map(_clipped, chosen, *self._bounds)):
            return True
        sent = self.column(np.asarray(chosen, np.float64)[None]).reshape(-1)
        return is_same(given, sent)

    def are_chosen(self, actions: NDArray[Any], chosen: NDArray[Any]) -> bool:
        """Whether that is surely so for each of the actions ``[B, *shape]`` and numbers ``[B, size]``."""
        return actions.dtype == self.dtype and np.array_equal(actions, self.column(chosen))

    def column(self, chosen: NDArray[Any]) -> NDArray[Any]:
        """The same as one array ``[B, *shape]``."""
        clipped = chosen.clip(self.low, self.high).astype(self.dtype)
        return clipped.reshape(len(chosen), *self.shape)


Actions: TypeAlias = DiscreteActions | BoxActions
ActionsT = TypeVar("ActionsT", bound=Actions)


class AgentSpaces(Generic[ActionsT]):
    """A Box of numbers to observe, and a Discrete set or a Box of floats to act in.

    Args:
        agent: its name in messages.
        observation_space: of the environment.
        action_space: of the environment.
        kinds: the kinds of action space that the agent can act in.

    Attributes:
        observations: stored as float32 for every kind of float, else as the space's own dtype.
        actions: the action space.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds the agent takes.
    """

    def __init__(
        self,
        agent: str,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        kinds: Sequence[type[ActionsT]],
    ) -> None:
        kind = next((kind for kind in kinds if kind.fits(action_space)), None)
        if kind is None:
            fits_ppo = any(each.fits(action_space) for each in (DiscreteActions, BoxActions))
            way_out = "use PPO (--agent ppo), or " if fits_ppo else ""
            raise ConfigError(
                f"{agent} cannot act in {action_space}: it takes "
                f"{', or '.join(kind.described for kind in kinds)}; {way_out}wrap the environment so that "
                "its action space is one of these"
            )
        if not isinstance(observation_space, Box) or 0 in observation_space.shape:
            raise ConfigError(
                f"{agent} cannot observe {observation_space}: it takes a Box with at least one number, of "
                "any shape and of floats, integers or bools (gymnasium.wrappers.FlattenObservation makes one "
                "of Discrete, MultiDiscrete, MultiBinary, Tuple and Dict spaces)"
            )
        dtype = _native(cast("Any", observation_space))
        takes_floats = dtype.kind == "f"
        self.observations = ArrayValues(
            cast("Any", observation_space),
            np.dtype(np.float32) if takes_floats else dtype,
            "biuf" if takes_floats else "biu",
        )
        self.actions: ActionsT = kind(cast("Any", action_space))
        self._first, self._last = self.actions.first, self.actions.last

    def are_valid(self, batch: ExperienceBatch) -> bool:
        """Whether ``check_experience`` surely passes each of the batch's experiences."""
        return (
            self.observations.are_valid(batch.observations)
            and self.observations.are_valid(batch.next_observations)
            and self.actions.are_valid(batch.actions)
            and bool((np.abs(batch.rewards) <= _FLOAT32_MAX).all())
        )

    def describe(self) -> dict[str, Any]:
        """The spaces in plain types, to be compared with those of a saved state."""
        seen = self.observations
        return {
            "observation_space": {"shape": list(seen.shape), "dtype": seen.dtype.name},
            "action_space": self.actions.describe(),
        }

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience``, which names the value, for a transition that cannot be stored."""
        observations, seen, following = self.observations, experience.observation, experience.next_observation
        if not (
            # What ``check`` does for two short vectors, without a call for each.
            observations.is_short
            and type(seen) is type(following) is _ARRAY
            and seen.dtype is following.dtype is observations.dtype
            and seen.shape == following.shape == observations.shape
            and (total := sum(following.tolist(), sum(seen.tolist()))) - total == 0.0
        ):
            observations.check(seen, "observation")
            observations.check(following, "next_observation")
        action = experience.action
        if type(action) is not int or not self._first <= action <= self._last:
            self.actions.check(action, "action")
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(f"reward={shown(reward)} is not a number: give a float")
        if not _FLOAT32_MIN <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward={reward!r} is not finite as float32: scale or clip rewards")


def _native(space: gymnasium.Space[Any]) -> np.dtype[Any]:
    """The dtype of the space's values in this machine's byte order."""
    return np.dtype(cast("Any", space).dtype.name)


def _clipped(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)
