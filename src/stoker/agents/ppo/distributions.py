"""The distributions that actions are drawn from: one distribution per row of parameters that a network gives.

Acting is done in numpy and learning in torch, by the same formulas. An action is a row of numbers here: the
index of a discrete one, or a continuous one before it is clipped to its bounds. A drawn action takes the same
count of random numbers in each row, so that how rows are grouped does not change what each draws.
"""

from __future__ import annotations

import math
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.spaces import Actions, DiscreteActions

__all__ = ["Categorical", "DiagGaussian", "Distribution", "distribution_of"]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Categorical:
    """One of ``n`` actions; the ``n_parameters`` per observation are the logits.

    An action is ``action_size`` numbers. ``has_log_std``: whether there is a standard deviation besides,
    ``[action_size]``, which is not a function of the state.
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
        """An action of each row, ``[B, 1]``, and its log-probability, ``[B]``; one random number per row."""
        logits = parameters.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        cumulated = np.exp(logits).cumsum(axis=1)
        totals = cumulated[:, -1]
        thresholds = generator.random(len(logits)) * totals
        actions = (cumulated <= thresholds[:, None]).sum(axis=1)
        log_probs = logits[np.arange(len(logits)), actions] - np.log(totals)
        return actions[:, None].astype(np.float64), log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest action of each row, ``[B, 1]``."""
        return parameters.argmax(axis=1)[:, None].astype(np.float64)

    def evaluate(
        self, parameters: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities ``[B]`` of actions int64 ``[B, 1]``, and the entropies ``[B]``."""
        log_probs = parameters.log_softmax(dim=1)
        least = torch.finfo(log_probs.dtype).min  # an action ruled out by a logit of -inf adds nothing
        entropies = -(log_probs.exp() * log_probs.clamp(min=least)).sum(dim=1)
        return log_probs.gather(1, actions).squeeze(1), entropies

    def learned(self, actions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Remembered actions as ``evaluate`` takes them."""
        return actions.astype(np.int64)


class DiagGaussian:
    """An independent normal distribution for each of ``size`` numbers; the parameters are the means."""

    has_log_std = True

    def __init__(self, size: int) -> None:
        self.n_parameters = self.action_size = size

    def draw(
        self,
        parameters: NDArray[np.float32],
        log_std: NDArray[np.float32] | None,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Actions ``[B, size]`` that are float32 numbers, and the logarithms of their densities, ``[B]``."""
        means, log_stds = parameters.astype(np.float64), _given(log_std).astype(np.float64)
        stds = np.exp(log_stds)
        # Rounded before they are judged: the learner sees float32.
        noise = generator.standard_normal(means.shape)
        actions = (means + stds * noise).astype(np.float32).astype(np.float64)
        deviations = (actions - means) / stds
        log_probs = (-0.5 * deviations**2 - log_stds - _LOG_SQRT_2PI).sum(axis=1)
        return actions, log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest actions: the means, ``[B, size]``."""
        return parameters.astype(np.float64)

    def evaluate(
        self, parameters: torch.Tensor, log_std: torch.Tensor | None, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-densities ``[B]`` of actions float32 ``[B, size]``, and differential entropies ``[B]``."""
        log_stds = _given(log_std)
        deviations = (actions - parameters) * (-log_stds).exp()
        log_probs = -0.5 * deviations.square().sum(dim=1) - (log_stds + _LOG_SQRT_2PI).sum()
        entropy = (log_stds + (0.5 + _LOG_SQRT_2PI)).sum()
        return log_probs, entropy.expand(len(actions))

    def learned(self, actions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Remembered actions as ``evaluate`` takes them."""
        return actions.astype(np.float32)


Distribution: TypeAlias = Categorical | DiagGaussian


def distribution_of(actions: Actions) -> Distribution:
    """The distribution for a kind of action space."""
    return (Categorical if isinstance(actions, DiscreteActions) else DiagGaussian)(actions.n)


_Array = TypeVar("_Array", NDArray[np.float32], torch.Tensor)


def _given(log_std: _Array | None) -> _Array:
    if log_std is None:
        raise AssertionError("a normal distribution has a standard deviation")
    return log_std
