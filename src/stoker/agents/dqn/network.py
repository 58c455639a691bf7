"""The Q-network: a multi-layer perceptron from an observation to one value per action.

Weights come from a generator given in, never from torch's global one.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

__all__ = ["QNetwork", "blend_weights", "copy_weights", "frozen_copy"]


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
        self._scale = 1 / 255 if observation_dtype is torch.uint8 else None
        self._normalizes = normalizes
        if normalizes:  # buffers, so that each copy of the network has the moments that its weights go with
            self.register_buffer("input_mean", torch.zeros(self._inputs))
            self.register_buffer("input_scale", torch.ones(self._inputs))
        self.layers = nn.ModuleList(
            _seeded_linear(inputs, outputs, generator) for inputs, outputs in itertools.pairwise(sizes)
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        values = observations.reshape(-1, self._inputs).float()
        if self._scale is not None:
            values = values * self._scale
        if self._normalizes:
            values = ((values - self.input_mean) * self.input_scale).clamp(-10.0, 10.0)
        *hidden, head = self.layers
        for layer in hidden:
            values = torch.relu(layer(values))
        return head(values)

    def set_moments(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Normalise by this mean and this inverse standard deviation, each ``[inputs]``, from now on."""
        self.input_mean.copy_(mean)
        self.input_scale.copy_(scale)


def frozen_copy(network: QNetwork) -> QNetwork:
    """A copy with memory of its own that takes no gradients."""
    return copy.deepcopy(network).requires_grad_(requires_grad=False)


def copy_weights(source: QNetwork, destination: QNetwork) -> None:
    """Make the destination's weights equal to the source's, in place."""
    with torch.no_grad():
        for old, new in _pairs(source, destination):
            old.copy_(new)


def blend_weights(source: QNetwork, destination: QNetwork, tau: float) -> None:
    """Move the destination's weights the fraction ``tau`` towards the source's (Lillicrap et al. 2016)."""
    with torch.no_grad():
        for old, new in _pairs(source, destination):
            old.lerp_(new, tau)


def _pairs(source: QNetwork, destination: QNetwork) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Destination and source tensor of each weight and each moment."""
    yield from zip(destination.parameters(), source.parameters(), strict=True)
    yield from zip(destination.buffers(), source.buffers(), strict=True)


def _seeded_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # Built without memory, because the constructor would draw from the global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
