"""What a policy's network says of actions, as a distribution: drawn from to act, evaluated to learn.

Acting is done in numpy and learning in torch, by the same formulas. An action is a row of numbers here: the
index of a discrete one, or a continuous one before it is clipped to its bounds.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Categorical", "DiagGaussian", "Distribution"]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """One distribution per row of parameters."""

    n_parameters: int
    """How many numbers the network gives per observation."""

    action_size: int
    """How many numbers an action is."""

    has_log_std: bool
    """Whether it has a standard deviation besides, ``[action_size]``, which is no function of the state."""

    def draw(
        self,
        parameters: NDArray[np.float32],
        log_std: NDArray[np.float32] | None,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An action of each row, ``[B, action_size]``, and its log-probability (density), ``[B]``.

        As many draws for each row, row after row: how rows are grouped does not change what each draws.
        """
        ...

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest action of each row, ``[B, action_size]``."""
        ...

    def evaluate(
        self, parameters: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probability of each row's action, ``[B]``, and its distribution's entropy, ``[B]``.

        Args:
            parameters: ``[B, n_parameters]``.
            log_std: ``[action_size]``, or None.
            actions: as ``learned`` gave them.
        """
        ...

    def learned(self, actions: NDArray[np.float64]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Remembered actions ``[B, action_size]`` as ``evaluate`` takes them."""
        ...


class Categorical:
    """One of ``n`` actions; the parameters are the logits.

    Args:
        n: how many actions there are.
    """

    action_size = 1
    has_log_std = False

    def __init__(self, n: int) -> None:
        self.n_parameters = n

    def draw(
        self,
        parameters: NDArray[np.float32],
        log_std: NDArray[np.float32] | None,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An action of each row by the inverse of its cumulated probabilities: one draw per row."""
        logits = parameters.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        cumulated = np.exp(logits).cumsum(axis=1)
        totals = cumulated[:, -1]
        thresholds = generator.random(len(logits)) * totals
        actions = (cumulated <= thresholds[:, None]).sum(axis=1)
        log_probs = logits[np.arange(len(logits)), actions] - np.log(totals)
        return actions[:, None].astype(np.float64), log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The index of the highest logit."""
        return parameters.argmax(axis=1)[:, None].astype(np.float64)

    def evaluate(
        self, parameters: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of action indices int64 ``[B, 1]``, and entropies."""
        log_probs = parameters.log_softmax(dim=1)
        least = torch.finfo(log_probs.dtype).min  # an action ruled out by a logit of -inf adds nothing
        entropies = -(log_probs.exp() * log_probs.clamp(min=least)).sum(dim=1)
        return log_probs.gather(1, actions).squeeze(1), entropies

    def learned(self, actions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Indices as int64."""
        return actions.astype(np.int64)


class DiagGaussian:
    """A normal distribution for each of ``size`` numbers, on their own; the parameters are the means.

    Args:
        size: how many numbers an action is.
    """

    has_log_std = True

    def __init__(self, size: int) -> None:
        self.n_parameters = self.action_size = size

    def draw(
        self,
        parameters: NDArray[np.float32],
        log_std: NDArray[np.float32] | None,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Actions that are float32 numbers, and the logarithms of their densities: ``size`` draws per row."""
        means, log_stds = parameters.astype(np.float64), _given(log_std).astype(np.float64)
        stds = np.exp(log_stds)
        # Rounded before they are judged: the learner sees float32.
        noise = generator.standard_normal(means.shape)
        actions = (means + stds * noise).astype(np.float32).astype(np.float64)
        deviations = (actions - means) / stds
        log_probs = (-0.5 * deviations**2 - log_stds - _LOG_SQRT_2PI).sum(axis=1)
        return actions, log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The means."""
        return parameters.astype(np.float64)

    def evaluate(
        self, parameters: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithms of the densities of actions float32 ``[B, size]``, and differential entropies."""
        log_stds = _given(log_std)
        deviations = (actions - parameters) * (-log_stds).exp()
        log_probs = -0.5 * deviations.square().sum(dim=1) - (log_stds + _LOG_SQRT_2PI).sum()
        entropy = (log_stds + (0.5 + _LOG_SQRT_2PI)).sum()
        return log_probs, entropy.expand(len(actions))

    def learned(self, actions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Unclipped actions as float32."""
        return actions.astype(np.float32)


_Array = TypeVar("_Array", NDArray[np.float32], torch.Tensor)


def _given(log_std: _Array | None) -> _Array:
    if log_std is None:
        raise AssertionError("a normal distribution has a standard deviation")
    return log_std
