"""The head of an implicit quantile network: from features and quantile fractions to outputs.

``f(psi(x) * phi(tau))`` of Dabney et al. (2018, section 3.1): features ``psi``, the embedding ``phi`` of a
fraction, and fully connected layers ``f``. Its gradient is written out. Rows lie quantile by quantile: a sum
over quantiles adds whole blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from stoker.agents.networks import MLP


class HeadPass(NamedTuple):
    """The tensors of a forward pass for N fractions of each of B rows.

    Attributes:
        features: psi, ``[B, F]``.
        cosines: ``[N * B, n_cosines]``.
        embedding: phi, ``[N * B, F]``.
        inputs: of each layer of f, ``[N * B, width]``.
        outputs: ``[N * B, n_outputs]``.
    """

    features: torch.Tensor
    cosines: torch.Tensor
    embedding: torch.Tensor
    inputs: Sequence[torch.Tensor]
    outputs: torch.Tensor


class QuantileHead(nn.Module):
    """The embedding of fractions and the layers behind it.

    Args:
        n_features: F, the width of psi.
        hidden_sizes: of the layers between the product and the outputs.
        n_outputs: of each fraction.
        n_cosines: the width of the embedding's input.
        n_midpoints: K, how many fractions ``mean`` is over.
        generator: a CPU generator that the weights are drawn from.
    """

    def __init__(
        self,
        n_features: int,
        hidden_sizes: Sequence[int],
        n_outputs: int,
        n_cosines: int,
        n_midpoints: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.embedding: MLP = MLP((n_cosines, n_features), "relu", generator)
        self.layers: MLP = MLP((n_features, *hidden_sizes, n_outputs), "relu", generator)
        self._frequencies = torch.arange(n_cosines) * math.pi
        # No buffer: it is no part of the weights, which are saved and sent.
        self.midpoints: torch.Tensor = self.cosines((torch.arange(n_midpoints) + 0.5) / n_midpoints)
        """The cosines of the fractions ``(k + 1/2) / K``, ``[K, n_cosines]``."""

    def cosines(self, fractions: torch.Tensor) -> torch.Tensor:
        """``cos(pi * i * tau)``, i from 0 (eq. 4), ``[number of fractions, n_cosines]``."""
        return (fractions.reshape(-1, 1) * self._frequencies.to(fractions.device)).cos_()

    def mean(self, features: torch.Tensor) -> torch.Tensor:
        """The mean of the outputs over the midpoints, ``[B, n_outputs]``, for features ``[B, F]``."""
        (weight, bias), *_ = self.embedding.weights
        embedding = functional.linear(self.midpoints.to(features.device), weight, bias).relu_()
        *hidden, (weight, bias) = self.layers.weights
        # What is behind the last ReLU is linear: it takes the mean instead of giving it.
        if not hidden:
            return functional.linear(features * embedding.mean(dim=0), weight, bias)
        rows = (embedding.unsqueeze(1) * features).reshape(-1, features.shape[1])
        for hidden_weight, hidden_bias in hidden:
            rows = functional.linear(rows, hidden_weight, hidden_bias).relu_()
        means = rows.view(len(self.midpoints), -1, rows.shape[1]).mean(dim=0)
        return functional.linear(means, weight, bias)

    def run(self, features: torch.Tensor, fractions: torch.Tensor) -> HeadPass:
        """The pass for fractions ``[N, B]`` of features ``[B, F]``."""
        cosines = self.cosines(fractions)
        (weight, bias), *_ = self.embedding.weights
        embedding = functional.linear(cosines, weight, bias).relu_()
        shape = (len(fractions), *features.shape)
        inputs = [(embedding.view(shape) * features).view(embedding.shape)]
        *hidden, (weight, bias) = self.layers.weights
        for hidden_weight, hidden_bias in hidden:
            inputs.append(functional.linear(inputs[-1], hidden_weight, hidden_bias).relu_())
        return HeadPass(features, cosines, embedding, inputs, functional.linear(inputs[-1], weight, bias))

    def backward(self, made: HeadPass, gradient: torch.Tensor) -> torch.Tensor:
        """Overwrite the gradients of the weights, given that by the outputs; return that by the features."""
        for index in reversed(range(len(self.layers.weights))):
            weight, bias = self.layers.weights[index]
            torch.mm(gradient.t(), made.inputs[index], out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            gradient = gradient.mm(weight)
            if index:  # through the ReLU: no gradient where it gave zero
                gradient = torch.ops.aten.threshold_backward.default(gradient, made.inputs[index], 0)
        shape = (-1, *made.features.shape)
        by_features = (gradient * made.embedding).view(shape).sum(dim=0)
        by_embedding = torch.ops.aten.threshold_backward.default(
            (gradient.view(shape) * made.features).view(gradient.shape), made.embedding, 0
        )
        (weight, bias), *_ = self.embedding.weights
        torch.mm(by_embedding.t(), made.cosines, out=weight.grad)
        torch.sum(by_embedding, 0, out=bias.grad)
        return by_features
