"""The kinds of spaces, known without Gymnasium: a policy is loaded where that cannot be imported.

``isinstance`` and patterns with these classes hold for Gymnasium's spaces as well. A space made of them has
the attributes that agents read, by the names that Gymnasium gives them; it neither samples nor checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Kind(type):
    """Takes a class of Gymnasium of the same name, and what derives from it, for the same kind."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or any(
            each.__name__ == cls.__name__ and each.__module__.startswith("gymnasium.spaces.")
            for each in type(instance).__mro__
        )


class Space(metaclass=_Kind):
    """A space of arrays of one shape, or of several spaces.

    Attributes:
        shape: of a value.
        dtype: of a value.
    """

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any]


class Box(Space):
    """Arrays of numbers between bounds."""

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.low: NDArray[Any] = np.asarray(low, dtype)
        self.high: NDArray[Any] = np.asarray(high, dtype)

    def __repr__(self) -> str:
        return f"Box({_bound(self.low)}, {_bound(self.high)}, {self.shape}, {self.dtype})"


class Discrete(Space):
    """The ``n`` integers from ``start``."""

    def __init__(self, n: int, *, start: int = 0) -> None:
        self.n, self.start = np.int64(n), np.int64(start)
        self.dtype = np.dtype(np.int64)

    def __repr__(self) -> str:
        return f"Discrete({self.n}, start={self.start})" if self.start else f"Discrete({self.n})"


class MultiDiscrete(Space):
    """Arrays of integers, each of which has a count of values and a first one."""

    def __init__(self, nvec: NDArray[Any], *, dtype: Any, start: NDArray[Any]) -> None:
        self.nvec, self.start = nvec, start
        self.shape, self.dtype = nvec.shape, np.dtype(dtype)

    def __repr__(self) -> str:
        return f"MultiDiscrete({self.nvec}" + (f", start={self.start})" if self.start.any() else ")")


class MultiBinary(Space):
    """Arrays of zeros and ones."""

    def __init__(self, n: int | Sequence[int]) -> None:
        self.shape = (n,) if isinstance(n, int) else tuple(n)
        self.n = n if isinstance(n, int) else self.shape
        self.dtype = np.dtype(np.int8)

    def __repr__(self) -> str:
        return f"MultiBinary({self.n})"


class Dict(Space):
    """Values by name."""

    def __init__(self, spaces: Mapping[Any, Any]) -> None:
        self.spaces = spaces

    def __repr__(self) -> str:
        return "Dict(" + ", ".join(f"{key!r}: {each}" for key, each in self.spaces.items()) + ")"


class Tuple(Space):
    """Values in order."""

    def __init__(self, spaces: Sequence[Any]) -> None:
        self.spaces = tuple(spaces)

    def __repr__(self) -> str:
        return "Tuple(" + ", ".join(map(str, self.spaces)) + ")"


def _bound(numbers: NDArray[Any]) -> str:
    return str(numbers.min()) if numbers.size and numbers.min() == numbers.max() else str(numbers)
