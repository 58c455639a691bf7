"""Memos: what a client keeps of a decision until it reports the outcome, as one opaque text.

A memo is self-contained: with it the server knows the action, its policy extras and the policy's version
after a restart, too. It is not signed, because a client can spoil only what is learned of its own stream,
which it could do with wrong rewards as well. So it is checked like any value.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Final, NamedTuple, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.plain import shown
from stoker.protocol.encoding import encode_msgpack
from stoker.protocol.messages import LARGEST_REWARD
from stoker.protocol.nesting import check_msgpack_depth
from stoker.protocol.problems import ProtocolError


class Memo(NamedTuple):
    """What is known of a decision.

    Attributes:
        version: of the policy that chose the action; None: unknown.
        action: as messages have it, still to be read against the space.
        extras: what the policy recorded about it: None, a float, or float64 ``[n]``.
    """

    version: int | None
    action: Any
    extras: float | NDArray[np.float64] | None


Version = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    version: Version | None
    action: Any
    extras: float | list[float] | None


_decode: Final = msgspec.msgpack.Decoder(_Packed).decode
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_DEEPEST: Final = 8


def encode_memo(version: int | None, action: Any, extras: Any) -> str:
    """A decision as text.

    Args:
        version: of the policy.
        action: as the agent gave it, or as ``SpaceCodec.encode_action`` gives it.
        extras: None, a number, or a flat sequence or array of numbers.

    Raises:
        ConfigError: The extras are something else.
    """
    if extras is not None:
        extras = _plain_extras(extras)
    data = binascii.b2a_base64(encode_msgpack((version, action, extras)), newline=False)
    return data.translate(_TO_URL, b"=").decode()


def _plain_extras(extras: Any) -> float | list[float]:
    try:
        array = np.asarray(extras, np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim > 1:
        raise ConfigError(
            f"policy_extras={shown(extras)}: clients can keep numbers only: let the policy give a flat array"
        )
    return cast("float | list[float]", array.tolist())


def decode_memo(text: str, path: str) -> Memo:
    """What a client sends back.

    Raises:
        ProtocolError: No server gave that text, or it was changed.
    """
    try:
        data = text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4)
        packed = binascii.a2b_base64(data, strict_mode=True)
        check_msgpack_depth(packed, _DEEPEST)
        version, action, extras = msgspec.structs.astuple(_decode(packed))
    except (ValueError, UnicodeError) as error:  # of base64 and of msgspec
        raise _changed(path) from error
    if extras is None:
        return Memo(version, action, None)
    numbers = cast("list[float]", extras if isinstance(extras, list) else [extras])
    if not all(-LARGEST_REWARD <= number <= LARGEST_REWARD for number in numbers):  # NaN is not, either
        raise _changed(path)
    return Memo(version, action, np.array(numbers, np.float64) if numbers is extras else numbers[0])


def _changed(path: str) -> ProtocolError:
    detail = "it is no memo of an answer: send it back unchanged, or leave it out"
    return ProtocolError("invalid", detail, path=path)
