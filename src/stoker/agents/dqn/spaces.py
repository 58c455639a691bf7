"""What a DQN agent takes from its environment's spaces: shapes, dtypes, and the check of every input.

Its checks stand at the session's door, once per transition; what passes them can be stored, and learned
from, without a second look.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.types import Experience

__all__ = ["DQNSpaces", "is_float_box", "require_box"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32 = np.dtype(np.float32)
_SHORT = 16
"""Numbers in a vector that are looked at one by one."""


class _OneLine(reprlib.Repr):
    """Short texts of values, arrays of several rows too on one line."""

    def repr(self, x: Any) -> str:
        return " ".join(super().repr(x).split())


_shown = _OneLine()
_shown.maxother = 120  # an array is "other", and 30 characters would hide its values


class DQNSpaces:
    """A Box of numbers to observe and a Discrete set of actions, of any ``start``.

    Attributes:
        observation_shape: of one observation.
        observation_dtype: what observations are stored as: float32 for every kind of float, else the
            space's own.
        n_actions: how many actions there are.
        first_action: the lowest of them, the space's ``start``.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds are taken.
    """

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        require_box("DQN", observation_space)
        if not isinstance(action_space, gymnasium.spaces.Discrete):
            way_out = (
                "use PPO for a Box of floats (stoker.PPO, --agent ppo)"
                if is_float_box(action_space)
                else "wrap the environment so that each combination of values is one action"
            )
            raise ConfigError(
                f"DQN cannot act in {action_space}: it takes a Discrete action space, of any number of "
                f"actions and any start; {way_out}"
            )
        dtype = np.dtype(cast("Any", observation_space).dtype.name)  # in this machine's byte order
        self._dtype = np.dtype(np.float32) if dtype.kind == "f" else dtype
        self._takes_floats = dtype.kind == "f"
        self.observation_shape: tuple[int, ...] = tuple(cast("Any", observation_space).shape)
        self._is_short = len(self.observation_shape) == 1 and self.observation_shape[0] <= _SHORT
        self.observation_dtype = torch.as_tensor(np.empty(0, self._dtype)).dtype
        self.n_actions = int(action_space.n)
        self.first_action = int(action_space.start)

    def describe(self) -> dict[str, Any]:
        """The spaces in plain types, to be compared with those of a saved state."""
        return {
            "observation_space": {"shape": list(self.observation_shape), "dtype": self._dtype.name},
            "action_space": {"n": self.n_actions, "start": self.first_action},
        }

    def stack(self, observations: Sequence[Any]) -> NDArray[Any]:
        """Checked observations as one array ``[B, *observation_shape]`` of the stored dtype."""
        rows = np.empty((len(observations), *self.observation_shape), self._dtype)
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
                if dtype == self._dtype:
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
        if type(action) is not int:
            if not _is_integer(action):
                raise InvalidExperience(
                    f"action {_shown.repr(action)} is a {type(action).__name__}, not an integer: "
                    f"{self._actions_taken()}"
                )
            action = int(action)
        if not 0 <= action - self.first_action < self.n_actions:
            raise InvalidExperience(f"action {_shown.repr(action)} is out of range: {self._actions_taken()}")
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(
                f"reward {_shown.repr(reward)} is a {type(reward).__name__}, not a number: give a float"
            )
        if not -_FLOAT32_MAX <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward {reward!r} is not finite as float32: scale or clip rewards")

    def _check_unusual(self, observation: Any, name: str) -> None:
        """The same check for anything numpy can read, and the search for what is wrong with it."""
        taken = f"give {self._dtype.name} {list(self.observation_shape)}"
        try:
            array = np.asarray(observation)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(
                f"{name} {_shown.repr(observation)} is not an array ({error}): {taken}"
            ) from error
        if array.dtype.kind not in ("biuf" if self._takes_floats else "biu"):
            raise InvalidExperience(
                f"{name} {_shown.repr(observation)} has dtype {array.dtype}, which does not fit: {taken}"
            )
        if array.shape != self.observation_shape:
            raise InvalidExperience(
                f"{name} {_shown.repr(observation)} has shape {list(array.shape)}: {taken}"
            )
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
        if self._dtype.kind == "b":
            return 0, 1
        limits = np.iinfo(self._dtype.name)
        return int(limits.min), int(limits.max)

    def _actions_taken(self) -> str:
        return f"give an int from {self.first_action} to {self.first_action + self.n_actions - 1}"


def is_float_box(space: gymnasium.Space[Any]) -> bool:
    """Whether the space is a Box of floats."""
    return isinstance(space, gymnasium.spaces.Box) and np.issubdtype(cast("Any", space).dtype, np.floating)


def require_box(agent: str, space: gymnasium.Space[Any]) -> None:
    """Refuse a space that an agent cannot observe because it is no Box of numbers.

    Raises:
        ConfigError: It is not; the message names the agent and what makes a Box of it.
    """
    if not isinstance(space, gymnasium.spaces.Box) or 0 in space.shape:
        raise ConfigError(
            f"{agent} cannot observe {space}: it takes a Box with at least one number, of any shape and of "
            "floats, integers or bools (gymnasium.wrappers.FlattenObservation makes one of Discrete, "
            "MultiDiscrete, MultiBinary, Tuple and Dict spaces)"
        )


def _is_integer(action: Any) -> bool:
    if isinstance(action, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[Any]]", action)
        return array.shape == () and array.dtype.kind in "iu"
    return isinstance(action, (int, np.integer)) and not isinstance(action, bool)
