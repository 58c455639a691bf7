"""How deep a message nests, found without decoding it: a decoder recurses, and a small stack would overflow.

Most messages have fewer brackets than levels are allowed, and are counted in a fraction of a microsecond. For
others the depth is found exactly, in a few passes over the bytes.
"""

from __future__ import annotations

import re
from typing import Final

from stoker.protocol.problems import ProtocolError

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def check_json_depth(data: bytes | str, most: int) -> None:
    """Refuse JSON that a decoder would go too deep into.

    Up to ``most`` levels pass; of bytes that are no JSON, up to twice as many.

    Raises:
        ProtocolError: It nests deeper.
    """
    if isinstance(data, str):
        if data.count("[") + data.count("{") <= most:
            return
        data = data.encode(errors="replace")
    elif data.count(b"[") + data.count(b"{") <= most:
        return
    # Two quotes side by side are a string without brackets in it, unless one is escaped.
    left = data.translate(_ONE_KIND, _NO_BRACKETS).replace(b'""', b"") if b"\\" not in data else b'"'
    if b'"' in left:
        left = _STRINGS.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(most):  # each pass takes the innermost pairs away
        if not left:
            return
        left = left.replace(b"[]", b"")
    if len(left) > most or b"[]" in left:
        raise _too_deep(most)


def check_msgpack_depth(data: bytes | str, most: int) -> None:
    """Refuse MessagePack that a decoder would go too deep into.

    Raises:
        ProtocolError: It nests deeper than ``most`` levels.
    """
    if isinstance(data, str):
        raise ProtocolError("malformed", "MessagePack is bytes, and this is text: send a binary frame")
    if len(data.translate(None, _NO_HEADERS)) <= most:
        return
    end, position, sizes = len(data), 0, _SIZES
    left, outer = 1, list[int]()  # the items that are still to come, here and at the levels around
    while position < end:
        while not left:
            if not outer:
                return  # what follows is refused by the decoder
            left = outer.pop()
        left -= 1
        first = data[position]
        size = sizes[first]
        if size:
            position += size
            continue
        position, count = _header(data, position, first)
        if count < 0:
            continue
        if len(outer) == most:
            raise _too_deep(most)
        outer.append(left)
        position, left = _past_numbers(data, position, count)


def _header(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Where the content of a container begins, and how many items it has; of other values the end and -1."""
    if first < 0x90:
        return at + 1, 2 * (first & 15)
    if first < 0xA0:
        return at + 1, first & 15
    width, extra, kind = _LENGTHS[first]
    length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    if kind:
        return at + 1 + width, kind * length
    return at + 1 + width + extra + length, -1


def _past_numbers(data: bytes, at: int, count: int) -> tuple[int, int]:
    """Skip the items of an array if all are floats, or all are small integers: most arrays are."""
    if 3 < count <= len(data) - at:
        size = _RUNS.get(data[at], 0)
        if size and data[at : at + count * size : size] == data[at : at + 1] * count:
            return at + count * size, 0
        if data[at] < 0x80 and data[at : at + count].isascii():
            return at + count, 0
    return at, count


def _too_deep(most: int) -> ProtocolError:
    return ProtocolError("too-deep", f"it nests deeper than {most} levels: send flatter values, or base64")


def _sizes() -> list[int]:
    """The length of a value by its first byte; 0: it has a length of its own."""
    sizes = [1] * 256
    sizes[0x80:0xA0] = [0] * 32
    sizes[0xA0:0xC0] = range(1, 33)
    fixed = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    fixed |= {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
    for first, size in (fixed | dict.fromkeys(_LENGTHS, 0)).items():
        sizes[first] = size
    return sizes


_LENGTHS: Final = {
    # first byte: the width of the length, bytes between it and the content, items per entry (0: bytes)
    0xC4: (1, 0, 0), 0xC5: (2, 0, 0), 0xC6: (4, 0, 0),  # bin
    0xC7: (1, 1, 0), 0xC8: (2, 1, 0), 0xC9: (4, 1, 0),  # ext
    0xD9: (1, 0, 0), 0xDA: (2, 0, 0), 0xDB: (4, 0, 0),  # str
    0xDC: (2, 0, 1), 0xDD: (4, 0, 1),  # array
    0xDE: (2, 0, 2), 0xDF: (4, 0, 2),  # map
}  # fmt: skip
_SIZES: Final = _sizes()
_RUNS: Final = {0xCA: 5, 0xCB: 9}
_NO_HEADERS: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF})
