"""The Q-network for images: three convolutions and a hidden layer, with autograd's gradient.

Here the kernels do the work, so autograd's notes on them cost nothing that would show.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stoker.agents.dqn.network import QNetwork, seeded
from stoker.agents.images import SMALLEST_SIDE, channel_axis
from stoker.errors import ConfigError

__all__ = ["NatureCNN"]

_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, width of the kernel and stride of each."""

_HIDDEN = 512


class NatureCNN(QNetwork):
    """Q-values of all actions of a game seen as images (Mnih et al. 2015, Methods, "Model architecture").

    A dueling head shares all layers but the last, where Wang et al. (2016) part before the hidden one.

    Args:
        observation_shape: of an image, at least 36 pixels high and wide, with its channels (stacked frames,
            colors) on the first axis or on the last: on the shorter of the two.
        observation_dtype: uint8.
        n_actions: how many values there are per observation.
        generator: a CPU generator that the weights are drawn from.
        normalizes: whether observations are normalized, as ``QNetwork`` says.
        dueling: whether it has a dueling head.

    Raises:
        ConfigError: The observations are no such images.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        n_actions: int,
        generator: torch.Generator,
        *,
        normalizes: bool = False,
        dueling: bool = False,
    ) -> None:
        super().__init__(observation_shape, observation_dtype, normalizes=normalizes, dueling=dueling)
        self._shape = tuple(observation_shape)
        channel_axis = _channel_axis(self._shape, observation_dtype)
        self._is_channels_last = channel_axis == 2
        *sides, channels = self._shape[channel_axis + 1 :] + self._shape[: channel_axis + 1]
        convolutions: list[nn.Conv2d] = []
        for n_filters, width, stride in _CONVOLUTIONS:
            convolution = nn.Conv2d(channels, n_filters, width, stride, device="meta")
            convolutions.append(seeded(convolution, generator))
            channels, sides = n_filters, [(side - width) // stride + 1 for side in sides]
        self.convolutions = nn.ModuleList(convolutions)
        n_features = channels * sides[0] * sides[1]
        self.hidden = seeded(nn.Linear(n_features, _HIDDEN, device="meta"), generator)
        self.head = seeded(nn.Linear(_HIDDEN, n_actions + dueling, device="meta"), generator)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        values = self.prepared(observations).view(-1, *self._shape)
        if self._is_channels_last:
            values = values.permute(0, 3, 1, 2)
        for convolution in self.convolutions:
            values = convolution(values).relu_()
        values = self.head(self.hidden(values.flatten(1)).relu_())
        return self.joined(values) if self.dueling else values

    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The values alone, which know by autograd how they came about."""
        with torch.enable_grad():
            return [self(observations)]

    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Let autograd write the gradient of all weights into their ``grad``."""
        self.zero_grad(set_to_none=False)  # it adds to them, and they stay where they are
        torch.autograd.backward(activations[-1], gradient)


def _channel_axis(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    axis = channel_axis(shape) if dtype is torch.uint8 else None
    if axis is not None:
        return axis
    raise ConfigError(
        f"network='nature_cnn' cannot see observations of {dtype} {list(shape)}: it takes uint8 images "
        f"[height, width, channels] or [channels, height, width], at least {SMALLEST_SIDE} high and wide and "
        "with fewer channels than either (gymnasium.wrappers.FrameStackObservation stacks frames); "
        "network='mlp' takes any shape"
    )
