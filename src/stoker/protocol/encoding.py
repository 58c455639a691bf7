"""Messages as bytes and back, JSON or MessagePack, with guards against bytes that nobody meant well.

Decoding is validation: what comes back has the types and the ranges of its struct, nests no deeper than
allowed, and every error is a ``ProtocolError`` that names the path. Nothing is ever unpickled. An array of
numpy may stand for any value: small ones become nested lists, others ``{"b64", "dtype", "shape"}`` in JSON
and the extension type 1 in MessagePack.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from msgspec.msgpack import Ext
from numpy.typing import NDArray

from stoker.plain import as_float
from stoker.protocol.greeting import HelloFrame
from stoker.protocol.messages import (
    LARGEST_FLOAT,
    MessageId,
    Record,
    StepMessage,
    StreamMessage,
)
from stoker.protocol.nesting import check_json_depth, check_msgpack_depth
from stoker.protocol.paths import joined
from stoker.protocol.problems import ProtocolError

Format: TypeAlias = Literal["json", "msgpack"]

ARRAY_EXT: Final = 1
"""The extension type of an array in MessagePack: the array ``[dtype, shape, bytes]``, encoded itself."""

DEPTH: Final = 16
"""How deep messages may nest, if nothing else is said."""

_SHORT: Final = 64  # up to this many numbers a list is about as short as base64, and anybody can read it

T = TypeVar("T")


# Encoding -----------------------------------------------------------------------------------------


def _json_hook(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array: NDArray[Any] = cast("Any", value)
        if array.size <= _SHORT:
            return array.tolist()
        data = base64.b64encode(_little_endian(array).tobytes()).decode()
        return {"b64": data, "dtype": array.dtype.name, "shape": list(array.shape)}
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    raise NotImplementedError(f"a {type(value).__qualname__} cannot be sent")


def _msgpack_hook(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.size > _SHORT:
        array: NDArray[Any] = cast("Any", value)
        packed = [array.dtype.name, array.shape, _little_endian(array).tobytes()]
        return Ext(ARRAY_EXT, _msgpack.encode(packed))
    return _json_hook(value)


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


_json = msgspec.json.Encoder(enc_hook=_json_hook)
_msgpack = msgspec.msgpack.Encoder(enc_hook=_msgpack_hook)

encode_json: Callable[[Any], bytes] = _json.encode
"""Any message as JSON."""

encode_msgpack: Callable[[Any], bytes] = _msgpack.encode
"""Any message as MessagePack."""


# Decoding -----------------------------------------------------------------------------------------

_CODECS: Final[dict[Format, Any]] = {"json": msgspec.json, "msgpack": msgspec.msgpack}
_STEP: Final = {form: codec.Decoder(StepMessage).decode for form, codec in _CODECS.items()}
_STREAM: Final = {form: codec.Decoder(StreamMessage).decode for form, codec in _CODECS.items()}


def decode_step(data: bytes | str, form: Format, depth: int = DEPTH) -> StepMessage:
    """The message of ``POST /v1/step``; its values are still to be read against the spaces.

    Raises:
        ProtocolError: It cannot be decoded, nests too deep, or a record contradicts itself.
    """
    message = _decoded(_STEP[form], data, form, depth)
    _check_records(message.steps)
    return message


def decode_stream(data: bytes | str, form: Format, depth: int = DEPTH) -> StreamMessage:
    """A message on a stream after the hello: records, or a ping.

    Raises:
        ProtocolError: As for ``decode_step``; or it has both, or neither. The error has the message's id, if
            that can be read.
    """
    try:
        message = _decoded(_STREAM[form], data, form, depth)
    except ProtocolError as error:
        if error.kind == "invalid":
            error.message_id = _id_of(data, form)
        raise
    try:
        if message.ping is not UNSET or not message.steps:
            _check_ping(message)
        _check_records(message.steps)
    except ProtocolError as error:
        error.message_id = message.id
        raise
    return message


def _check_ping(message: StreamMessage) -> None:
    if bool(message.steps) is (message.ping is not UNSET):
        wrong = "a ping has no steps" if message.steps else "it has neither steps nor a ping"
        raise ProtocolError("invalid", f"{wrong}: send either", path="steps")


def _id_of(data: bytes | str, form: Format) -> MessageId | UnsetType:
    """The id of a message that is well-formed, whatever else is wrong with it."""
    try:
        return _decoder(form, _Identified)(data).id
    except (msgspec.DecodeError, UnicodeError):
        return UNSET


class _Identified(msgspec.Struct):
    id: MessageId | UnsetType = UNSET


def decode_hello(data: bytes | str, form: Format, depth: int = DEPTH) -> HelloFrame:
    """The first message on a stream.

    Raises:
        ProtocolError: It is something else.
    """
    try:
        return decode(data, form, HelloFrame, depth)
    except ProtocolError as error:
        raise ProtocolError("bad-hello", error.detail, path=error.path) from error


def decode(data: bytes | str, form: Format, kind: type[T], depth: int = DEPTH) -> T:
    """Any message as that struct.

    Raises:
        ProtocolError: It cannot be decoded, or nests too deep.
    """
    return _decoded(_decoder(form, kind), data, form, depth)


@functools.cache
def _decoder(form: Format, kind: type[T]) -> Callable[[Any], T]:
    return _CODECS[form].Decoder(kind).decode


def _decoded(decoder: Callable[[Any], T], data: bytes | str, form: Format, depth: int) -> T:
    if form == "json":
        check_json_depth(data, depth)
    else:
        check_msgpack_depth(data, depth)
    try:
        try:
            return decoder(data)
        except msgspec.ValidationError as error:
            raise _invalid(error, data, form) from error
    except (msgspec.DecodeError, UnicodeError) as error:  # perhaps only behind a wrong value
        name = "JSON" if form == "json" else "MessagePack"
        raise ProtocolError("malformed", f"it is no valid {name}: {error}") from error


def _invalid(error: msgspec.ValidationError, data: bytes | str, form: Format) -> ProtocolError:
    """The problem of a message that is well-formed and has a wrong field: the path, as clients write it."""
    text, _, place = str(error).rpartition(" - at `$")
    if not text:
        text, place = place, ""
    path = place.removesuffix("`").removeprefix(".")
    if named := _NAMED.search(text):
        path = joined(path, named[1])
    elif path.endswith("[...]"):
        path = _key_at(path.removesuffix("[...]"), data, form)
    return ProtocolError("invalid", text[:_LONGEST], path=path[:_LONGEST] or None)


_NAMED: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$", re.DOTALL)
_LONGEST: Final = 500
_KEY: Final = 128


def _key_at(path: str, data: bytes | str, form: Format) -> str:
    """The path of the first value in extras that is no number; messages have no other maps of one type."""
    found: Any = _CODECS[form].decode(data)
    try:
        for step in re.findall(r"[^.\[\]]+", path):
            found = found[int(step) if step.isdecimal() else step]
        items = cast("dict[Any, Any]", found).items()
    except (LookupError, TypeError, AttributeError):  # a field came twice, and the last one counts here
        return path
    for key, value in items:
        number = as_float(value) if type(value) is not bool else None
        if type(key) is not str or len(key) > _KEY or number is None or not abs(number) <= LARGEST_FLOAT:
            return joined(path, str(key))
    return path


# Records ------------------------------------------------------------------------------------------


def _check_records(steps: list[Record]) -> None:
    """Refuse records that contradict themselves, whatever came before them."""
    for at, record in enumerate(steps):
        if record.start:
            if (wrong := next(_out_of_place(record), None)) is not None:
                detail = "the first record of an episode has none: send it with the next record"
                raise ProtocolError("invalid", detail, path=f"steps[{at}].{wrong}")
        elif record.reward is None:
            detail = "it is missing: each record but the first of an episode, which has `start`, needs one"
            raise ProtocolError("invalid", detail, path=f"steps[{at}].reward")
        elif record.seed is not None:
            detail = "only the first record of an episode, which has `start`, has one"
            raise ProtocolError("invalid", detail, path=f"steps[{at}].seed")
        elif record.extras and not record.is_last:
            detail = "they are of a whole episode: send them with the record that ends it"
            raise ProtocolError("invalid", detail, path=f"steps[{at}].extras")
        if not record.actor.isprintable():
            detail = "it has characters that cannot be printed: use letters, digits, -, _, / and the like"
            raise ProtocolError("invalid", detail, path=f"steps[{at}].actor")


def _out_of_place(record: Record) -> Iterator[str]:
    """What a record with ``start`` has and must not have."""
    names = ("action", "memo", "reward", "terminated", "truncated", "extras")
    return (name for name in names if getattr(record, name) not in (None, False, {}))
