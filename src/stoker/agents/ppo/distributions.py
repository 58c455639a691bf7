"""The distributions of PPO's actions.

Acting is done in numpy and learning in torch, by the same formulas. An action is a row of numbers here: the
indices of a discrete one, or a continuous one before it is clipped to its bounds. Each row draws the same
count of random numbers, so that the grouping of rows into calls does not change any action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Evaluation(NamedTuple):
    """What a distribution says of actions.

    Attributes:
        log_probs: their log-probabilities ``[B]``.
        entropies: of the distributions, ``[B]``, or ``[1]`` if it is the same for all.
        gradients: given the gradients of a loss by each of the log-probabilities ``[B]`` and by each row's
            entropy, those by the parameters ``[B, n_parameters]`` and by ``log_std``, if there is one. Call
            it once.
    """

    log_probs: torch.Tensor
    entropies: torch.Tensor
    gradients: Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor | None]]


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

    def likeliest(self, parameters: torch.Tensor) -> torch.Tensor:
        """As ``mode``, of a tensor: int64 ``[B, 1]``."""
        return parameters.argmax(dim=1, keepdim=True)

    def described(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """The ``logits``, float32 ``[B, n]``."""
        return {"logits": parameters}

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """For actions int64 ``[B, 1]``."""
        # An action ruled out by a logit of -inf adds nothing to the entropy. All of it is ``[n, B]`` here.
        logits, chosen = parameters.t(), actions.t()
        log_probs = logits.log_softmax(dim=0).clamp_(min=torch.finfo(parameters.dtype).min)
        probs = log_probs.exp()
        entropies = (probs * log_probs).sum(dim=0).neg_()

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, None]:
            by_logit = probs * by_log_prob.neg()
            by_logit.scatter_add_(0, chosen, by_log_prob[None])
            if by_entropy:
                by_logit.sub_(probs * (log_probs + entropies), alpha=by_entropy)
            return by_logit.t(), None

        return Evaluation(log_probs.gather(0, chosen)[0], entropies, gradients)


class MultiCategorical:
    """A ``Categorical`` for each of several numbers, with ``counts`` choices, independent of each other.

    The parameters per observation are the logits of all choices, number by number. One random number is drawn
    for each number of an action.
    """

    learned_dtype = np.int64
    log_std = None

    def __init__(self, *counts: int) -> None:
        self.n_parameters: int = sum(counts)
        self.action_size: int = len(counts)
        self._counts = counts
        self._most = max(counts)
        # Where each logit is in the logits of all numbers, padded to as many; None: they are as many.
        self._places: NDArray[np.int64] | None = None
        if len({*counts}) > 1:
            padded = np.arange(self._most) < np.array(counts)[:, None]
            self._places = np.flatnonzero(padded)

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An action of each row, ``[B, size]``, and its log-probability, ``[B]``."""
        logits = self._by_number(parameters.astype(np.float64))
        logits -= logits.max(axis=1, keepdims=True)
        cumulated = np.exp(logits).cumsum(axis=1)
        totals = cumulated[:, -1]
        thresholds = generator.random(len(logits)) * totals
        actions = (cumulated <= thresholds[:, None]).sum(axis=1)
        log_probs = logits[np.arange(len(logits)), actions] - np.log(totals)
        return self._by_row(actions), self._by_row(log_probs).sum(axis=1)

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest action of each row, ``[B, size]``."""
        return self._by_row(self._by_number(parameters).argmax(axis=1))

    def likeliest(self, parameters: torch.Tensor) -> torch.Tensor:
        """As ``mode``, of a tensor: int64 ``[B, size]``."""
        ends = np.cumsum(self._counts).tolist()
        parts = [parameters[:, end - n : end] for n, end in zip(self._counts, ends, strict=True)]
        return torch.cat([part.argmax(dim=1, keepdim=True) for part in parts], dim=1)

    def described(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """The ``logits``, float32 ``[B, n_parameters]``."""
        return {"logits": parameters}

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """For actions int64 ``[B, size]``."""
        # An action ruled out by a logit of -inf adds nothing to the entropy. All of it is
        # ``[size, n, B]`` here, where each kernel works along B.
        logits, chosen = self._in_planes(parameters.t()), actions.t().unsqueeze(1)
        log_probs = logits.log_softmax(dim=1).clamp_(min=torch.finfo(parameters.dtype).min)
        probs = log_probs.exp()
        entropies = (probs * log_probs).sum(dim=1, keepdim=True).neg_()

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, None]:
            by_logit = probs * by_log_prob.neg()
            by_logit.scatter_add_(1, chosen, by_log_prob.expand(chosen.shape))
            if by_entropy:
                by_logit.sub_(probs * (log_probs + entropies), alpha=by_entropy)
            flat = by_logit.flatten(0, 1)
            return (flat if self._places is None else flat[self._places]).t(), None

        return Evaluation(log_probs.gather(1, chosen).sum(dim=(0, 1)), entropies.sum(dim=(0, 1)), gradients)

    def _by_number(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """The logits ``[B * size, n]`` of each number by itself, of those ``[B, n_parameters]`` of all."""
        if self._places is None:
            return parameters.reshape(-1, self._most)
        padded = np.full((len(parameters), self.action_size * self._most), -np.inf, parameters.dtype)
        padded[:, self._places] = parameters
        return padded.reshape(-1, self._most)

    def _by_row(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """A value for each number, ``[B * size]``, as rows ``[B, size]``."""
        return values.astype(np.float64).reshape(-1, self.action_size)

    def _in_planes(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``[n_parameters, B]`` as ``[size, n, B]``."""
        shape = self.action_size, self._most, logits.shape[1]
        if self._places is None:
            return logits.view(shape)
        padded = logits.new_full((shape[0] * shape[1], shape[2]), -torch.inf)
        padded[self._places] = logits
        return padded.view(shape)


class DiagGaussian:
    """An independent normal distribution for each of ``size`` numbers; the parameters are the means.

    ``log_std``, trained with the network, holds the logarithms of the standard deviations ``[size]``, which
    do not depend on the state.
    """

    learned_dtype = np.float32

    def __init__(self, size: int, log_std_init: float) -> None:
        self.n_parameters: int = size
        self.action_size: int = size
        self.log_std: nn.Parameter = nn.Parameter(torch.full((size,), float(log_std_init)))

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
        log_probs = (-0.5 * deviations**2 - log_stds - LOG_SQRT_2PI).sum(axis=1)
        return actions, log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest actions: the means, ``[B, size]``."""
        return parameters.astype(np.float64)

    def likeliest(self, parameters: torch.Tensor) -> torch.Tensor:
        """As ``mode``, of a tensor: float32 ``[B, size]``."""
        return parameters

    def described(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """The ``mean`` and the ``std`` of each number before it is clipped, float32 ``[B, size]``."""
        return {"mean": parameters, "std": self.log_std.exp().expand_as(parameters)}

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """For actions float32 ``[B, size]``; the probabilities are densities, the entropy is differential."""
        precisions = (-self.log_std).exp()
        deviations = (actions - parameters).mul_(precisions)
        squares = deviations.square()
        log_probs = squares.sum(dim=1).mul_(-0.5).sub_((self.log_std + LOG_SQRT_2PI).sum())
        entropy = (self.log_std + (0.5 + LOG_SQRT_2PI)).sum(dim=0, keepdim=True)

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, torch.Tensor]:
            by_mean = deviations.mul_(precisions).mul_(by_log_prob[:, None])
            by_log_std = by_log_prob @ squares.sub_(1.0)
            return by_mean, by_log_std.add_(by_entropy * len(actions))

        return Evaluation(log_probs, entropy, gradients)
