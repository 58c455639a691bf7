"""What every Q-network has: its weights from a seed, the scale of its inputs, and the dueling head.

A network gives the values of all actions and writes the gradient of its weights, each kind in its own way:
``stoker.agents.dqn.perceptron`` by hand, ``stoker.agents.dqn.convolution`` by autograd. Weights come from a
generator given in, never from torch's global one.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

__all__ = ["QNetwork", "frozen_copy", "seeded"]

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


class QNetwork(nn.Module, ABC):
    """From observations to one value per action, and the gradient of that.

    With a dueling head the last layer gives a number for the state, then one for each action; ``joined``
    makes values of them (Wang et al. 2016, eq. 9).

    Args:
        observation_shape: the shape of one observation.
        observation_dtype: of the observations; uint8 is scaled from 0..255 to 0..1.
        normalizes: whether observations are shifted and scaled by ``set_moments`` first, and limited to
            ten standard deviations.
        dueling: whether it has a dueling head.

    Attributes:
        n_inputs: how many numbers an observation has.
        scale: what observations are multiplied with; None: nothing.
        normalizes: whether they are normalized.
        dueling: whether it has a dueling head.
    """

    input_mean: torch.Tensor
    input_scale: torch.Tensor

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        *,
        normalizes: bool,
        dueling: bool,
    ) -> None:
        super().__init__()
        self.n_inputs = math.prod(observation_shape)
        # Moments are those of the observations as they come: what they bring to scale is not scaled before.
        self.scale = 1 / 255 if observation_dtype is torch.uint8 and not normalizes else None
        self.normalizes = normalizes
        self.dueling = dueling
        if normalizes:  # buffers, so that each copy of the network has the moments that its weights go with
            self.register_buffer("input_mean", torch.zeros(self.n_inputs))
            self.register_buffer("input_scale", torch.ones(self.n_inputs))

    @abstractmethod
    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""

    @abstractmethod
    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """What ``backward`` needs of a forward pass, and last the values that come out."""

    @abstractmethod
    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Write the gradient of all weights over what is in their ``grad``, which must be there.

        Args:
            activations: as the method of that name gave them; used once.
            gradient: of what is minimised, with respect to the values, float32 ``[B, n_actions]``.
        """

    def set_moments(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Normalize by this mean and this inverse standard deviation, each ``[n_inputs]``, from now on."""
        self.input_mean.copy_(mean)
        self.input_scale.copy_(scale)

    def prepared(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations as the first layer takes them, but flat: float32 ``[B, n_inputs]``."""
        values = observations if observations.dim() == 2 else observations.reshape(-1, self.n_inputs)
        if values.dtype is not torch.float32:
            values = values.float()
        if self.scale is not None:
            values = values * self.scale
        if self.normalizes:
            values = (values - self.input_mean).mul_(self.input_scale).clamp_(-10.0, 10.0)
        return values

    @staticmethod
    def joined(streams: torch.Tensor) -> torch.Tensor:
        """``Q = V + A - mean A`` of a dueling head's ``[B, 1 + n_actions]``, which begins with V."""
        advantages = streams[:, 1:]
        return streams[:, :1] + advantages - advantages.mean(dim=1, keepdim=True)

    @staticmethod
    def parted(gradient: torch.Tensor) -> torch.Tensor:
        """The gradient with respect to what ``joined`` took, of that with respect to what it gave."""
        total = gradient.sum(dim=1, keepdim=True)
        return torch.cat([total, gradient - total / gradient.shape[1]], dim=1)


def frozen_copy(network: QNetwork) -> QNetwork:
    """A copy with its own memory that takes no gradients."""
    return copy.deepcopy(network).requires_grad_(requires_grad=False)


def seeded(layer: _Layer, generator: torch.Generator) -> _Layer:
    """Give a layer made on the device ``"meta"`` memory, and weights drawn from a CPU generator.

    They are distributed as torch's own layers have them, uniform within ``1 / sqrt(fan_in)`` of zero. A
    layer made elsewhere would have drawn from the global generator already.
    """
    layer = layer.to_empty(device="cpu")
    bound = 1 / math.sqrt(layer.weight[0].numel())
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
