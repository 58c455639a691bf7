"""The layout of one transition in one row of bytes.

All columns of a replay share one memory, a row per transition, so that drawing a transition reads one place
instead of one per column. Rows are int64 words, which every device can copy and select; a column is a view
into them with the stride of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import torch

from stoker.errors import ConfigError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_from_numpy = torch.from_numpy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
from_numpy: Callable[[Array], torch.Tensor] = cast("Any", _from_numpy)
"""``torch.from_numpy``, with its types."""

_WORD_BYTES = 8


class ArraySpec(msgspec.Struct, frozen=True):
    """One array of a transition.

    Attributes:
        dtype: of its items.
        shape: ``()`` for a number.
    """

    dtype: torch.dtype
    shape: tuple[int, ...] = ()


class RowLayout:
    """The place of each field in a row, aligned to the size of its items.

    Args:
        fields: the fields by name, at least one byte in all; results have their order.
        places: the names in the order in which they lie in a row; None: in that of the fields.

    Attributes:
        fields: the same.
        getters: the arguments of ``ndarray.getfield`` that find a field in an array of ``raw`` rows.
        row_bytes: the size of a row, padding included; a multiple of 8.
        row_words: the same in int64 words.

    Raises:
        ConfigError: There is nothing to lay out, or numpy lacks a dtype.
    """

    def __init__(self, fields: Mapping[str, ArraySpec], places: Iterable[str] | None = None) -> None:
        self.fields = fields
        getters: dict[str, tuple[np.dtype[Any], int]] = {}
        self._strides: dict[str, tuple[int, ...]] = {}
        end, alignment = 0, _WORD_BYTES
        for name in fields if places is None else places:
            spec = fields[name]
            dtype = _numpy_dtype(name, spec.dtype)
            offset = _rounded_up(end, dtype.itemsize)
            getters[name] = np.dtype((dtype, spec.shape)), offset
            self._strides[name] = torch.empty(spec.shape, device="meta").stride()
            end = offset + dtype.itemsize * math.prod(spec.shape)
            alignment = math.lcm(alignment, dtype.itemsize)
        if end == 0:
            raise ConfigError("a row must hold at least one byte: give a field that is not empty")
        self.getters: dict[str, tuple[np.dtype[Any], int]] = {name: getters[name] for name in fields}
        self.row_bytes: int = _rounded_up(end, alignment)
        self.row_words: int = self.row_bytes // _WORD_BYTES

    def allocate(self, n_rows: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Uninitialized rows: int64 ``[n_rows, row_words]``."""
        if torch.device(device).type != "cpu":
            return torch.empty((n_rows, self.row_words), dtype=torch.int64, device=device)
        # numpy asks the system for huge pages where that pays: random reads then miss fewer translations
        return from_numpy(np.empty(n_rows * self.row_words, np.int64)).view(n_rows, self.row_words)

    def raw(self, rows: torch.Tensor) -> Array:
        """Rows in host memory as one opaque value each, void ``[n_rows]``: the same memory."""
        return rows.numpy().view(np.dtype((np.void, self.row_bytes))).reshape(len(rows))

    def arrays(self, rows: torch.Tensor) -> list[Array]:
        """Every field of rows in host memory, ``[n_rows, *shape]``: the same memory."""
        raw = self.raw(rows)
        return [raw.getfield(*getter) for getter in self.getters.values()]

    def tensors(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Every field of rows on any device, ``[n_rows, *shape]``: views of ``rows``."""
        views: list[torch.Tensor] = []
        for name, spec in self.fields.items():
            size = spec.dtype.itemsize
            items = rows.view(spec.dtype)
            views.append(
                items.as_strided(
                    (len(rows), *spec.shape),
                    (self.row_bytes // size, *self._strides[name]),
                    items.storage_offset() + self.getters[name][1] // size,
                )
            )
        return views


def _numpy_dtype(name: str, dtype: torch.dtype) -> np.dtype[Any]:
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be stored as {dtype}, which numpy lacks: use float32 or another dtype of numpy's"
        ) from error


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
