"""Which network observations get: convolutions for images, an mlp for all others. Free of torch."""

from __future__ import annotations

import math
import warnings
from typing import Literal, TypeAlias

__all__ = ["SMALLEST_SIDE", "Network", "channel_axis", "chosen_network"]

Network: TypeAlias = Literal["auto", "mlp", "nature_cnn"]
"""mlp: fully connected layers; nature_cnn: the convolutions of Mnih et al. (2015); auto: these for images."""

SMALLEST_SIDE = 36
"""Pixels per side of the smallest image that the convolutions of Mnih et al. (2015) can see."""


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of an image that holds its channels, first or last; None: convolutions cannot see it."""
    if len(shape) != 3:
        return None
    axis = 0 if shape[0] < shape[2] else 2
    least_side = min(side for at, side in enumerate(shape) if at != axis)
    return axis if least_side >= SMALLEST_SIDE and shape[axis] < least_side else None


def chosen_network(
    agent: str, setting: Network, shape: tuple[int, ...], *, is_uint8: bool
) -> Literal["mlp", "nature_cnn"]:
    """The network that a setting comes to; ``"auto"``: convolutions for images they can see, else an mlp.

    Images are uint8 of at least three axes. An image that gets an mlp, which does not know which pixels are
    neighbors, causes a warning.

    Args:
        agent: its name, for the warning.
        setting: ``"auto"``, or the network itself.
        shape: of one observation.
        is_uint8: whether observations are of that dtype.
    """
    is_image = is_uint8 and len(shape) >= 3
    is_visible = is_image and channel_axis(shape) is not None
    if setting == "auto":
        setting = "nature_cnn" if is_visible else "mlp"
    if is_image and setting == "mlp":
        way_out = (
            "network='auto' takes convolutions"
            if is_visible
            else "convolutions see [height, width, channels] or [channels, height, width] of at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE} pixels: resize the images, or stack gray ones"
        )
        warnings.warn(
            f"{agent} sees uint8 images {list(shape)} through an mlp, which learns little from "
            f"{math.prod(shape):,} unrelated numbers; {way_out}",
            stacklevel=3,
        )
    return setting
