"""The Q-network: a multi-layer perceptron from an observation to one value per action, and its gradient.

Weights come from a generator given in, never from torch's global one. The gradient is written out, in the
fewest kernels: for networks of this size autograd's own work would take longer than the mathematics.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["QNetwork", "frozen_copy"]


class QNetwork(nn.Module):
    """Q-values of all actions (Mnih et al. 2015) by fully connected layers with ReLU between them.

    The same seed of the generator gives the same weights, on any device. They are distributed as those of
    ``nn.Linear``: uniform within ``1 / sqrt(fan_in)`` of zero.

    Args:
        observation_shape: the shape of one observation; it is flattened.
        observation_dtype: of the observations; uint8 is scaled from 0..255 to 0..1.
        n_actions: how many values there are per observation.
        hidden_sizes: the width of each hidden layer.
        generator: a CPU generator that the weights are drawn from.
        normalizes: whether observations are shifted and scaled by ``set_moments`` first, and limited to
            ten standard deviations.

    Attributes:
        scale: what observations are multiplied with; None: nothing.
        normalizes: whether they are normalised.
        weights: weight and bias of each layer, in order.
    """

    input_mean: torch.Tensor
    input_scale: torch.Tensor

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        n_actions: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
        *,
        normalizes: bool = False,
    ) -> None:
        super().__init__()
        sizes = [math.prod(observation_shape), *hidden_sizes, n_actions]
        self._inputs = sizes[0]
        self.scale = 1 / 255 if observation_dtype is torch.uint8 else None
        self.normalizes = normalizes
        if normalizes:  # buffers, so that each copy of the network has the moments that its weights go with
            self.register_buffer("input_mean", torch.zeros(self._inputs))
            self.register_buffer("input_scale", torch.ones(self._inputs))
        layers = [_seeded_linear(inputs, outputs, generator) for inputs, outputs in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.weights = [(layer.weight, layer.bias) for layer in layers]  # without a search for each use

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        return self.activations(observations)[-1]

    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """What goes into each layer, float32 ``[B, width]``, and last the values that come out."""
        found = [self._prepared(observations)]
        *hidden, (weight, bias) = self.weights
        for hidden_weight, hidden_bias in hidden:
            found.append(functional.linear(found[-1], hidden_weight, hidden_bias).relu_())
        found.append(functional.linear(found[-1], weight, bias))
        return found

    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Write the gradient of all weights into their ``grad``, by the chain rule.

        Args:
            activations: as the method of that name gave them, without autograd.
            gradient: of what is minimised, with respect to the values, float32 ``[B, n_actions]``.
        """
        for index in reversed(range(len(self.weights))):
            weight, bias = self.weights[index]
            inputs = activations[index]
            torch.mm(gradient.t(), inputs, out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if index:  # through the ReLU: no gradient where it gave zero
                gradient = torch.ops.aten.threshold_backward.default(gradient.mm(weight), inputs, 0)

    def set_moments(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Normalise by this mean and this inverse standard deviation, each ``[inputs]``, from now on."""
        self.input_mean.copy_(mean)
        self.input_scale.copy_(scale)

    def _prepared(self, observations: torch.Tensor) -> torch.Tensor:
        values = observations if observations.dim() == 2 else observations.reshape(-1, self._inputs)
        if values.dtype is not torch.float32:
            values = values.float()
        if self.scale is not None:
            values = values * self.scale
        if self.normalizes:
            values = (values - self.input_mean).mul_(self.input_scale).clamp_(-10.0, 10.0)
        return values


def frozen_copy(network: QNetwork) -> QNetwork:
    """A copy with memory of its own that takes no gradients."""
    return copy.deepcopy(network).requires_grad_(requires_grad=False)


def _seeded_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # Built without memory, because the constructor would draw from the global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
