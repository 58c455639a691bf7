"""Messages as bytes: what is refused, and with which path; and that every message comes back as it was."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from msgspec.msgpack import Ext

from stoker.protocol import (
    ProtocolError,
    Record,
    StepMessage,
    StreamMessage,
    decode_hello,
    decode_step,
    decode_stream,
    encode_json,
    encode_msgpack,
)
from stoker.protocol.nesting import check_json_depth, check_msgpack_depth

STEP = {"actor": "npc-7", "seq": 2, "observation": [0.5], "reward": 1.0}
ENCODE: dict[Any, Callable[[Any], bytes]] = {"json": encode_json, "msgpack": encode_msgpack}
FORMS = ("json", "msgpack")


def message(**changes: Any) -> dict[str, Any]:
    """A message of two records, of which the second one has changes."""
    return {"steps": [STEP, {**STEP, "seq": 3, **changes}]}


def without(name: str) -> dict[str, Any]:
    return {"steps": [STEP, {key: value for key, value in STEP.items() if key != name}]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (message(foo=1), "steps[1].foo"),
        (message(**{"a b": 1}), 'steps[1]["a b"]'),
        (without("actor"), "steps[1].actor"),
        (without("observation"), "steps[1].observation"),
        (without("reward"), "steps[1].reward"),
        (message(seq="3"), "steps[1].seq"),
        (message(seq=0), "steps[1].seq"),
        (message(seq=2**53), "steps[1].seq"),
        (message(seq=2**63), "steps[1].seq"),
        (message(seq=1.5), "steps[1].seq"),
        (message(actor=""), "steps[1].actor"),
        (message(actor="a" * 129), "steps[1].actor"),
        (message(actor="a\nb"), "steps[1].actor"),
        (message(reward="NaN"), "steps[1].reward"),
        (message(reward=1e39), "steps[1].reward"),
        (message(reward=-1.1e9), "steps[1].reward"),
        (message(reward=True), "steps[1].reward"),
        (message(seed=1), "steps[1].seed"),
        (message(mode="greedy"), "steps[1].mode"),
        (message(extras={"is_success": 1.0}), "steps[1].extras"),
        (message(terminated=True, extras={"wins": 1, "name": "x"}), "steps[1].extras.name"),
        (message(terminated=True, extras={"wins": 1, "a b": None}), 'steps[1].extras["a b"]'),
        (message(start=True), "steps[1].reward"),
        ({"steps": [{**STEP, "start": True, "reward": None, "terminated": True}]}, "steps[0].terminated"),
        ({"steps": []}, "steps"),
        ({"steps": [STEP] * 1025}, "steps"),
        ({"steps": [STEP], "ack": "soon"}, "ack"),
        ({"steps": [STEP], "id": 2**60}, "id"),
        ({}, "steps"),
        ([], None),
        (None, None),
    ],
)
def test_a_wrong_field_is_named(form: Any, sent: Any, path: str | None) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_step(ENCODE[form](sent), form)
    assert (caught.value.kind, caught.value.path) == ("invalid", path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_of_msgpack_are_finite(value: float) -> None:
    for sent, path in (
        (message(reward=value), "steps[1].reward"),
        (message(truncated=True, extras={"ok": 1.0, "bad": value}), "steps[1].extras.bad"),
    ):
        with pytest.raises(ProtocolError) as caught:
            decode_step(encode_msgpack(sent), "msgpack")
        assert caught.value.path == path


BAD_EXTRAS = b'{"steps":[{"actor":"a","seq":1,"observation":0,"extras":{"":null}'
"""Further damage behind a wrong value, or another value of the same name, must not break what names it."""
DEEP = b'{"steps":[{"actor":"a","seq":1,"observation":'


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b'{"steps":[NaN]}', "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"steps":[{"actor":"\xed\xa0\x80"}]}', "malformed"),
        (b'{"steps":[{"actor":"\\udc00","seq":1}]}', "malformed"),
        (b'{"steps":[{"actor":"\\ud800","seq":1}]}', "malformed"),
        (BAD_EXTRAS + b"}]}", "invalid"),
        (BAD_EXTRAS + b"}]}{}", "malformed"),
        (BAD_EXTRAS, "malformed"),
        (BAD_EXTRAS + b',"extras":5}]}', "invalid"),
        (BAD_EXTRAS + b'}],"steps":[]}', "invalid"),
        (b"[" * 100_000, "too-deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too-deep"),
        (b'{"a":' * 100_000, "too-deep"),
        (DEEP + b'["]",' * 100_000, "too-deep"),
        (DEEP + b'["\\"]",' * 100_000, "too-deep"),
    ],
)
def test_bytes_that_are_no_message_are_refused_in_a_small_stack(data: bytes, kind: str) -> None:
    assert refused_in_a_small_stack(data, "json") == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x81\xa5steps\xdd\xff\xff\xff\xff", "invalid"),
        (b"\x81\xa1\xff\x01", "malformed"),
        (b"\x81\xa5steps\xd9\xff", "malformed"),
        (b"\x91" * 100_000, "too-deep"),
        (b"\x81\xa1a" * 100_000, "too-deep"),
        (b"\xdc\x00\x01" * 100_000, "too-deep"),
        (b"\xdf\x00\x00\x00\x01\xc0" * 100_000, "too-deep"),
        (b"\x92\xcb" + bytes(8) + b"\x92" * 100_000, "too-deep"),
    ],
)
def test_msgpack_that_is_no_message_is_refused_in_a_small_stack(data: bytes, kind: str) -> None:
    assert refused_in_a_small_stack(data, "msgpack") == kind


def refused_in_a_small_stack(data: bytes, form: Any) -> str:
    """The kind of problem that a thread finds whose stack a deep recursion would leave."""
    found: list[str] = []

    def decode() -> None:
        try:
            decode_step(data, form)
        except ProtocolError as error:
            found.append(error.kind)

    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=decode)
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    return found[0]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(PLAIN, st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_the_depth_is_found_exactly(value: Any, most: int) -> None:
    for check, data in (
        (check_json_depth, encode_json(value)),
        (check_json_depth, encode_json(value).decode()),
        (check_msgpack_depth, encode_msgpack(value)),
    ):
        if depth_of(value) <= most:
            check(data, most)
        else:
            with pytest.raises(ProtocolError, match="too deep"):
                check(data, most)


RECORDS = st.builds(
    Record,
    actor=st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1, max_size=9),
    seq=st.integers(1, 2**53 - 1),
    observation=PLAIN,
    action=PLAIN,
    memo=st.none() | st.text("abc-_", max_size=9),
    reward=st.floats(-1e6, 1e6),
    terminated=st.booleans(),
    truncated=st.booleans(),
    act=st.booleans(),
    learn=st.booleans(),
    mode=st.sampled_from(("explore", "exploit")),
)


@given(st.lists(RECORDS, min_size=1, max_size=3), st.integers(-9, 9) | st.text(max_size=9))
@settings(max_examples=40, deadline=None)
def test_every_message_comes_back(steps: list[Record], message_id: int | str) -> None:
    sent = StepMessage(steps, id=message_id)
    for form in FORMS:
        assert decode_step(ENCODE[form](sent), form, 32) == sent
    assert decode_stream(encode_json(sent).decode(), "json", 32) == StreamMessage(steps, id=message_id)


@given(st.binary(max_size=60) | st.builds(encode_msgpack, PLAIN))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_a_message_or_a_problem(data: bytes) -> None:
    for form in FORMS:
        for decode in (decode_step, decode_stream, decode_hello):
            assert status_of(lambda decode=decode, form=form: decode(data, form)) in (200, 400, 422)


def status_of(decode: Callable[[], Any]) -> int:
    try:
        decode()
    except ProtocolError as error:
        return int(msgspec.json.decode(encode_json(error.problem()))["status"])
    return 200


def test_a_message_on_a_stream_is_a_ping_or_has_records() -> None:
    assert decode_stream(b'{"ping":3}', "json").ping == 3
    assert decode_stream(b'{"ping":0}', "json").steps == []
    for data in (b"{}", encode_json({"ping": 3, "steps": [STEP]})):
        with pytest.raises(ProtocolError) as caught:
            decode_stream(data, "json")
        assert caught.value.path == "steps"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"id": 17, "steps": [{}]}, 17),
        ({"id": "a", "steps": [{**STEP, "seed": 3}]}, "a"),
        ({"id": 3}, 3),
        ({"id": [1], "ping": 2}, None),
        ({"steps": [{}]}, None),
        ([], None),
    ],
)
def test_a_problem_on_a_stream_has_the_id_of_its_message(form: Any, sent: Any, expected: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_stream(ENCODE[form](sent), form)
    assert msgspec.json.decode(encode_json(caught.value.problem())).get("id") == expected
    assert caught.value.problem(5).id == 5


def test_text_is_no_msgpack() -> None:
    with pytest.raises(ProtocolError, match="binary"):
        decode_stream("{}", "msgpack")


def test_a_stream_begins_with_a_hello() -> None:
    frame = decode_hello(b'{"hello":{"take_over":["npc-7"],"client":"game 1.2"}}', "json")
    assert frame.hello.take_over == ["npc-7"]
    for data, path in ((b'{"steps":[]}', "steps"), (b'{"hello":{"protocol":"stoker.v2"}}', "hello.protocol")):
        with pytest.raises(ProtocolError) as caught:
            decode_hello(data, "json")
        assert (caught.value.kind, caught.value.path) == ("bad-hello", path)
        assert caught.value.close == 4400


def test_arrays_are_sent_as_lists_as_long_as_they_are_short() -> None:
    short, long = np.array([0.5, 1.5], np.float32), np.zeros((9, 9), np.uint8)
    assert encode_json({"a": short, "b": np.float32(0.5)}) == b'{"a":[0.5,1.5],"b":0.5}'
    assert msgspec.json.decode(encode_json(long))["shape"] == [9, 9]
    packed = msgspec.msgpack.decode(encode_msgpack(long))
    assert packed == Ext(1, encode_msgpack(["uint8", [9, 9], bytes(81)]))


def test_a_detail_that_is_no_valid_text_can_be_sent() -> None:
    error = ProtocolError("invalid", "half \ud800", path="a\udc00")
    assert msgspec.json.decode(encode_json(error.problem(3)))["detail"] == "half \\ud800"
    assert "\\udc00" in str(error)
