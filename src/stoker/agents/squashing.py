"""Actions within bounds: scaled from [-1, 1], where a squashed normal distribution draws them.

They are float64 in numpy, which chooses them, and float32 in torch, which learns from them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from stoker.agents.actions import BoxActions
from stoker.errors import ConfigError
from stoker.replay.layout import from_numpy

_LOG_STD_LIMITS = (-20.0, 2.0)
"""Beyond them a standard deviation has no gradient, as in the authors' implementation."""

_TINY, _HUGE = 1e-300, 1e30

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_4 = math.log(4.0)


class ActionScale:
    """The linear map between [-1, 1] and the bounds of each number of an action.

    -1 and 1 are exactly the bounds, and nothing between them is beyond.

    Args:
        agent: its name in messages.
        actions: the action space.

    Attributes:
        size: how many numbers an action has.

    Raises:
        ConfigError: A bound is infinite.
    """

    def __init__(self, agent: str, actions: BoxActions) -> None:
        low, high = actions.low, actions.high
        unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
        if len(unbounded):
            at = int(unbounded[0])
            raise ConfigError(
                f"{agent} scales actions to their bounds, and number {at} of this action space is from "
                f"{low[at]:g} to {high[at]:g}: wrap the environment in gymnasium.wrappers.TransformAction("
                "env, lambda action: action, gymnasium.spaces.Box(low, high)) with the bounds that it needs, "
                "leave out ClipAction, which removes them, or use PPO (--agent ppo)"
            )
        self.size: int = actions.size
        self._dtype = actions.dtype
        self._low, self._high = low, high
        self._half = high / 2 - low / 2  # neither overflows
        center = high / 2 + low / 2
        factor = np.zeros_like(center)  # of a number that is always the same
        np.divide(1.0, self._half, out=factor, where=self._half > _TINY)
        # As exact as actions are; a range of almost nothing has a factor beyond float32.
        learned = np.float64 if self._dtype.itemsize > 4 or factor.max() > _HUGE else np.float32
        self._factor, self._center = factor.astype(learned), center.astype(learned)
        self._is_centered, self._is_unit = not center.any(), bool((self._half == 1).all())

    def to_env(self, squashed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions within the bounds, of squashed ones ``[B, size]``."""
        # From the nearer bound, which is then exact, and by at most half the range: nothing overflows.
        is_lower = squashed < 0
        nearer = np.where(is_lower, self._low, self._high)
        return nearer + self._half * (squashed + np.where(is_lower, 1.0, -1.0))

    def tensor_to_env(self, squashed: torch.Tensor) -> torch.Tensor:
        """As ``to_env``, of a tensor, in the dtype of the action space."""
        low, high, half = (
            from_numpy(each.astype(self._dtype)) for each in (self._low, self._high, self._half)
        )
        values = squashed.to(low.dtype)
        is_lower = values < 0
        return torch.where(is_lower, low, high) + half * (values + torch.where(is_lower, 1.0, -1.0))

    def from_env(self, actions: torch.Tensor) -> torch.Tensor:
        """Squashed actions float32 ``[B, size]``, of those that the environment got ``[B, *shape]``."""
        flat = actions.reshape(len(actions), -1)
        if not self._is_centered:
            flat = flat - from_numpy(self._center).to(flat.device)
        if not self._is_unit:
            flat = flat * from_numpy(self._factor).to(flat.device)
        return flat.float()


def likeliest(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The squashed mean ``[B, size]`` of an actor's outputs, of which only the first half is used."""
    return np.tanh(outputs[:, : outputs.shape[1] // 2].astype(np.float64))


def drawn(outputs: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float64]:
    """Squashed actions ``[B, size]``, drawn as ``squashed_sample`` does; ``size`` numbers per row."""
    means, log_stds = np.split(outputs.astype(np.float64), 2, axis=1)
    stds = np.exp(log_stds.clip(*_LOG_STD_LIMITS))
    return np.tanh(means + stds * generator.standard_normal(means.shape))


def squashed(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The outputs of an actor, squashed."""
    return np.tanh(outputs.astype(np.float64))


def noisy(
    outputs: NDArray[np.float32], stds: float | NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Squashed outputs ``[B, size]`` plus normal noise of these standard deviations, within -1 and 1."""
    actions = squashed(outputs)
    actions += stds * generator.standard_normal(actions.shape)
    return actions.clip(-1.0, 1.0, out=actions)


class SquashedSample(NamedTuple):
    """Actions drawn from normal distributions and squashed by tanh (Haarnoja et al. 2018b, appendix C).

    Attributes:
        actions: float32 ``[B, size]``.
        log_probs: the logarithms of their densities, float32 ``[B]``.
        deviations: from the means, before squashing.
        is_free: whether the logarithm of each standard deviation is within its limits.
    """

    actions: torch.Tensor
    log_probs: torch.Tensor
    deviations: torch.Tensor
    is_free: torch.Tensor

    def split(self, n_rows: int) -> tuple[SquashedSample, SquashedSample]:
        """The first rows, and the others: views of the same memory."""
        first, others = [part[:n_rows] for part in self], [part[n_rows:] for part in self]
        return SquashedSample(*first), SquashedSample(*others)

    def gradient(self, by_actions: torch.Tensor, by_log_prob: float) -> torch.Tensor:
        """The gradient ``[B, 2 * size]`` of a loss by the actor's outputs, with the noise held.

        Args:
            by_actions: its gradient by the actions alone ``[B, size]``.
            by_log_prob: by each row's log-probability.
        """
        # tanh' = 1 - a^2, and the density of a has the factor 1 / (1 - a^2), whose logarithm's derivative by
        # the value before squashing is 2 a.
        by_means = torch.addcmul(by_actions, by_actions, self.actions * self.actions, value=-1)
        by_means.add_(self.actions, alpha=2 * by_log_prob)
        by_log_stds = (by_means * self.deviations).sub_(by_log_prob).mul_(self.is_free)
        return torch.cat([by_means, by_log_stds], dim=1)


def limited(log_stds: torch.Tensor) -> torch.Tensor:
    """Logarithms of standard deviations within their limits."""
    return log_stds.clamp(*_LOG_STD_LIMITS)


def squashed_sample(outputs: torch.Tensor, noise: torch.Tensor) -> SquashedSample:
    """Draw an action from the distribution of each row of an actor's outputs.

    Args:
        outputs: the means and the logarithms of the standard deviations, float32 ``[B, 2 * size]``.
        noise: standard normal, float32 ``[B, size]``.
    """
    means, given = outputs.chunk(2, dim=1)
    log_stds = limited(given)
    deviations = log_stds.exp().mul_(noise)
    values = means + deviations
    # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), which does not cancel where tanh is near 1.
    squashing = functional.softplus(values * -2).add_(values).mul_(2)
    terms = torch.addcmul(log_stds, noise, noise, value=0.5).sub_(squashing)
    n_numbers = noise.shape[1]
    log_probs = terms.sum(dim=1).add_(n_numbers * (_LOG_SQRT_2PI + _LOG_4)).neg_()
    return SquashedSample(values.tanh_(), log_probs, deviations, log_stds == given)
