"""Frames: each flipped bit is noticed, and what follows damage is found."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from stoker.journal import frames

payload_lists = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


def as_bytes(payloads: list[bytes]) -> bytes:
    return b"".join(map(frames.frame, payloads))


def payloads_in(data: bytes, start: int = 0) -> list[bytes]:
    return [payload for _, payload in frames.scan(data, start)]


@given(payload_lists, st.integers(0, 3))
def test_frames_come_back_in_order_with_their_offsets(payloads: list[bytes], start: int) -> None:
    data = b"x" * start + as_bytes(payloads)
    at = start
    for (offset, payload), expected in zip(frames.scan(data, start), payloads, strict=True):
        assert (offset, payload) == (at, expected)
        at += len(frames.frame(payload))


@given(payload_lists)
def test_a_cut_gives_the_frames_before_it(payloads: list[bytes]) -> None:
    data = as_bytes(payloads)
    ends = [len(as_bytes(payloads[: i + 1])) for i in range(len(payloads))]
    for cut in range(len(data) + 1):
        assert payloads_in(data[:cut]) == payloads[: sum(end <= cut for end in ends)]


def test_each_flipped_bit_is_noticed_and_the_next_frame_found() -> None:
    first, second = frames.frame(b"first payload"), frames.frame(b"second")
    for bit in range(8 * len(first)):
        data = bytearray(first + second)
        data[bit // 8] ^= 1 << bit % 8
        assert payloads_in(bytes(data)) == []
        assert frames.find_frame(data, 1, lambda payload: payload == b"second") == len(first)


@pytest.mark.parametrize(
    "tail",
    [b"", b"\0" * 100, frames.MAGIC + b"\0" * 50, frames.MAGIC * 20, frames.frame(b"abc")[:-1], b"\xff" * 64],
)
def test_no_frame_is_found_in_what_is_none(tail: bytes) -> None:
    assert payloads_in(tail) == []
    assert frames.find_frame(tail, 0, lambda _: True) is None


def test_a_frame_that_does_not_decode_is_passed_over() -> None:
    data = frames.frame(b"a") + frames.frame(b"b")
    assert frames.find_frame(data, 0, lambda payload: payload == b"b") == len(frames.frame(b"a"))


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (b"", 10),
        (frames.MAGIC, 10),
        (frames.frame(b"abc"), 13),
        (frames.frame(b"abc")[:10], 13),
        (b"\0" * 10, 0),
        (frames.MAGIC + b"\0" * 8, 0),
        (frames.MAGIC + b"\xff" * 8, 0),
    ],
)
def test_how_much_a_frame_takes_is_told_from_its_header(data: bytes, needed: int) -> None:
    assert frames.needed_bytes(data, 0) == needed
