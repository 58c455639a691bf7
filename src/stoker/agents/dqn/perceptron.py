"""The Q-network for vectors: a multi-layer perceptron, with its gradient written out.

In the fewest kernels: for networks of this size autograd's own work would take longer than the mathematics.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from stoker.agents.dqn.network import QNetwork, seeded

__all__ = ["Perceptron"]


class Perceptron(QNetwork):
    """Q-values of all actions (Mnih et al. 2015) by fully connected layers with ReLU between them.

    The same seed of the generator gives the same weights, on any device. A dueling head is one layer: its
    first row says what the state is worth, the others what each action adds.

    Args:
        observation_shape: the shape of one observation; it is flattened.
        observation_dtype: of the observations; uint8 is scaled from 0..255 to 0..1.
        n_actions: how many values there are per observation.
        hidden_sizes: the width of each hidden layer.
        generator: a CPU generator that the weights are drawn from.
        normalizes: whether observations are normalized, as ``QNetwork`` says.
        dueling: whether it has a dueling head.

    Attributes:
        weights: weight and bias of each layer, in order.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        n_actions: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
        *,
        normalizes: bool = False,
        dueling: bool = False,
    ) -> None:
        super().__init__(observation_shape, observation_dtype, normalizes=normalizes, dueling=dueling)
        sizes = [self.n_inputs, *hidden_sizes, n_actions + dueling]
        layers = [
            seeded(nn.Linear(inputs, outputs, device="meta"), generator)
            for inputs, outputs in itertools.pairwise(sizes)
        ]
        self.layers = nn.ModuleList(layers)
        self.weights = [(layer.weight, layer.bias) for layer in layers]  # without a search for each use

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        return self.activations(observations)[-1]

    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """What goes into each layer, float32 ``[B, width]``, and last the values that come out."""
        found = [self.prepared(observations)]
        *hidden, (weight, bias) = self.weights
        for hidden_weight, hidden_bias in hidden:
            found.append(functional.linear(found[-1], hidden_weight, hidden_bias).relu_())
        last = functional.linear(found[-1], weight, bias)
        found.append(self.joined(last) if self.dueling else last)
        return found

    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Write the gradient of all weights into their ``grad``, by the chain rule; without autograd."""
        if self.dueling:
            gradient = self.parted(gradient)
        for index in reversed(range(len(self.weights))):
            weight, bias = self.weights[index]
            inputs = activations[index]
            torch.mm(gradient.t(), inputs, out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if index:  # through the ReLU: no gradient where it gave zero
                gradient = torch.ops.aten.threshold_backward.default(gradient.mm(weight), inputs, 0)
