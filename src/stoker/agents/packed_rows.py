"""Rows that observations are packed into, as networks read them: the way back from one array to its parts.

A row holds numbers, then one column per choice, then images, then a mask of actions::

    float32 [n_floats + n_mask]                          without images
    uint8   [4 * n_floats + bytes of images + n_mask]    with images: the floats as their bytes

A choice among n is kept as the place of its 1 in the vector that a network sees, not as that vector: 500
states take 4 bytes in a replay, not 2,000.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_FLOAT_BYTES = 4


class ImagePart(NamedTuple):
    """An image in a row of bytes.

    Attributes:
        columns: its bytes.
        shape: of the image.
        divisor: what brings its values to 0..1.
    """

    columns: slice
    shape: tuple[int, ...]
    divisor: float


class PackedRows(NamedTuple):
    """The layout of a row, and its reading by torch and numpy.

    Attributes:
        width: the items of a row.
        n_floats: the numbers and choices, which come first.
        n_numbers: how many of them are numbers.
        n_vector: the length of the vector that they give, with a one-hot vector for each choice.
        images: in their order.
        mask: the items of the action mask, each 0 or 1; None: there is none.
        is_normalized: which of the floats statistics normalize: numbers without fixed values, bool
            ``[n_floats]``.
    """

    width: int
    n_floats: int
    n_numbers: int
    n_vector: int
    images: tuple[ImagePart, ...]
    mask: slice | None
    is_normalized: NDArray[np.bool_]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a row: bytes, if there are images."""
        return np.dtype(np.uint8 if self.images else np.float32)

    @property
    def n_flat(self) -> int:
        """The length of the vector that ``flat`` gives."""
        return self.n_vector + sum(int(np.prod(image.shape)) for image in self.images)

    def float_columns(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers and choices of rows ``[..., width]`` in host memory: the same memory."""
        if not self.images:
            return rows[..., : self.n_floats]
        return rows[..., : _FLOAT_BYTES * self.n_floats].view(np.float32)

    def floats(self, rows: torch.Tensor) -> torch.Tensor:
        """The numbers and choices, float32 ``[B, n_floats]``."""
        if not self.images:
            return rows[:, : self.n_floats]
        # A copy: bytes in the middle of a replay's row may not be aligned.
        return rows[:, : _FLOAT_BYTES * self.n_floats].contiguous().view(torch.float32)

    def with_floats(self, rows: torch.Tensor, floats: torch.Tensor) -> torch.Tensor:
        """Copies of the rows with other numbers and choices."""
        if self.images:
            floats = floats.contiguous().view(torch.uint8)
        return torch.cat([floats, rows[:, floats.shape[1] :]], dim=1)

    def vector(self, floats: torch.Tensor) -> torch.Tensor:
        """The numbers, then a one-hot vector for each choice, float32 ``[B, n_vector]``."""
        if self.n_floats == self.n_numbers:
            return floats
        vector = floats.new_zeros((len(floats), self.n_vector))
        vector[:, : self.n_numbers] = floats[:, : self.n_numbers]
        return vector.scatter_(1, floats[:, self.n_numbers :].long(), 1.0)

    def image(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        """One of the images, float32 ``[B, *shape]`` from 0 to 1."""
        columns, shape, divisor = self.images[index]
        values = rows[:, columns].reshape(len(rows), *shape).float()
        return values if divisor == 1.0 else values.div_(divisor)

    def flat(self, rows: torch.Tensor, floats: torch.Tensor) -> torch.Tensor:
        """The vector of these floats, then each image flattened, float32 ``[B, n_flat]``."""
        vector = self.vector(floats)
        if not self.images:
            return vector
        images = [self.image(rows, index).flatten(1) for index in range(len(self.images))]
        return torch.cat([vector, *images], dim=1)

    def flat_array(self, rows: NDArray[Any], floats: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same in numpy."""
        vector = floats
        if self.n_floats > self.n_numbers:
            vector = np.zeros((len(floats), self.n_vector), np.float32)
            vector[:, : self.n_numbers] = floats[:, : self.n_numbers]
            # Twice as fast as ``put_along_axis``, which few rows notice.
            rows_of_ones = np.arange(len(floats))[:, None]
            vector[rows_of_ones, floats[:, self.n_numbers :].astype(np.int64)] = 1.0
        if not self.images:
            return vector
        images = [
            rows[:, image.columns].astype(np.float32) / np.float32(image.divisor) for image in self.images
        ]
        return np.concatenate([vector, *images], axis=1)
