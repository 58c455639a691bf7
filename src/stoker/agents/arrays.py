"""Arrays of one shape, as agents take them: the check of each, and how they are stored."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import InvalidExperience
from stoker.plain import shown
from stoker.replay import ArraySpec

SHORT = 16
"""The greatest length of a vector whose numbers are looked at one by one, which is then faster."""


class ArrayValues:
    """Arrays of one shape: the values of a space.

    Args:
        space: a Box, a MultiDiscrete or a MultiBinary.
        dtype: what they are stored as.
        kinds: the kinds of dtype, by numpy's letters, that they may come in.

    Attributes:
        shape: of one array.
        size: how many numbers an array has.
        dtype: what they are stored as.
    """

    def __init__(self, space: Any, dtype: np.dtype[Any], kinds: str) -> None:
        self.shape: tuple[int, ...] = tuple(space.shape)
        self.size: int = math.prod(self.shape)
        self.dtype = dtype
        self._kinds = kinds
        self._takes_floats = dtype.kind == "f"
        self._taken = f"give {dtype.name} {list(self.shape)}"
        self._low, self._high = _limits(dtype)
        self.is_short: bool = self._takes_floats and len(self.shape) == 1 and self.size <= SHORT
        """Whether the sum of an array's numbers, one by one, is the quickest way to look at them."""

    @property
    def spec(self) -> ArraySpec:
        """How a replay holds one."""
        return ArraySpec(torch.as_tensor(np.empty(0, self.dtype)).dtype, self.shape)

    def stack(self, values: Sequence[Any]) -> NDArray[Any]:
        """Checked values as one array ``[B, *shape]`` of the stored dtype."""
        given: Any = values
        if type(given) is np.ndarray:
            return given.astype(self.dtype, copy=False)
        rows = np.empty((len(values), *self.shape), self.dtype)
        for row, value in enumerate(values):
            rows[row] = value
        return rows

    def check(self, value: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for a value that is not finite numbers of this shape."""
        if type(value) is np.ndarray and value.shape == self.shape:
            dtype = value.dtype
            if not self._takes_floats:
                if dtype == self.dtype:
                    return
            elif dtype is self.dtype and self.is_short:
                # A sum with NaN or infinity is not finite.
                total = sum(value.tolist())
                if total - total == 0.0:
                    return
            # One product instead of a look at each number. It overflows for some arrays that are fine, which
            # the slow check clears. vdot and float: dot, and a comparison in half precision, would warn.
            elif dtype.kind == "f" and float(np.vdot(value, value)) <= self._high:
                return
        self._check_unusual(value, name)

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` surely passes each row of an array ``[B, *shape]``."""
        if type(rows) is not np.ndarray or rows.shape[1:] != self.shape:
            return False
        if not self._takes_floats:
            return rows.dtype == self.dtype
        if rows.dtype.kind != "f":
            return False
        flat = rows.reshape(-1)
        return float(np.vdot(flat, flat)) <= self._high

    def _array(self, value: Any, name: str) -> NDArray[Any]:
        """Anything numpy can read, if it has this shape and a fitting dtype; else ``InvalidExperience``."""
        taken = self._taken
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(f"{name}={shown(value)} is not an array ({error}): {taken}") from error
        if array.dtype.kind not in self._kinds:
            raise InvalidExperience(
                f"{name}={shown(value)} has dtype {array.dtype}, which does not fit: {taken}"
            )
        if array.shape != self.shape:
            raise InvalidExperience(f"{name}={shown(value)} has shape {list(array.shape)}: {taken}")
        return array

    def _check_unusual(self, value: Any, name: str) -> None:
        """The same check for anything numpy can read, and the search for what is wrong with it."""
        array = self._array(value, name)
        # A half-precision array would be compared with limits cut to infinity.
        exact = array.astype(np.float64) if array.dtype.kind == "f" else array
        fits = (exact >= self._low) & (exact <= self._high)  # False for NaN too
        if not fits.all():
            where = np.unravel_index(int(np.argmin(fits)), array.shape)
            place = f"{name}[{', '.join(str(int(index)) for index in where)}]" if where else name
            raise InvalidExperience(
                f"{place} is {array[where]}: {self._taken}, each value finite and from {self._low:g} to "
                f"{self._high:g}"
            )


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        most = min(float(np.finfo(dtype).max), sys.float_info.max)
        return -most, most
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def native_dtype(space: Any) -> np.dtype[Any]:
    """The dtype of the space's values in this machine's byte order."""
    return np.dtype(space.dtype.name)
