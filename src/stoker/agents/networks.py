"""Parts that networks are made of, with weights from a generator given in, never from torch's global one.

The same seed of the generator gives the same weights. They are orthogonal (Saxe et al. 2014), scaled by a
gain, with biases of zero: what policy gradients are usually begun with (Andrychowicz et al. 2021, "What
Matters for On-Policy Deep Actor-Critic Methods?", section 3.2). They are made on the CPU; move them after.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

import torch
from torch import nn
from torch.nn import functional

from stoker.agents.images import SMALLEST_SIDE, channel_axis
from stoker.errors import ConfigError

__all__ = ["MLP", "Activation", "NatureCNN", "as_floats", "seeded_conv", "seeded_linear"]

Activation = Literal["tanh", "relu"]
"""What stands between layers."""

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)
_HIDDEN_GAIN = math.sqrt(2)
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, width of the kernel and stride of each."""
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class MLP(nn.Module):
    """Fully connected layers with an activation between them; the last one's values come out as they are.

    Args:
        sizes: the width of what goes in, of each hidden layer and of what comes out.
        activation: between the layers.
        generator: a CPU generator that the weights are drawn from.
        output_gain: of the last layer's weights; those of the others have sqrt(2).

    Attributes:
        activation: between the layers.
    """

    def __init__(
        self, sizes: Sequence[int], activation: Activation, generator: torch.Generator, output_gain: float
    ) -> None:
        super().__init__()
        n_layers = len(sizes) - 1
        gains = [_HIDDEN_GAIN] * (n_layers - 1) + [output_gain]
        self.layers = nn.ModuleList(
            seeded_linear(inputs, outputs, generator, gain)
            for (inputs, outputs), gain in zip(itertools.pairwise(sizes), gains, strict=True)
        )
        self.activation: Activation = activation

    @property
    def weights(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weight and bias of each layer, in order."""
        layers = cast("list[nn.Linear]", list(self.layers))
        return [(layer.weight, layer.bias) for layer in layers]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, sizes[-1]]`` of float32 ``[B, sizes[0]]``."""
        activate = _ACTIVATIONS[self.activation]
        *hidden, (weight, bias) = self.weights
        for hidden_weight, hidden_bias in hidden:
            values = activate(functional.linear(values, hidden_weight, hidden_bias))
        return functional.linear(values, weight, bias)


class NatureCNN(nn.Module):
    """What an image shows, in 512 numbers: the convolutions and the hidden layer of Mnih et al. 2015
    (Methods, "Model architecture"), ReLU behind each.

    Args:
        image_shape: at least 36 pixels high and wide, with the channels (stacked frames, colors) on the
            first axis or on the last: on the shorter of the two.
        generator: a CPU generator that the weights are drawn from.

    Raises:
        ConfigError: These are no such images.
    """  # noqa: D205

    n_features = 512
    """How many numbers come out."""

    def __init__(self, image_shape: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        axis = channel_axis(image_shape)
        if axis is None:
            raise ConfigError(
                f"network='nature_cnn' cannot see observations {list(image_shape)}: it takes images "
                "[channels, height, width] or [height, width, channels], with fewer channels than pixels "
                f"in a row and at least {SMALLEST_SIDE} high and wide; network='mlp' takes any shape"
            )
        self._has_channels_last = axis == 2
        channels, *sides = image_shape[2:] + image_shape[:2] if self._has_channels_last else image_shape
        convolutions: list[nn.Conv2d] = []
        for n_filters, width, stride in _CONVOLUTIONS:
            convolutions.append(seeded_conv(channels, n_filters, width, stride, generator))
            channels, sides = n_filters, [(side - width) // stride + 1 for side in sides]
        self.convolutions = nn.ModuleList(convolutions)
        self.hidden = seeded_linear(channels * sides[0] * sides[1], self.n_features, generator, _HIDDEN_GAIN)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, 512]`` of float32 ``[B, *image_shape]``."""
        values = images.permute(0, 3, 1, 2) if self._has_channels_last else images
        for convolution in self.convolutions:
            values = convolution(values).relu_()
        return self.hidden(values.flatten(1)).relu_()


def as_floats(observations: torch.Tensor) -> torch.Tensor:
    """Observations as float32; uint8 is brought from 0..255 to 0..1."""
    if observations.dtype is torch.uint8:
        return observations.float() / 255
    return observations.float()


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> nn.Linear:
    """A fully connected layer with orthogonal weights."""
    # Built without memory, because the constructor would draw from the global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    return _initialized(layer, generator, gain)


def seeded_conv(inputs: int, outputs: int, kernel: int, stride: int, generator: torch.Generator) -> nn.Conv2d:
    """A convolution with orthogonal weights, made for a ReLU behind it."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, device="meta").to_empty(device="cpu")
    return _initialized(layer, generator, _HIDDEN_GAIN)


def _initialized(layer: _Layer, generator: torch.Generator, gain: float) -> _Layer:
    nn.init.orthogonal_(layer.weight, gain, generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
