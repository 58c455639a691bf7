"""Columns that grow at their end: appending costs the same however long they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_VALUE_BYTES = 150
"""About what one distinct value of a column takes, with its place in the dict."""


class NumberColumn:
    """A growing array of numbers.

    A view stays what it was, whatever is appended or cleared later.

    Args:
        dtype: of the numbers.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._buffer: NDArray[Any] = np.empty(0, dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def n_bytes(self) -> int:
        """The memory that it takes."""
        return self._buffer.nbytes

    def append(self, values: NDArray[Any]) -> None:
        """Append the values, ``[n]``."""
        self._reserve(len(values))
        self._buffer[self._n : self._n + len(values)] = values
        self._n += len(values)

    def append_times(self, n: int, value: float) -> None:
        """Append the same value n times."""
        self._reserve(n)
        self._buffer[self._n : self._n + n] = value
        self._n += n

    def view(self) -> NDArray[Any]:
        """The values, ``[len(self)]``; do not write to them."""
        return self._buffer[: self._n]

    def _reserve(self, n_more: int) -> None:
        if self._n + n_more > len(self._buffer):
            n = max(self._n + n_more, 2 * self._n if self._n < _MILLION else self._n + self._n // 2)
            buffer = np.empty(n, self._buffer.dtype)
            buffer[: self._n] = self.view()
            self._buffer = buffer


_MILLION = 1 << 20


class ValueColumn:
    """A growing column of texts, numbers and None, most of which occur often: it holds their codes."""

    def __init__(self) -> None:
        self._codes = NumberColumn(np.int32)
        self._code_of: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def n_bytes(self) -> int:
        """The memory that it takes."""
        return self._codes.n_bytes + _VALUE_BYTES * len(self._code_of)

    def append(self, values: Iterable[Hashable], n: int) -> None:
        """Append n values."""
        code_of = self._code_of
        codes = (code_of.setdefault(value, len(code_of)) for value in values)
        self._codes.append(np.fromiter(codes, np.int32, n))

    def codes(self) -> tuple[NDArray[np.int32], Sequence[Any]]:
        """The codes, ``[len(self)]``, and the value of each code."""
        return self._codes.view(), list(self._code_of)

    def view(self) -> NDArray[Any]:
        """The values as an array of objects, ``[len(self)]``, made anew."""
        codes, values = self.codes()
        decoded = np.empty(len(values), object)
        decoded[:] = values
        return decoded[codes]
