"""Images that Minari keeps as JPEG: one text of bytes for each."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.data.hdf5 import Hdf5File
from stoker.importing import required

__all__ = ["decoded"]


def decoded(file: Hdf5File, group: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The images of a data set of JPEG bytes: uint8 ``[N, *shape]``.

    Raises:
        MissingDependency: pillow is not installed.
        ValueError: An image is of another shape, or is damaged.
    """
    pillow = required("PIL.Image", "data", "pillow")
    texts = file.read_bytes(group, name)
    images = np.empty((len(texts), *shape), np.uint8)
    for at, text in enumerate(texts):
        with pillow.open(io.BytesIO(text), formats=["JPEG"]) as image:
            if (image.height, image.width) != shape[:2]:  # before it is decoded: it may claim any size
                raise ValueError(f"image {at} of {name} is {image.height} x {image.width}, not {shape}")
            pixels = np.asarray(image)
        if pixels.shape != shape:
            raise ValueError(f"image {at} of {name} is {pixels.shape}, not {shape}")
        images[at] = pixels
    return images
