"""What a PPO agent takes from its environment's spaces: shapes, dtypes, and the check of every input.

Its checks stand at the session's door, once per transition; what passes them can be stored, and learned
from, without a second look. Observations are those that a DQN agent takes, by the same checks.
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

from stoker.agents.dqn.spaces import DQNSpaces, is_float_box, require_box
from stoker.agents.ppo.distributions import Categorical, DiagGaussian, Distribution
from stoker.errors import ConfigError, InvalidExperience
from stoker.types import Experience

__all__ = ["BoxActions", "DiscreteActions", "PPOSpaces", "shown"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SHORT = 16
"""Numbers in an action that are looked at one by one."""


class DiscreteActions:
    """A Discrete space of actions, of any ``start``.

    Attributes:
        distribution: what the policy says of them.
    """

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        self._first = int(space.start)
        self.distribution: Distribution = Categorical(int(space.n))

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"n": self.distribution.n_parameters, "start": self._first}

    def for_env(self, chosen: NDArray[np.float64]) -> list[Any]:
        """Chosen actions ``[B, 1]`` as plain ints."""
        indices: list[int] = chosen[:, 0].astype(np.int64).tolist()
        return [index + self._first for index in indices] if self._first else indices

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether an action is what the environment was given for a chosen one, ``[1]``."""
        return action - self._first == chosen[0]


class BoxActions:
    """A Box of floats: what is chosen beyond its bounds is brought to them on its way to the environment.

    Attributes:
        distribution: what the policy says of them, before they are clipped.
    """

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        self._shape: tuple[int, ...] = tuple(space.shape)
        self._dtype = np.dtype(cast("Any", space).dtype.name)
        self._low = np.asarray(space.low, np.float64).reshape(-1)
        self._high = np.asarray(space.high, np.float64).reshape(-1)
        self._is_short = len(self._low) <= _SHORT
        self._bounds: tuple[list[float], list[float]] = self._low.tolist(), self._high.tolist()
        self.distribution: Distribution = DiagGaussian(math.prod(self._shape))

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self._shape)}

    def for_env(self, chosen: NDArray[np.float64]) -> list[Any]:
        """Chosen actions ``[B, n]`` as arrays ``[*action_shape]`` within the bounds."""
        clipped = chosen.clip(self._low, self._high).astype(self._dtype)
        rows = clipped.reshape(len(chosen), *self._shape)
        return [rows[row, ...] for row in range(len(rows))]  # with "...", rows of shape () are arrays too

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether an action is what the environment was given for a chosen one, ``[n]``; as the space's
        dtype, or the action's own where that is less precise.
        """  # noqa: D205
        given = np.asarray(action).reshape(-1)
        if self._is_short and given.tolist() == list(map(_clipped, chosen, *self._bounds)):
            return True
        sent = self.for_env(np.asarray(chosen, np.float64)[None])[0].reshape(-1)
        is_lower = given.dtype.kind == "f" and given.itemsize < sent.itemsize
        lower = given.dtype if is_lower else self._dtype
        return np.array_equal(given.astype(lower), sent.astype(lower))

    def check(self, action: Any) -> None:
        """Refuse what is not an array of finite numbers of the space's shape.

        Raises:
            InvalidExperience: The message names the action.
        """
        if type(action) is np.ndarray and action.shape == self._shape and action.dtype.kind == "f":
            # A sum of finite numbers is finite, or the slow check clears it.
            total = (
                sum(action.reshape(-1).tolist()) if self._is_short else float(action.sum(dtype=np.float64))
            )
            if total - total == 0.0:
                return
        taken = f"give {self._dtype.name} {list(self._shape)}"
        try:
            array = np.asarray(action)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(f"action {shown(action)} is not an array ({error}): {taken}") from error
        if array.dtype.kind not in "iuf" or array.shape != self._shape:
            raise InvalidExperience(
                f"action {shown(action)} is {array.dtype} {list(array.shape)}, which does not fit: {taken}"
            )
        if not np.isfinite(array).all():
            raise InvalidExperience(f"action {shown(action)} is not finite: {taken}")


class PPOSpaces:
    """A Box of numbers to observe; a Discrete set or a Box of floats to act in.

    Attributes:
        observation_shape: of one observation.
        observation_dtype: what observations are stored as: float32 for every kind of float, else the
            space's own.
        actions: what is peculiar to the kind of action space.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds are taken.
    """

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        require_box("PPO", observation_space)
        self.actions = _actions(action_space)
        # Of Box actions it checks all but the action.
        discrete = action_space if isinstance(self.actions, DiscreteActions) else gymnasium.spaces.Discrete(1)
        self._checks = DQNSpaces(observation_space, discrete)
        self.observation_shape = self._checks.observation_shape
        self.observation_dtype: Any = self._checks.stack(()).dtype

    @property
    def distribution(self) -> Distribution:
        """What a policy says of actions."""
        return self.actions.distribution

    def describe(self) -> dict[str, Any]:
        """The spaces in plain types, to be compared with those of a saved state."""
        return {
            "observation_space": self._checks.describe()["observation_space"],
            "action_space": self.actions.describe(),
        }

    def stack(self, observations: Sequence[Any]) -> NDArray[Any]:
        """Checked observations as one array ``[B, *observation_shape]`` of the stored dtype."""
        return self._checks.stack(observations)

    def sample_batch(self, device: torch.device) -> torch.Tensor:
        """Two observations of zeros, to try a network with."""
        return torch.as_tensor(np.zeros((2, *self.observation_shape), self.observation_dtype)).to(device)

    def check_observation(self, observation: Any) -> None:
        """Refuse what is not an array of finite numbers of the right shape.

        Raises:
            InvalidExperience: The message names the value and what is taken.
        """
        self._checks.check_observation(observation)

    def check_experience(self, experience: Experience) -> None:
        """Refuse a transition that could not be stored as it is.

        Raises:
            InvalidExperience: An observation, the action or the reward is unfit; the message names it.
        """
        if isinstance(self.actions, DiscreteActions):
            self._checks.check_experience(experience)
            return
        self._checks.check_observation(experience.observation)
        self._checks.check_observation(experience.next_observation, "next_observation")
        self.actions.check(experience.action)
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(
                f"reward {shown(reward)} is a {type(reward).__name__}, not a number: give a float"
            )
        if not -_FLOAT32_MAX <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward {reward!r} is not finite as float32: scale or clip rewards")


def _clipped(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)


def _actions(space: gymnasium.Space[Any]) -> DiscreteActions | BoxActions:
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteActions(space)
    if is_float_box(space) and 0 not in cast("Any", space).shape:
        return BoxActions(cast("gymnasium.spaces.Box", space))
    raise ConfigError(
        f"PPO cannot act in {space}: it takes a Discrete space, of any number of actions and any start, or a "
        "Box of at least one float; wrap the environment so that its actions are one of these"
    )


def shown(value: Any) -> str:
    """A value, short enough for one line."""
    return " ".join(reprlib.repr(value).split())
