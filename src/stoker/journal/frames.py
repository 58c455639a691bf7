"""Frames: a payload with its length and a checksum, one behind the other, little endian.

    2 bytes magic | 4 bytes length | 4 bytes CRC-32 of the payload | payload

A frame counts only when it is there to the last byte and its checksum fits, so a flipped bit anywhere in it
is noticed. What follows the last one is a torn tail if no frame begins in it, and damage if one does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from stoker.errors import ConfigError

__all__ = ["HEADER_BYTES", "LONGEST_BYTES", "MAGIC", "find_frame", "frame", "needed_bytes", "scan"]

MAGIC = b"\xf5\x4a"
"""No text holds the first byte, and no run of equal bytes both."""

LONGEST_BYTES = 1 << 30
"""A length beyond this, or of 0, is damage."""

_HEADER = struct.Struct("<2sII")
HEADER_BYTES = _HEADER.size


def frame(payload: bytes) -> bytes:
    """The frame of a payload, which is not empty: magic and then zeros would be a whole frame of nothing.

    Raises:
        ConfigError: It is longer than ``LONGEST_BYTES``.
    """
    size = len(payload)
    if size > LONGEST_BYTES:
        raise ConfigError(
            f"an event of {size} bytes: the journal takes at most {LONGEST_BYTES}; pass journal=False to "
            "train without a journal"
        )
    return _HEADER.pack(MAGIC, size, zlib.crc32(payload)) + payload


def scan(data: bytes | bytearray, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The offset and payload of each frame from ``start`` on, up to the first thing that is none."""
    end = len(data)
    while end - start >= HEADER_BYTES:
        magic, size, checksum = _HEADER.unpack_from(data, start)
        stop = start + HEADER_BYTES + size
        if magic != MAGIC or not 0 < size <= LONGEST_BYTES or stop > end:
            return
        payload = bytes(data[start + HEADER_BYTES : stop])
        if zlib.crc32(payload) != checksum:
            return
        yield start, payload
        start = stop


def needed_bytes(data: bytes | bytearray, start: int) -> int:
    """How many bytes from ``start`` on the frame there takes; 0 where none can begin.

    Where fewer than a header's are there, a header's length: more of the file is to be read.
    """
    if len(data) - start < HEADER_BYTES:
        return HEADER_BYTES
    magic, size, _ = _HEADER.unpack_from(data, start)
    return HEADER_BYTES + size if magic == MAGIC and 0 < size <= LONGEST_BYTES else 0


def find_frame(data: bytes | bytearray, start: int, decodes: Callable[[bytes], bool]) -> int | None:
    """The offset of the first frame at or behind ``start`` whose payload also decodes, or None."""
    at = data.find(MAGIC, start)
    while at >= 0:
        for _, payload in scan(data, at):
            if decodes(payload):
                return at
            break
        at = data.find(MAGIC, at + 1)
    return None
