"""The distributions that actions are drawn from: one distribution per row of a network's outputs.

Acting is done in numpy and learning in torch, by the same formulas. An action is a row of numbers here: the
index of a discrete one, or a continuous one before it is clipped to its bounds. Each row draws the same count
of random numbers, so that the grouping of rows into calls does not change any action.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["Categorical", "DiagGaussian", "Distribution"]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Categorical:
    """One of ``n`` actions; the parameters per observation are the logits.

    Attributes:
        n_parameters: per observation.
        action_size: how many numbers an action is.
        learned_dtype: of the actions that ``evaluate`` takes.
        log_std: no trained parameter besides the network's outputs.
    """

    action_size = 1
    learned_dtype = np.int64
    log_std = None

    def __init__(self, n: int) -> None:
        self.n_parameters = n

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
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

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities ``[B]`` of actions int64 ``[B, 1]``, and the entropies ``[B]``."""
        log_probs = parameters.log_softmax(dim=1)
        least = torch.finfo(log_probs.dtype).min  # an action ruled out by a logit of -inf adds nothing
        entropies = -(log_probs.exp() * log_probs.clamp(min=least)).sum(dim=1)
        return log_probs.gather(1, actions).squeeze(1), entropies


class DiagGaussian:
    """An independent normal distribution for each of ``size`` numbers; the parameters are the means.

    ``log_std``, trained with the network, holds the logarithms of the standard deviations ``[size]``, which
    do not depend on the state.
    """

    learned_dtype = np.float32

    def __init__(self, size: int, log_std_init: float) -> None:
        self.n_parameters = self.action_size = size
        self.log_std = nn.Parameter(torch.full((size,), float(log_std_init)))

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Actions ``[B, size]`` that are float32 numbers, and the logarithms of their densities, ``[B]``."""
        means = parameters.astype(np.float64)
        log_stds = self.log_std.detach().cpu().numpy().astype(np.float64)
        stds = np.exp(log_stds)
        # Rounded before their densities are computed: the learner sees float32.
        noise = generator.standard_normal(means.shape)
        actions = (means + stds * noise).astype(np.float32).astype(np.float64)
        deviations = (actions - means) / stds
        log_probs = (-0.5 * deviations**2 - log_stds - _LOG_SQRT_2PI).sum(axis=1)
        return actions, log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest actions: the means, ``[B, size]``."""
        return parameters.astype(np.float64)

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-densities ``[B]`` of actions float32 ``[B, size]``, and differential entropies ``[B]``."""
        deviations = (actions - parameters) * (-self.log_std).exp()
        log_probs = -0.5 * deviations.square().sum(dim=1) - (self.log_std + _LOG_SQRT_2PI).sum()
        entropy = (self.log_std + (0.5 + _LOG_SQRT_2PI)).sum()
        return log_probs, entropy.expand(len(actions))


Distribution: TypeAlias = Categorical | DiagGaussian
