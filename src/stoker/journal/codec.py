"""Values as bytes and back: what an observation, an action, policy extras or a small state may hold.

What comes back has the same types and the same bits. A message is one flat msgpack array; arrays, tensors,
bytes and containers are extension values, a container's being such a message again. So neither direction
nests deeper than is counted here, whatever a file holds, and nothing is ever unpickled. torch is imported
only where a tensor turns up.
"""

from __future__ import annotations

import functools
import math
import struct
import sys
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
from msgspec.msgpack import Ext
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.writer.staging import Place, path_of

Form = None | bool | int | float | str | Ext
"""What a message holds: plain values as they are, all else as an extension value."""

DEEPEST = 32
"""How deep containers may nest."""

_BYTES, _INT, LIST, TUPLE, DICT, ARRAY, SCALAR, _TENSOR = range(8)
_PLAIN = frozenset({type(None), bool, float, str})
_ARRAY_KINDS = frozenset("?biufcmMSU")
_LAYOUTS = 4096  # pairs of dtype and shape that are remembered: lengths that vary must not fill the memory

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Form])
_prefixes: dict[tuple[Any, Any], bytes] = {}
_latest: tuple[Any, Any, bytes] = (None, None, b"")  # a dtype, a shape and their prefix


def encode(value: Any, where: str = "value") -> bytes:
    """One value as bytes.

    Raises:
        ConfigError: It holds something that a journal cannot; the message says what and where.
    """
    return pack([form(value, where)])


def decode(data: bytes) -> Any:
    """The value that ``encode`` was given; its arrays and tensors have memory of their own.

    Raises:
        msgspec.DecodeError: These bytes are not of that kind.
    """
    forms = unpack(data)
    if len(forms) != 1:
        raise msgspec.DecodeError(f"{len(forms)} values where one was expected")
    return restore(forms[0])


def pack(forms: Sequence[Form]) -> bytes:
    """A message of these forms.

    Raises:
        ConfigError: A text among them is not valid Unicode, or a value is beyond 4 GiB.
    """
    try:
        return _encoder.encode(forms)
    except ValueError as error:  # UnicodeEncodeError too
        raise ConfigError(
            f"the journal cannot hold a value: {error}; pass journal=False to train without a journal"
        ) from error


def unpack(data: bytes) -> list[Form]:
    """The forms of a message; each is to go through ``restore``.

    Raises:
        msgspec.DecodeError: These bytes are not of that kind.
    """
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error


# Encoding -----------------------------------------------------------------------------------------


def form(value: Any, where: Place, depth: int = 0) -> Form:
    """The form of a value that ``pack`` takes.

    Args:
        value: None, a bool, int, float, str or bytes; a list, tuple or dict of these; a numpy array or
            scalar; a tensor on any device. Of exactly these types: a subclass would come back as another.
        where: what to call it in an error, for example ``observation``.
        depth: how many containers hold it.

    Raises:
        ConfigError: It holds something else, or nests deeper than ``DEEPEST``.
    """
    kind = cast("Any", type(value))
    if kind is np.ndarray:
        if (data := array_bytes(value)) is None:
            raise _refused(where, f"is an array of dtype {value.dtype}")
        return Ext(ARRAY, data)
    if kind in _PLAIN:
        return value
    if kind is int:
        if -(1 << 63) <= value < 1 << 64:
            return value
        # A generator's state has integers of 128 bits.
        return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    if isinstance(value, np.generic):
        array: NDArray[Any] = np.asarray(cast("Any", value))
        data = array_bytes(array)
        # Records and subclasses of a scalar's type have the same dtype as the type itself.
        if data is None or type(array[()]) is not kind:
            raise _refused(where, f"is a {kind.__module__}.{kind.__qualname__} of dtype {array.dtype}")
        return Ext(SCALAR, data)
    if kind is bytes:
        return Ext(_BYTES, value)
    if kind is list or kind is tuple or kind is dict:
        if depth == DEEPEST:
            raise _refused(where, f"is a {kind.__name__} at depth {depth + 1}")
        return _container_form(value, kind, where, depth + 1)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return Ext(_TENSOR, _tensor_bytes(torch, value, where))
    raise _refused(where, f"is a {kind.__module__}.{kind.__qualname__}")


def _container_form(value: Any, kind: Any, where: Place, depth: int) -> Form:
    if kind is not dict:
        parts = [form(part, (where, i, ""), depth) for i, part in enumerate(value)]
        return Ext(LIST if kind is list else TUPLE, pack(parts))
    forms: list[Form] = []
    for key, part in value.items():
        forms.append(form(key, (where, None, " (key)"), depth))
        forms.append(form(part, (where, key, ""), depth))
    return Ext(DICT, pack(forms))


def _refused(where: Place, problem: str) -> ConfigError:
    return ConfigError(
        f"{path_of(where)} {problem}, which the journal cannot hold: give arrays, tensors, numbers, text, "
        "bytes, None, or lists, tuples and dicts of these; or pass journal=False to train without a journal"
    )


def array_bytes(array: NDArray[Any]) -> bytes | None:
    """Dtype, shape and elements, row by row; None where the dtype has no such bytes."""
    global _latest  # noqa: PLW0603 - one tuple, so that threads never see half of it
    dtype, shape, prefix = _latest
    if array.dtype is not dtype or array.shape != shape:  # to hash both costs more than all else
        layout = (array.dtype, array.shape)
        found = _prefixes.get(layout)
        if found is None:
            if array.dtype.kind not in _ARRAY_KINDS:
                return None
            found = _remember(layout, array.dtype.str)
        prefix = found
        _latest = (*layout, prefix)
    return prefix + array.tobytes()


def _remember(layout: tuple[Any, Any], name: str) -> bytes:
    """The prefix for a dtype of that name and a shape: its own length, the shape, the name."""
    if len(_prefixes) >= _LAYOUTS:
        _prefixes.clear()
    shape = layout[1]
    rest = struct.pack(f"<B{len(shape)}Q", len(shape), *shape) + name.encode()
    prefix = _prefixes[layout] = struct.pack("<H", len(rest) + 2) + rest
    return prefix


def _tensor_bytes(torch: Any, tensor: Any, where: Place) -> bytes:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise _refused(where, f"is a tensor of {tensor.layout} and {tensor.dtype} on {tensor.device}")
    layout = (tensor.dtype, tuple(tensor.shape))
    prefix = _prefixes.get(layout)
    if prefix is None:
        prefix = _remember(layout, str(tensor.dtype).removeprefix("torch."))
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    try:
        return prefix + plain.view(torch.uint8).numpy().tobytes()
    except RuntimeError as error:  # types narrower than a byte
        raise _refused(where, f"is a tensor of {tensor.dtype}") from error


# Decoding -----------------------------------------------------------------------------------------


def restore(value: Form) -> Any:
    """The value of that form.

    Raises:
        msgspec.DecodeError: ``form`` does not make it.
    """
    if type(value) is not Ext:
        return value
    try:
        return _value(value, 0)
    except (IndexError, OverflowError, SyntaxError, TypeError, ValueError, struct.error) as error:
        if isinstance(error, msgspec.DecodeError):
            raise
        raise msgspec.DecodeError(f"{type(error).__name__}: {error}") from error


def _value(value: Form, depth: int) -> Any:
    if type(value) is not Ext:
        return value
    data = cast("bytes", value.data)
    match value.code:
        case 5:  # ARRAY, the one that counts
            return _array(data)
        case 6:  # SCALAR
            return _array(data)[()]
        case 7:  # _TENSOR
            return _tensor(data)
        case 0:  # _BYTES
            return data
        case 1:  # _INT
            return int.from_bytes(data, "little", signed=True)
        case 2 | 3 | 4 if depth < DEEPEST:
            parts = [_value(part, depth + 1) for part in unpack(data)]
            if value.code == LIST:
                return parts
            if value.code == TUPLE:
                return tuple(parts)
            return dict(zip(parts[::2], parts[1::2], strict=True))
        case _:
            raise msgspec.DecodeError(f"no value has the form {value.code} at depth {depth}")


def array_layout(data: bytes) -> tuple[Any, tuple[int, ...], int]:
    """Dtype and shape of an array from its bytes, and where its elements begin.

    Raises:
        msgspec.DecodeError, IndexError, TypeError, struct.error: These bytes are of no array.
    """
    size = data[0] | data[1] << 8
    return *_array_layout(data[:size]), size


def _array(data: bytes) -> NDArray[Any]:
    dtype, shape, size = array_layout(data)
    if len(data) != size + math.prod(shape) * dtype.itemsize:
        raise msgspec.DecodeError(f"{len(data)} bytes for an array of {dtype} {list(shape)}")
    return np.ndarray(shape, dtype, data, size).copy()


@functools.lru_cache(_LAYOUTS)
def _array_layout(prefix: bytes) -> tuple[Any, tuple[int, ...]]:
    name, shape = _layout_of(prefix)
    dtype: Any = np.dtype(name)
    if dtype.kind not in _ARRAY_KINDS:
        raise msgspec.DecodeError(f"no array here has the dtype {name!r}")
    return dtype, shape


def _layout_of(prefix: bytes) -> tuple[str, tuple[int, ...]]:
    n_axes = prefix[2]
    shape = struct.unpack_from(f"<{n_axes}Q", prefix, 3)
    return prefix[3 + 8 * n_axes :].decode(), shape


def _tensor(data: bytes) -> Any:
    import torch

    size = data[0] | data[1] << 8
    name, shape = _layout_of(data[:size])
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise msgspec.DecodeError(f"no tensor has the dtype {name!r}")
    if len(data) != size + math.prod(shape) * dtype.itemsize:
        raise msgspec.DecodeError(f"{len(data)} bytes for a tensor of {dtype} {list(shape)}")
    content = np.frombuffer(bytearray(data[size:]), np.uint8)  # a writable copy
    return torch.as_tensor(content).view(dtype).reshape(shape)
