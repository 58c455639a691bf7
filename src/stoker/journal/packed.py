"""Many messages of the codec at once: those of one layout become columns, without an object for each value.

Messages have the same layout if they are of one length and differ only in numbers and in the elements of
arrays. Nearly all transitions of a training do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

import stoker.journal.codec as codec

_FEW = 4
"""Messages of one length are split into at most this many layouts; the rest are read one by one."""
_NUMBERS = {
    0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8",
    0xCB: ">f8",
}  # fmt: skip
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_EXT_WIDTHS = {0xC7: 1, 0xC8: 2, 0xC9: 4}


class _NoLayoutError(Exception):
    """A message that holds something else than numbers and arrays."""


class _Leaf(NamedTuple):
    """An array, number or text: where its bytes are in each message, and the type of its elements."""

    start: int
    stop: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    kind: str = "array"


class _Nested(NamedTuple):
    """A container of values: a dict with its keys, else a list or tuple."""

    code: int
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


class _Layout:
    """The layout of a message: what its values are, and which of its bytes must be the same in others."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._is_fixed = np.ones(len(message), np.bool_)
        self._small: list[int] = []  # bytes that are numbers by themselves
        self.values, end = self._values(0, is_outer=True)
        if end != len(message):
            raise _NoLayoutError
        self._places = np.flatnonzero(self._is_fixed)
        self._fixed = np.frombuffer(message, np.uint8)[self._places]

    def fits(self, rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the messages of its length have it."""
        fits = (rows[:, self._places] == self._fixed).all(axis=1)
        if self._small:
            fits &= (rows[:, self._small] < 0x80).all(axis=1)
        return fits

    def _values(self, at: int, *, is_outer: bool = False) -> tuple[list[Any], int]:
        """The values of the message that begins there, and where it ends."""
        first = self._message[at]
        if first >> 4 == 9:
            n_values, at = first & 15, at + 1
        elif first == 0xDC:
            n_values, at = int.from_bytes(self._message[at + 1 : at + 3], "big"), at + 3
        else:
            raise _NoLayoutError
        values: list[Any] = []
        for _ in range(n_values):
            value, at = self._value(at, is_outer)
            values.append(value)
        return values, at

    def _value(self, at: int, is_outer: bool) -> tuple[Any, int]:
        message, first = self._message, self._message[at]
        if first < 0x80:
            self._small.append(at)
            return self._leaf(at, np.dtype(np.uint8), (), "number"), at + 1
        if first == 0xC0:
            return None, at + 1
        if (name := _NUMBERS.get(first)) is not None:
            leaf = self._leaf(at + 1, np.dtype(name), (), "number")
            return leaf, leaf.stop
        if 0xA0 < first < 0xC0:
            size = first & 31
            if is_outer:
                return self._leaf(at + 1, np.dtype(f"V{size}"), (), "text"), at + 1 + size
            return message[at + 1 : at + 1 + size].decode(), at + 1 + size  # a key: the same in all
        if first in _FIXED_EXT:
            size, start = _FIXED_EXT[first], at + 2
        elif (width := _EXT_WIDTHS.get(first)) is not None:
            size, start = int.from_bytes(message[at + 1 : at + 1 + width], "big"), at + 2 + width
        else:
            raise _NoLayoutError
        return self._extension(message[start - 1], start, start + size), start + size

    def _leaf(self, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], kind: str = "array") -> _Leaf:
        stop = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._is_fixed[start:stop] = False
        return _Leaf(start, stop, dtype, shape, kind)

    def _extension(self, code: int, start: int, stop: int) -> Any:
        if code in (codec.ARRAY, codec.SCALAR):
            dtype, shape, begin = codec.array_layout(self._message[start:stop])
            leaf = self._leaf(start + begin, dtype, shape)
            if leaf.stop == stop:
                return leaf
        elif code in (codec.LIST, codec.TUPLE, codec.DICT):
            parts, end = self._values(start)
            if end == stop and code != codec.DICT:
                return _Nested(code, (), tuple(parts))
            if end == stop and all(isinstance(key, str) for key in parts[::2]):
                return _Nested(code, tuple(parts[::2]), tuple(parts[1::2]))
        raise _NoLayoutError


def columns_in(messages: Sequence[bytes]) -> Iterator[tuple[NDArray[np.intp], list[Any] | None]]:
    """The values of messages by layout.

    Returns:
        Places of messages in the sequence, and their values: a column for each number or array, with a row
        for each message; a dict, tuple or list of such for containers; None or a text where all have that.
        None instead: these are to be read one by one.
    """
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        data = b"".join([messages[place] for place in places.tolist()])
        rows = np.frombuffer(data, np.uint8).reshape(len(places), length)
        for _ in range(_FEW):
            if not len(places):
                break
            try:
                layout = _Layout(rows[0].tobytes())
            except (_NoLayoutError, IndexError, UnicodeDecodeError, msgspec.DecodeError):
                break
            fits = layout.fits(rows)
            fitting = rows if fits.all() else rows[fits]
            try:
                columns = [_column(value, fitting) for value in layout.values]
            except (UnicodeDecodeError, msgspec.DecodeError):
                break
            yield places[fits], columns
            places, rows = places[~fits], rows[~fits]
        if len(places):
            yield places, None


def _column(value: Any, rows: NDArray[np.uint8]) -> Any:
    match value:
        case _Leaf(start, stop, dtype, shape, kind):
            part = np.ascontiguousarray(rows[:, start:stop])
            column = part.view(dtype) if stop > start else np.empty((len(rows), 0), dtype)
            column = column.reshape(len(rows), *shape)
            if kind == "array":
                return column
            return _texts(column) if kind == "text" else _numbers(column)
        case _Nested(code, keys, parts):
            columns = [_column(part, rows) for part in parts]
            if code == codec.DICT:
                return dict(zip(keys, columns, strict=True))
            return tuple(columns) if code == codec.TUPLE else _stacked(columns)
        case _:
            return value


def column_of(values: Sequence[Any]) -> Any:
    """Single values as a column: a dict or tuple of columns for dicts and tuples.

    Raises:
        msgspec.DecodeError: They do not fit together.
    """
    first = values[0]
    try:
        if isinstance(first, dict):
            keys = cast("dict[Any, Any]", first)
            if not all(value.keys() == keys.keys() for value in values):
                raise msgspec.DecodeError("dicts of different keys")
            return {key: column_of([value[key] for value in values]) for key in keys}
        if isinstance(first, tuple):
            return tuple(column_of(parts) for parts in zip(*values, strict=True))
        column: NDArray[Any] = np.stack([np.asarray(value) for value in values])
    except (AttributeError, TypeError, ValueError) as error:
        raise msgspec.DecodeError(f"no column: {error}") from error
    if column.dtype.hasobject and not isinstance(first, np.ndarray):
        raise msgspec.DecodeError("no column: objects")
    return column


def _stacked(columns: list[Any]) -> Any:
    if not columns or not all(isinstance(column, np.ndarray) for column in columns):
        raise msgspec.DecodeError("a list of other things than numbers")
    return np.stack(columns, axis=1)


def _numbers(column: NDArray[Any]) -> NDArray[Any]:
    """As Python's numbers would be in a column."""
    if column.dtype.kind == "f":
        return column.astype(np.float64)
    is_large = column.dtype.itemsize == 8 and column.dtype.kind == "u" and bool((column >> 63).any())
    return column.astype(np.uint64 if is_large else np.int64)


def _texts(column: NDArray[Any]) -> NDArray[Any]:
    found, places = np.unique(column, return_inverse=True)
    texts = np.array([each.tobytes().decode() for each in found], np.object_)
    return texts[places.reshape(-1)]
