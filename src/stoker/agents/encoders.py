"""Encoders: the features of observations that have images, by convolutions, and of what is beside the images.

``chosen_network`` decides whether an agent's network begins with one. Without images its layers take
observations as one vector, and no encoder is needed.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec
import torch
from torch import nn
from torch.nn import functional

from stoker.agents.config import AgentConfig
from stoker.agents.networks import HIDDEN_GAIN, Activation, as_floats, seeded, tanh_
from stoker.agents.observations import Observations
from stoker.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=AgentConfig)

_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
_SMALL = ((16, 3, 1),)
"""Filters, width of the kernel and stride of each convolution."""

_NATURE_SIDE = 36  # the least that the convolutions of Mnih et al. (2015) see
_SMALL_SIDE = 3
_VISIBLE = "[height, width, channels] or [channels, height, width] of at least 3 x 3 pixels"

_NATURE_FEATURES, _SMALL_FEATURES = 512, 128
_NATURE_FEATURES_OF_MANY = 256


class Convolutions(nn.Module):
    """Features of an image, by convolutions and a hidden layer, with ReLU behind each.

    An image of at least 36 x 36 pixels is seen as in Mnih et al. (2015, Methods, "Model architecture"), a
    smaller one as in Young & Tian (2019, "MinAtar", section 4): by 16 filters of 3 x 3 and 128 units.

    Args:
        image_shape: as ``can_see`` takes it: ``[height, width, channels]`` or ``[channels, height, width]``,
            or a stack of such images, ``[n, *image_shape]``, which gives n times the channels.
        generator: a CPU generator that the weights are drawn from.
        gain: of orthogonal weights; None: see ``seeded``.
        n_features: how many; in the papers 512, or 128 for a small image.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        generator: torch.Generator,
        gain: float | None,
        n_features: int,
    ) -> None:
        super().__init__()
        *_, channels, height, width = shape = _channels_first(image_shape)
        self._image_axes = len(image_shape)
        self._has_channels_last = shape[-3:] != image_shape[-3:]
        self._is_small = not _is_large(image_shape)
        channels *= image_shape[0] if self._image_axes == _STACK_AXES else 1
        sides = [height, width]
        convolutions: list[nn.Conv2d] = []
        for n_filters, kernel, stride in _SMALL if self._is_small else _NATURE:
            convolution = nn.Conv2d(channels, n_filters, kernel, stride, device="meta")
            convolutions.append(seeded(convolution, generator, gain))
            channels, sides = n_filters, [(side - kernel) // stride + 1 for side in sides]
        self.convolutions: nn.ModuleList = nn.ModuleList(convolutions)
        n_flat = channels * sides[0] * sides[1]
        self.hidden: nn.Linear = seeded(nn.Linear(n_flat, n_features, device="meta"), generator, gain)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, n_features]`` of float32 ``[B, *image_shape]``."""
        values = images.movedim(-1, -3) if self._has_channels_last else images
        if self._image_axes == _STACK_AXES:
            values = values.flatten(1, 2)
        if self._is_small:  # where torch is faster, other than with many pixels
            values = values.contiguous()
        for convolution in self.convolutions:
            values = convolution(values).relu_()
        return self.hidden(values.flatten(1)).relu_()


class Encoder(nn.Module):
    """Features ``[B, n_features]`` of observations with images.

    Of a single image they are those of ``Convolutions``. Several images, or other parts beside them, are put
    together first, as Stable-Baselines3's ``CombinedExtractor`` does: the features of each image by its own
    convolutions, and the vector of numbers, bits and one-hot choices; then come fully connected layers of
    ``hidden_sizes``, so that a layer behind the features sees what the parts mean together. An image that is
    too small for convolutions counts as numbers.

    Args:
        observations: with at least one image that convolutions see; a Box counts as one.
        config: ``hidden_sizes`` are those of the layers behind several parts.
        activation: between those layers and behind the last.
        generator: a CPU generator that the weights are drawn from.
        is_orthogonal: whether weights are orthogonal, with a gain of sqrt(2); else see ``seeded``.
    """

    def __init__(
        self,
        observations: Observations,
        config: AgentConfig,
        activation: Activation,
        generator: torch.Generator,
        *,
        is_orthogonal: bool,
    ) -> None:
        super().__init__()
        gain = HIDDEN_GAIN if is_orthogonal else None
        plan = _Plan.of(observations, config)
        self._rows, self._seen, self._flat = observations.rows, plan.seen, plan.flat
        self.images: nn.ModuleList = nn.ModuleList(
            Convolutions(plan.shapes[index], generator, gain, n_features)
            for index, n_features in zip(plan.seen, plan.image_features, strict=True)
        )
        sizes = (plan.n_together, *plan.layers)
        self.layers: nn.ModuleList = nn.ModuleList(
            seeded(nn.Linear(inputs, outputs, device="meta"), generator, gain)
            for inputs, outputs in itertools.pairwise(sizes)
        )
        self.n_features: int = plan.n_features
        self._activation = activation

    @staticmethod
    def n_features_of(observations: Observations, config: AgentConfig) -> int:
        """The ``n_features`` of an encoder for these observations."""
        return _Plan.of(observations, config).n_features

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, n_features]`` of arrays or packed rows, as ``prepared`` gives them."""
        rows = self._rows
        if rows is None:
            return self.images[0](as_floats(observations))
        images = [rows.image(observations, index) for index in range(len(rows.images))]
        return self.of_parts(rows.vector(rows.floats(observations)), images)

    def of_parts(self, vector: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """The features of parts of packed observations.

        Args:
            vector: numbers, bits and one-hot choices, float32 ``[B, n_vector]``.
            images: each float32 ``[B, *shape]`` from 0 to 1.
        """
        flat = [vector, *(images[index].flatten(1) for index in self._flat)]
        found = [image(images[index]) for image, index in zip(self.images, self._seen, strict=True)]
        values = torch.cat([*flat, *found], dim=1) if len(flat) + len(found) > 1 else found[0]
        for layer in self.layers:
            values = layer(values)
            values = functional.relu(values, inplace=True) if self._activation == "relu" else tanh_(values)
        return values


class _Plan(NamedTuple):
    """The sizes of an encoder.

    Attributes:
        shapes: of all images.
        seen: those that have convolutions, by their places in ``shapes``.
        flat: the others.
        image_features: of each that is seen.
        n_together: the width of what is put together.
        layers: the widths of the layers behind it.
    """

    shapes: list[tuple[int, ...]]
    seen: list[int]
    flat: list[int]
    image_features: list[int]
    n_together: int
    layers: tuple[int, ...]

    @property
    def n_features(self) -> int:
        return self.layers[-1] if self.layers else self.n_together

    @classmethod
    def of(cls, observations: Observations, config: AgentConfig) -> _Plan:
        rows = observations.rows
        shapes = [observations.shape] if rows is None else [image.shape for image in rows.images]
        seen = [index for index, shape in enumerate(shapes) if can_see(shape)]
        flat = [index for index in range(len(shapes)) if index not in seen]
        n_vector = sum(math.prod(shapes[index]) for index in flat) + (0 if rows is None else rows.n_vector)
        is_alone = len(seen) == 1 and not n_vector
        large = _NATURE_FEATURES if is_alone else _NATURE_FEATURES_OF_MANY
        features = [large if _is_large(shapes[index]) else _SMALL_FEATURES for index in seen]
        layers = () if is_alone else config.hidden_sizes
        return cls(shapes, seen, flat, features, n_vector + sum(features), layers)


def chosen_network(agent: str, config: ConfigT, observations: Observations) -> ConfigT:
    """The settings with ``network="auto"`` replaced: ``"cnn"`` if there is an image, else ``"mlp"``.

    Images are uint8 or bool; of a Box alone, convolutions also see one of another dtype, whose values are not
    scaled, if they are asked for. An image that gets an mlp, which does not know which pixels are neighbors,
    causes a warning.

    Raises:
        ConfigError: ``network="cnn"`` and there is no image that convolutions can see.
    """
    images = [part.shape for part in observations.parts if part.kind == "image"]
    candidates = [observations.shape] if observations.rows is None else images
    visible = [shape for shape in candidates if can_see(shape)]
    chosen = config.network
    if chosen == "auto":
        chosen = "cnn" if set(visible) & set(images) else "mlp"
    if chosen == "cnn" and not visible:
        given = ", ".join(f"{part.dtype} {list(part.shape)}" for part in observations.parts)
        raise ConfigError(
            f"network='cnn' takes images {_VISIBLE} (gymnasium.wrappers.FrameStackObservation stacks gray "
            f"ones); it cannot see observations {given}: use network='mlp'"
        )
    if chosen == "mlp" and (largest := max(visible, key=math.prod, default=())) and largest in images:
        warnings.warn(
            f"{agent} sees images {list(largest)} through an mlp, which learns little from "
            f"{math.prod(largest):,} unrelated numbers; network='auto' takes convolutions",
            stacklevel=3,
        )
    return msgspec.structs.replace(config, network=chosen)


_IMAGE_AXES, _STACK_AXES = 3, 4


def can_see(shape: tuple[int, ...]) -> bool:
    """Whether convolutions see images, or stacks of images, of this shape."""
    if len(shape) not in (_IMAGE_AXES, _STACK_AXES):
        return False
    return min(_channels_first(shape)[-2:]) >= _SMALL_SIDE


def _is_large(shape: tuple[int, ...]) -> bool:
    """Whether the convolutions of Mnih et al. (2015) see images of this shape."""
    return min(_channels_first(shape)[-2:]) >= _NATURE_SIDE


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image, or of each of a stack, with its channels first.

    They are the axis beside two of the same length, or else the shorter one of the first and the last.
    """
    first, middle, last = shape[-3:]
    is_last = first == middle if (first == middle) != (middle == last) else last <= first
    return (*shape[:-3], last, first, middle) if is_last else shape
