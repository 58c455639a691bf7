"""Arrays of numbers as messages have them, read as arrays of numpy with every number checked.

A flat list of a few floats, which most observations are, takes about a microsecond. If a quick look does not
clear a value, each of its numbers is looked at, which finds the path of the first that is wrong.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, cast

import msgspec
import numpy as np
from gymnasium import spaces
from msgspec.msgpack import Ext
from numpy.typing import NDArray

from stoker.plain import shown
from stoker.protocol.encoding import ARRAY_EXT
from stoker.protocol.paths import place_of
from stoker.protocol.problems import ProtocolError

_SHORT: Final = 256
"""The greatest length of a vector that ``struct`` packs, which is then faster than numpy."""

LARGEST_NUMBER: Final = 1e13
"""From much larger observations, networks of 32 bits learn infinity, which ends the training of everybody."""

_EXACT: Final = 2.0**53
_DTYPES: Final = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    )
}  # fmt: skip


class BoxReader:
    """Reads the values of a Box.

    Args:
        space: of any shape, of floats, integers or bools.
    """

    def __init__(self, space: spaces.Box) -> None:
        self._shape: tuple[int, ...] = tuple(space.shape)
        self._size = math.prod(self._shape)
        self._dtype = np.dtype(space.dtype.name)
        self._is_float = self._dtype.kind == "f"
        is_short = (
            len(self._shape) == 1 and self._size <= _SHORT and self._dtype.name in ("float32", "float64")
        )
        self._letter = "f" if self._dtype.itemsize == 4 else "d"
        self._pack = struct.Struct(f"={self._size}{self._letter}").pack_into if is_short else None
        self._n_bytes = self._size * self._dtype.itemsize

    def read(self, value: Any, path: str | int) -> NDArray[Any]:
        """The value as an array with memory of its own.

        Raises:
            ProtocolError: It has another shape, or a number is not finite or out of range.
        """
        if (
            self._pack is not None
            and type(value) is list
            and len(numbers := cast("list[Any]", value)) == self._size
        ):
            data = _packed(self._pack, self._n_bytes, numbers)
            if data is not None:
                return np.ndarray(self._shape, self._dtype, data)
        return self._read_any(value, place_of(path))

    def column(self, values: Sequence[Any]) -> NDArray[Any] | None:
        """Several values as one array ``[B, *shape]``; None: ``read`` each, which finds what is wrong."""
        if self._pack is None or {*map(type, values)} != {list} or {*map(len, values)} != {self._size}:
            return None
        numbers = [*chain.from_iterable(values)]
        pack = partial(struct.pack_into, f"={len(numbers)}{self._letter}")
        data = _packed(pack, len(values) * self._n_bytes, numbers)
        return None if data is None else np.ndarray((len(values), *self._shape), self._dtype, data)

    def _read_any(self, value: Any, path: str) -> NDArray[Any]:
        array = array_of(value, self._shape, path)
        if self._is_float:
            return self._floats(array, path)
        return whole(array, path, *_limits(self._dtype)).astype(self._dtype)

    def _floats(self, array: NDArray[Any], path: str) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            floats = array.astype(self._dtype)
        fits = np.abs(floats) <= min(LARGEST_NUMBER, float(np.finfo(self._dtype).max))  # NaN is not
        if not fits.all():
            place, number = first_wrong(fits, array, path)
            what = "is too large" if math.isfinite(number) else "is not finite"
            raise ProtocolError("invalid", f"{number} {what}: clip it, or scale it", path=place)
        return floats


def _packed(pack: Callable[..., None], n_bytes: int, numbers: Sequence[Any]) -> bytearray | None:
    """The numbers in memory; None: a look at each finds which one is wrong, if any is."""
    data = bytearray(n_bytes)
    try:
        pack(data, 0, *numbers)
        return data if sum(map(abs, numbers)) <= LARGEST_NUMBER else None  # which no sum with NaN is
    except (struct.error, OverflowError, TypeError):
        return None


class WholeReader:
    """Reads whole numbers between bounds: the values of Discrete, MultiDiscrete and MultiBinary.

    Args:
        low: the least value of each, int64 of the shape of a value.
        high: the greatest.
        dtype: of the array.
    """

    def __init__(self, low: NDArray[np.int64], high: NDArray[np.int64], dtype: np.dtype[Any]) -> None:
        self._low, self._high = low, high
        self._dtype = dtype
        self._shape: tuple[int, ...] = low.shape
        self._first, self._last = (int(low), int(high)) if not low.shape else (1, 0)

    def read(self, value: Any, path: str | int) -> Any:
        """The value as an int, or as an array with memory of its own.

        A float that is whole is taken, because some languages know no other numbers.

        Raises:
            ProtocolError: It has another shape, or a number is not whole or out of range.
        """
        if type(value) is int and self._first <= value <= self._last:
            return value
        where = place_of(path)
        if isinstance(value, bool | np.bool_) and not self._shape:
            raise ProtocolError("invalid", f"{value} is no number: give an integer", path=where)
        numbers = whole(array_of(value, self._shape, where), where, self._low, self._high)
        return numbers.astype(self._dtype) if self._shape else int(numbers)


def array_of(value: Any, shape: tuple[int, ...], path: str) -> NDArray[Any]:
    """The value as an array of bools, integers or floats of that shape, its numbers not checked otherwise.

    Raises:
        ProtocolError: It is something else; the path names the place.
    """
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(cast("Any", value))
    elif isinstance(value, Ext):
        array = _extension(value, path)
    elif isinstance(value, Mapping):
        array = _base64(cast("Mapping[Any, Any]", value), path)
    else:
        _check_nested(value, shape, path)
        array = _from_lists(value, shape, path)
    if array.dtype.kind not in "biuf":
        raise ProtocolError("invalid", f"an array of {array.dtype} has no numbers: send numbers", path=path)
    if array.shape != shape:
        detail = f"an array of shape {list(array.shape)} does not fit: send {_named(shape)}"
        raise ProtocolError("invalid", detail, path=path)
    return array


def _check_nested(value: Any, shape: tuple[int, ...], path: str) -> None:
    """Refuse lists of another shape, or with anything but numbers in them."""
    if not shape:
        if not isinstance(value, int | float):
            raise ProtocolError("invalid", f"{shown(value)} is no number: send a finite number", path=path)
        return
    if not isinstance(value, list | tuple):
        raise ProtocolError("invalid", f"{shown(value)} is no array: send {_named(shape)}", path=path)
    items = cast("list[Any]", value)
    if len(items) != shape[0]:
        detail = f"it has {len(items)} {'values' if len(shape) == 1 else 'rows'}: send {_named(shape)}"
        raise ProtocolError("invalid", detail, path=path)
    if len(shape) == 1 and _NUMBERS.issuperset(map(type, items)):
        return
    for at, item in enumerate(items):
        _check_nested(item, shape[1:], f"{path}[{at}]")


_NUMBERS: Final = frozenset({int, float, bool})


def _from_lists(value: Any, shape: tuple[int, ...], path: str) -> NDArray[Any]:
    array = np.array(value)
    if array.dtype.kind in "biuf":
        return array if array.size else array.reshape(shape).astype(np.float64)
    # Integers beyond 64 bits are in it.
    try:
        return np.array(value, np.float64)
    except OverflowError:
        raise ProtocolError("invalid", "it has an integer that no float holds", path=path) from None


def _extension(value: Ext, path: str) -> NDArray[Any]:
    if value.code != ARRAY_EXT:
        detail = f"the extension type {value.code} is unknown: an array is type {ARRAY_EXT}"
        raise ProtocolError("invalid", detail, path=path)
    try:
        name, shape, data = _decode_array(value.data)
    except (msgspec.DecodeError, UnicodeError) as error:
        detail = f"the extension is no array of a dtype, a shape and bytes: {error}"
        raise ProtocolError("invalid", detail, path=path) from error
    return _from_bytes(name, shape, data, path)


_decode_array: Final = msgspec.msgpack.Decoder(tuple[str, list[int], bytes]).decode


def _base64(value: Mapping[Any, Any], path: str) -> NDArray[Any]:
    try:
        given = msgspec.convert(value, _Base64)
        data = base64.b64decode(given.b64, validate=True)
    except msgspec.ValidationError as error:
        detail = f'an array as an object is {{"b64", "dtype", "shape"}}: {error}'
        raise ProtocolError("invalid", detail, path=path) from error
    except ValueError as error:
        raise ProtocolError("invalid", f"it is no base64: {error}", path=f"{path}.b64") from error
    return _from_bytes(given.dtype, given.shape, data, path)


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    b64: str
    dtype: str
    shape: list[int]


def _from_bytes(name: str, shape: list[int], data: bytes, path: str) -> NDArray[Any]:
    dtype = _DTYPES.get(name)
    if dtype is None:
        raise ProtocolError("invalid", f"dtype={name!r}: use one of {', '.join(_DTYPES)}", path=path)
    if min(shape, default=0) < 0 or len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data):
        detail = f"{len(data)} bytes are no {name} array of shape {shape}"
        raise ProtocolError("invalid", detail, path=path)
    return np.frombuffer(data, dtype).reshape(shape)


def whole(array: NDArray[Any], path: str, low: Any, high: Any) -> NDArray[Any]:
    """The array if all of its numbers are whole and within the bounds.

    Raises:
        ProtocolError: One is not.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    fits: Any = (array >= low) & (array <= high)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # infinity has no remainder
            fits &= (array % 1 == 0) & (np.abs(array) <= _EXACT)
    if not np.all(fits):
        place, number = first_wrong(np.asarray(fits), array, path)
        where = np.unravel_index(int(np.argmin(fits)), array.shape) if array.shape else ()
        least, most = (np.broadcast_to(bound, array.shape)[where] for bound in (low, high))
        detail = f"{number} is not one of its values: send an integer from {least} to {most}"
        raise ProtocolError("invalid", detail, path=place)
    return array


def first_wrong(fits: NDArray[np.bool_], array: NDArray[Any], path: str) -> tuple[str, Any]:
    """The path of the first number that does not fit, and the number."""
    where = np.unravel_index(int(np.argmin(fits)), array.shape) if array.shape else ()
    return path + "".join(f"[{index}]" for index in where), array[where].item()


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _named(shape: tuple[int, ...]) -> str:
    if not shape:
        return "a number"
    return f"{shape[0]} numbers" if len(shape) == 1 else f"an array of shape {list(shape)}"
