"""How one transition lies in one row of bytes.

All columns of a replay share one memory, a row per transition, so that drawing a transition reads one place
instead of one per column. Rows are int64 words, which every device can copy and select; a column is a view
into them with the stride of a row. Used by ``stoker.replay.transition``; nothing here knows of rings or
draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from stoker.errors import ConfigError

__all__ = ["Field", "RowLayout"]

_WORD_BYTES = 8


class Field(NamedTuple):
    """One value of a row.

    Attributes:
        name: what it is called, once per layout.
        dtype: of its items.
        shape: of one row's value; ``()`` for a number.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...] = ()


class RowLayout:
    """Where each field lies in a row: in the order given, each aligned to the size of its items.

    A row is padded to whole words of 8 bytes. The fields of nested values are laid out flat, under names
    that tell them apart.

    Args:
        fields: what a row holds, at least one field of at least one byte.

    Attributes:
        fields: what a row holds, by name, in order.
        offsets: where each field begins in a row, in bytes, by name.
        row_bytes: the size of a row, padding included; a multiple of 8.
        row_words: the same in int64 words.

    Raises:
        ConfigError: There is nothing to lay out, a name comes twice or numpy lacks a dtype.
    """

    def __init__(self, fields: Iterable[Field]) -> None:
        given = tuple(fields)
        self.fields = {field.name: field for field in given}
        if len(self.fields) < len(given):
            raise ConfigError(f"field names must be unique, got {', '.join(field.name for field in given)}")
        self.offsets: dict[str, int] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        end, alignment = 0, _WORD_BYTES
        for field in given:
            dtype = _numpy_dtype(field)
            offset = _rounded_up(end, dtype.itemsize)
            self.offsets[field.name] = offset
            self._dtypes[field.name] = dtype
            end = offset + dtype.itemsize * math.prod(field.shape)
            alignment = math.lcm(alignment, dtype.itemsize)
        if end == 0:
            raise ConfigError("a row must hold at least one byte: give a field that is not empty")
        self.row_bytes = _rounded_up(end, alignment)
        self.row_words = self.row_bytes // _WORD_BYTES

    def dtype(self, name: str) -> np.dtype[Any]:
        """What numpy calls the dtype of a field's items."""
        return self._dtypes[name]

    def getter(self, name: str) -> tuple[np.dtype[Any], int]:
        """The arguments of ``ndarray.getfield`` that find a field in an array of ``raw`` rows."""
        return np.dtype((self._dtypes[name], self.fields[name].shape)), self.offsets[name]

    def allocate(self, n_rows: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """Memory for rows, not yet written: int64 ``[n_rows, row_words]``."""
        if torch.device(device).type != "cpu":
            return torch.empty((n_rows, self.row_words), dtype=torch.int64, device=device)
        # numpy asks the system for huge pages where that pays: random reads then miss fewer translations
        memory = np.empty(n_rows * self.row_words, np.int64)
        rows = torch.from_numpy(memory)  # pyright: ignore[reportUnknownMemberType]
        return rows.view(n_rows, self.row_words)

    def raw(self, rows: torch.Tensor) -> np.ndarray[Any, Any]:
        """Rows in host memory as one opaque value each, void ``[n_rows]``: the same memory."""
        return rows.numpy().view(np.dtype((np.void, self.row_bytes))).reshape(len(rows))

    def arrays(self, rows: torch.Tensor) -> dict[str, np.ndarray[Any, Any]]:
        """Every field of rows in host memory, ``[n_rows, *shape]``, by name: the same memory."""
        raw = self.raw(rows)
        return {name: raw.getfield(*self.getter(name)) for name in self.fields}

    def tensors(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every field of rows on any device, ``[n_rows, *shape]``, by name: views of ``rows``."""
        n_rows = rows.shape[0]
        items: dict[torch.dtype, torch.Tensor] = {}
        views: dict[str, torch.Tensor] = {}
        for name, field in self.fields.items():
            if field.dtype not in items:
                items[field.dtype] = rows.view(field.dtype)
            size = self._dtypes[name].itemsize
            views[name] = items[field.dtype].as_strided(
                (n_rows, *field.shape),
                (self.row_bytes // size, *_strides(field.shape)),
                items[field.dtype].storage_offset() + self.offsets[name] // size,
            )
        return views


def _numpy_dtype(field: Field) -> np.dtype[Any]:
    try:
        return torch.empty(0, dtype=field.dtype).numpy().dtype
    except TypeError as error:
        raise ConfigError(
            f"{field.name} cannot be stored as {field.dtype}, which numpy lacks: use float32 or another "
            "dtype of numpy's"
        ) from error


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a dense array of that shape, in items."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
