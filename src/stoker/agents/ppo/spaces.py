"""The spaces that PPO takes: a Box of numbers to observe, a Discrete set or a Box of floats to act in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.ppo.distributions import Categorical, DiagGaussian, Distribution
from stoker.agents.spaces import AgentSpaces, BoxActions, DiscreteActions, is_float_box
from stoker.errors import ConfigError

__all__ = ["CategoricalActions", "GaussianActions", "PPOSpaces"]


class CategoricalActions(DiscreteActions):
    """Discrete actions, drawn from a ``distribution``."""

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        super().__init__(space)
        self.distribution: Distribution = Categorical(self.n)

    def for_env(self, chosen: NDArray[np.float64]) -> list[Any]:
        """Chosen actions ``[B, 1]`` as plain ints."""
        indices: list[int] = chosen[:, 0].astype(np.int64).tolist()
        return [index + self.first for index in indices] if self.first else indices

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether an action is what the environment was given for a chosen one, ``[1]``."""
        return action - self.first == chosen[0]


class GaussianActions(BoxActions):
    """Box actions, drawn from a ``distribution``; the environment gets them clipped to the bounds."""

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        super().__init__(space)
        self._bounds: tuple[list[float], list[float]] = self.low.tolist(), self.high.tolist()
        self.distribution: Distribution = DiagGaussian(self.n)

    def for_env(self, chosen: NDArray[np.float64]) -> list[Any]:
        """Chosen actions ``[B, n]`` as arrays ``[*action_shape]`` within the bounds."""
        clipped = chosen.clip(self.low, self.high).astype(self.dtype)
        rows = clipped.reshape(len(chosen), *self.shape)
        return [rows[row, ...] for row in range(len(rows))]  # with "...", rows of shape () are arrays too

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether an action is what the environment was given for a chosen one, ``[n]``; as the space's
        dtype, or the action's own where that is less precise.
        """  # noqa: D205
        given = np.asarray(action).reshape(-1)
        if self.is_short and given.tolist() == list(map(_clipped, chosen, *self._bounds)):
            return True
        sent = self.for_env(np.asarray(chosen, np.float64)[None])[0].reshape(-1)
        is_lower = given.dtype.kind == "f" and given.itemsize < sent.itemsize
        lower = given.dtype if is_lower else self.dtype
        return np.array_equal(given.astype(lower), sent.astype(lower))


class PPOSpaces(AgentSpaces):
    """A Box of numbers to observe; a Discrete set or a Box of floats to act in.

    Attributes:
        actions: what is peculiar to the kind of action space.
        distribution: what policies draw actions from.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds are taken.
    """

    actions: CategoricalActions | GaussianActions

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        super().__init__("PPO", observation_space, _actions(action_space))
        self.distribution = self.actions.distribution

    def sample_batch(self, device: torch.device) -> torch.Tensor:
        """Two observations of zeros, to try a network with."""
        return torch.as_tensor(np.zeros((2, *self.observation_shape), self.array_dtype)).to(device)


def _clipped(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)


def _actions(space: gymnasium.Space[Any]) -> CategoricalActions | GaussianActions:
    if isinstance(space, gymnasium.spaces.Discrete):
        return CategoricalActions(space)
    if is_float_box(space) and 0 not in cast("Any", space).shape:
        return GaussianActions(cast("gymnasium.spaces.Box", space))
    raise ConfigError(
        f"PPO cannot act in {space}: it takes a Discrete space, of any number of actions and any start, or a "
        "Box of at least one float; wrap the environment so that its actions are one of these"
    )
