"""The spaces of an environment, as agents take them: shapes, dtypes, and the check of every input.

The checks run in the session's ``observe`` and ``act``, once per transition: an input that passes them can be
stored and learned from without a second look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import shown
from stoker.replay import ArraySpec
from stoker.types import Experience

__all__ = ["AgentSpaces", "BoxActions", "DiscreteActions"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32 = np.dtype(np.float32)
_SHORT = 16
"""The greatest length of a vector whose numbers are summed one by one, which is then faster."""


class DiscreteActions:
    """A Discrete space.

    Attributes:
        n: how many actions there are.
        first: the lowest of them.
        spec: how a replay holds an action.
    """

    described = "a Discrete space, of any number of actions and any start"

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        self.n = int(space.n)
        self.first = int(space.start)
        self.spec = ArraySpec(torch.int64)

    @staticmethod
    def fits(space: gymnasium.Space[Any]) -> bool:
        """Whether the space is of this kind."""
        return isinstance(space, gymnasium.spaces.Discrete)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"n": self.n, "start": self.first}

    def check(self, action: Any) -> None:
        """Raise ``InvalidExperience`` for an action that is not an integer of the space."""
        taken = f"give an int from {self.first} to {self.first + self.n - 1}"
        # An array without axes is a number, too.
        number: Any = cast("Any", action)[()] if isinstance(action, np.ndarray) else action
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise InvalidExperience(f"action={shown(action)} is not an integer: {taken}")
        if not 0 <= (index := int(cast("int", number))) - self.first < self.n:
            raise InvalidExperience(f"action={index} is out of range: {taken}")

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Indices ``[B, 1]``, counted from 0, as the plain ints that the environment takes."""
        indices: list[int] = chosen[:, 0].astype(np.int64).tolist()
        return [index + self.first for index in indices] if self.first else indices

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the index ``[1]`` that was chosen."""
        return action - self.first == chosen[0]


class BoxActions:
    """A Box of floats of any shape.

    Attributes:
        shape: of one action.
        dtype: of one action.
        n: how many numbers an action has.
        low, high: the bounds, float64 ``[n]``.
        spec: how a replay holds an action.
    """

    described = "a Box of at least one float"

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        self.dtype = np.dtype(cast("Any", space).dtype.name)
        self.n = math.prod(self.shape)
        self.low = np.asarray(space.low, np.float64).reshape(-1)
        self.high = np.asarray(space.high, np.float64).reshape(-1)
        self._bounds: tuple[list[float], list[float]] = self.low.tolist(), self.high.tolist()
        self._is_short = self.n <= _SHORT

    @staticmethod
    def fits(space: gymnasium.Space[Any]) -> bool:
        """Whether the space is of this kind."""
        return (
            isinstance(space, gymnasium.spaces.Box)
            and np.issubdtype(cast("Any", space).dtype, np.floating)
            and 0 not in space.shape
        )

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self.shape)}

    def check(self, action: Any) -> None:
        """Raise ``InvalidExperience`` for an action that is not finite numbers of the space's shape."""
        if type(action) is np.ndarray and action.shape == self.shape and action.dtype.kind == "f":
            # A sum of finite numbers is finite, or the slow check clears it.
            total = (
                sum(action.reshape(-1).tolist()) if self._is_short else float(action.sum(dtype=np.float64))
            )
            if total - total == 0.0:
                return
        taken = f"give {self.dtype.name} {list(self.shape)}"
        array = _array("action", action, taken)
        if array.dtype.kind not in "iuf" or array.shape != self.shape:
            raise InvalidExperience(
                f"action={shown(action)} is {array.dtype} {list(array.shape)}, which does not fit: {taken}"
            )
        if not np.isfinite(array).all():
            raise InvalidExperience(f"action={shown(action)} is not finite: {taken}")

    @property
    def spec(self) -> ArraySpec:
        """How a replay holds an action."""
        return ArraySpec(torch.as_tensor(np.empty(0, self.dtype)).dtype, self.shape)

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Chosen actions ``[B, n]`` as arrays ``[*shape]``, clipped to the bounds."""
        clipped = chosen.clip(self.low, self.high).astype(self.dtype)
        rows = clipped.reshape(len(chosen), *self.shape)
        return [rows[row, ...] for row in range(len(rows))]  # with "...", rows of shape () are arrays too

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the numbers ``[n]`` that were chosen.

        They are compared in the space's dtype, or in the action's own where that is less precise.
        """
        given = np.asarray(action).reshape(-1)
        if self._is_short and given.tolist() == list(map(_clipped, chosen, *self._bounds)):
            return True
        sent = self.for_env(np.asarray(chosen, np.float64)[None])[0].reshape(-1)
        is_lower = given.dtype.kind == "f" and given.itemsize < sent.itemsize
        lower = given.dtype if is_lower else self.dtype
        return np.array_equal(given.astype(lower), sent.astype(lower))


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
        actions: the action space.
        observation_shape: of one observation.
        observation_dtype: what observations are stored as: float32 for every kind of float, else the
            space's own.
        array_dtype: the same, as numpy's.

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
        if not isinstance(observation_space, gymnasium.spaces.Box) or 0 in observation_space.shape:
            raise ConfigError(
                f"{agent} cannot observe {observation_space}: it takes a Box with at least one number, of "
                "any shape and of floats, integers or bools (gymnasium.wrappers.FlattenObservation makes one "
                "of Discrete, MultiDiscrete, MultiBinary, Tuple and Dict spaces)"
            )
        self.actions: ActionsT = kind(cast("Any", action_space))
        dtype = np.dtype(cast("Any", observation_space).dtype.name)  # in this machine's byte order
        self.array_dtype = _FLOAT32 if dtype.kind == "f" else dtype
        self.observation_dtype = torch.as_tensor(np.empty(0, self.array_dtype)).dtype
        self.observation_shape: tuple[int, ...] = tuple(cast("Any", observation_space).shape)
        self._takes_floats = dtype.kind == "f"
        self._is_short = len(self.observation_shape) == 1 and self.observation_shape[0] <= _SHORT
        # An int from first to last needs no further check; with a Box there is none.
        self._first, self._last = 1, 0
        if isinstance(self.actions, DiscreteActions):
            self._first, self._last = self.actions.first, self.actions.first + self.actions.n - 1

    @property
    def observation_size(self) -> int:
        """How many numbers an observation has."""
        return math.prod(self.observation_shape)

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
        """Raise ``InvalidExperience`` for an observation that is not finite numbers of the space's shape."""
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
        """Raise ``InvalidExperience``, which names the value, for a transition that cannot be stored."""
        self.check_observation(experience.observation)
        self.check_observation(experience.next_observation, "next_observation")
        action = experience.action
        if type(action) is not int or not self._first <= action <= self._last:
            self.actions.check(action)
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(f"reward={shown(reward)} is not a number: give a float")
        if not -_FLOAT32_MAX <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward={reward!r} is not finite as float32: scale or clip rewards")

    def _check_unusual(self, observation: Any, name: str) -> None:
        """The same check for anything numpy can read, and the search for what is wrong with it."""
        taken = f"give {self.array_dtype.name} {list(self.observation_shape)}"
        array = _array(name, observation, taken)
        if array.dtype.kind not in ("biuf" if self._takes_floats else "biu"):
            raise InvalidExperience(
                f"{name}={shown(observation)} has dtype {array.dtype}, which does not fit: {taken}"
            )
        if array.shape != self.observation_shape:
            raise InvalidExperience(f"{name}={shown(observation)} has shape {list(array.shape)}: {taken}")
        if self._takes_floats:
            low, high = -_FLOAT32_MAX, _FLOAT32_MAX
        elif self.array_dtype.kind == "b":
            low, high = 0, 1
        else:
            limits = np.iinfo(self.array_dtype.name)
            low, high = int(limits.min), int(limits.max)
        # A half-precision array would be compared with limits cut to infinity.
        exact = array.astype(np.float64) if array.dtype.kind == "f" else array
        fits = (exact >= low) & (exact <= high)  # False for NaN too
        if not fits.all():
            where = np.unravel_index(int(np.argmin(fits)), array.shape)
            place = f"{name}[{', '.join(str(int(index)) for index in where)}]" if where else name
            raise InvalidExperience(
                f"{place} is {array[where]}: {taken}, each value finite and from {low:g} to {high:g}"
            )


def _clipped(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)


def _array(name: str, value: Any, taken: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidExperience(f"{name}={shown(value)} is not an array ({error}): {taken}") from error
