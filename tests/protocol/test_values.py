"""Values of spaces: what is taken in which form, what comes out, and the path of what is refused."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from msgspec.msgpack import Ext

from stoker.agents.actions import DiscreteActions
from stoker.agents.spaces import AgentSpaces
from stoker.nested import difference
from stoker.protocol import ProtocolError, SpaceCodec, encode_json, encode_msgpack

FLOATS = spaces.Box(-1.0, 1.0, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (2, 3), np.uint8)
MANY = spaces.MultiDiscrete([3, 2], start=[1, -1])
BITS = spaces.MultiBinary(3)
NESTED = spaces.Dict(
    {
        "image": IMAGE,
        "left arm": spaces.Tuple([FLOATS, spaces.Discrete(3, start=5)]),
        "many": spaces.MultiDiscrete([[2, 3], [4, 5]]),
        "bits": BITS,
        "half": spaces.Box(-np.inf, np.inf, (), np.float16),
        "double": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        "long": spaces.Box(-5, 5, (300,), np.float32),
        "flags": spaces.Box(0, 1, (2,), np.bool_),
    }
)


def codec(observation: Any, action: Any = None) -> SpaceCodec:
    return SpaceCodec(observation, action or spaces.Discrete(2))


def array_object(array: Any, **changes: Any) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode()
    return {"b64": data, "dtype": array.dtype.name, "shape": list(array.shape), **changes}


def extension(dtype: str, shape: Any, data: bytes) -> Ext:
    return Ext(1, encode_msgpack([dtype, shape, data]))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_sample_of_any_space_comes_back_to_the_bit(seed: int) -> None:
    NESTED.seed(seed)
    sample: Any = NESTED.sample()
    both = codec(NESTED, NESTED)
    for sent in (
        msgspec.json.decode(encode_json(sample)),
        msgspec.msgpack.decode(encode_msgpack(sample)),
        sample,
        msgspec.json.decode(encode_json(both.encode_action(sample))),
    ):
        for found in (both.observation(sent, 0), both.action(sent, "action")):
            assert list(found) == list(sample)
            plain = {**sample, "left arm": (sample["left arm"][0], int(sample["left arm"][1]))}
            assert difference(found, plain) is None
            assert NESTED.contains(
                {**found, "left arm": (found["left arm"][0], np.int64(found["left arm"][1]))}
            )


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (FLOATS, [1, 2.5, True, -0.0], [1, 2.5, 1, 0]),
        (FLOATS, (1, 2, 3, 4), [1, 2, 3, 4]),
        (FLOATS, np.arange(4.0), [0, 1, 2, 3]),
        (FLOATS, np.arange(4), [0, 1, 2, 3]),
        (FLOATS, array_object(np.arange(4, dtype=np.float64)), [0, 1, 2, 3]),
        (FLOATS, array_object(np.arange(4, dtype=np.int16)), [0, 1, 2, 3]),
        (FLOATS, extension("float32", [4], np.arange(4, dtype="<f4").tobytes()), [0, 1, 2, 3]),
        (FLOATS, [2**40, 0, 0, -1e13], [2**40, 0, 0, -1e13]),
        (IMAGE, [[1, 2.0, 3], [4, 5, 255]], [[1, 2, 3], [4, 5, 255]]),
        (IMAGE, array_object(np.ones((2, 3), np.uint8)), [[1, 1, 1], [1, 1, 1]]),
        (MANY, [3, 0.0], [3, 0]),
        (BITS, [True, 0, 1.0], [1, 0, 1]),
        (spaces.Discrete(3, start=-1), -1.0, -1),
        (spaces.Discrete(3, start=-1), np.int64(1), 1),
        (spaces.Box(0, 1, (0, 3), np.float32), [], np.empty((0, 3))),
        (spaces.Box(0, 1, (), np.float32), 0.5, 0.5),
    ],
)
def test_what_is_taken(space: Any, value: Any, expected: Any) -> None:
    found = codec(space).observation(value, 0)
    assert np.array_equal(found, np.asarray(expected, getattr(found, "dtype", None)))
    if isinstance(found, np.ndarray):
        assert (found.dtype, found.shape) == (space.dtype, space.shape)
        assert found.flags.writeable
        assert not np.shares_memory(found, value)
    else:
        assert type(found) is int


TINY = spaces.Dict({"a b": FLOATS, "pair": spaces.Tuple([MANY, IMAGE])})


def tiny(**changes: Any) -> dict[str, Any]:
    return {"a b": [0.0] * 4, "pair": [[1, -1], [[0] * 3] * 2]} | changes


@pytest.mark.parametrize(
    ("space", "value", "where"),
    [
        (FLOATS, [0.0, 0.0, "0", 0.0], "[2]"),
        (FLOATS, [0.0, None, 0.0, 0.0], "[1]"),
        (FLOATS, [0.0, [0.0], 0.0, 0.0], "[1]"),
        (FLOATS, [0.0, 0.0, 0.0, "NaN"], "[3]"),
        (FLOATS, [0.0, math.nan, math.inf, 0.0], "[1]"),
        (FLOATS, [math.inf, 0.0, -math.inf, 0.0], "[0]"),
        (FLOATS, [0.0, 0.0, 1e39, 0.0], "[2]"),
        (FLOATS, [0.0, 0.0, -1e39, 0.0], "[2]"),
        (FLOATS, [10**400, 0.0, 0.0, 0.0], ""),
        (FLOATS, [0.0, 2**70, 0.0, 0.0], "[1]"),
        (FLOATS, [0.0, 0.0, -1.1e13, 0.0], "[2]"),
        (FLOATS, array_object(np.array([0, 1e14, 0, 0])), "[1]"),
        (FLOATS, [0.0] * 3, ""),
        (FLOATS, [[0.0] * 4], ""),
        (FLOATS, 0.5, ""),
        (FLOATS, None, ""),
        (FLOATS, "text", ""),
        (FLOATS, b"0123", ""),
        (FLOATS, {"b64": "AAAA"}, ""),
        (FLOATS, {}, ""),
        (FLOATS, array_object(np.zeros(4, np.float32), b64="A?"), ".b64"),
        (FLOATS, array_object(np.zeros(4, np.float32), dtype="object"), ""),
        (FLOATS, array_object(np.zeros(4, np.float32), dtype="complex64"), ""),
        (FLOATS, array_object(np.zeros(4, np.float32), shape=[5]), ""),
        (FLOATS, array_object(np.zeros(4, np.float32), shape=[-2, -2]), ""),
        (FLOATS, array_object(np.zeros(5, np.float32)), ""),
        (FLOATS, array_object(np.zeros(4, np.float32), more=1), ""),
        (FLOATS, array_object(np.array([0, 1, np.nan, 2])), "[2]"),
        (FLOATS, array_object(np.array([0, 1, 2, 1e39])), "[3]"),
        (FLOATS, Ext(2, b""), ""),
        (FLOATS, Ext(1, b"\x93"), ""),
        (FLOATS, Ext(1, b"\x91" * 9999), ""),
        (FLOATS, extension("float32", [1] * 9 + [4], bytes(16)), ""),
        (FLOATS, extension("float32", [2**62, 4], bytes(16)), ""),
        (FLOATS, np.zeros(4, np.complex64), ""),
        (FLOATS, np.array(["a"] * 4), ""),
        (IMAGE, [[0, 1, 2], [3, 4, 256]], "[1][2]"),
        (IMAGE, [[0, 1, 2], [-1, 4, 5]], "[1][0]"),
        (IMAGE, [[0, 1, 2.5], [3, 4, 5]], "[0][2]"),
        (IMAGE, [[0, 1, 2], [3, 4]], "[1]"),
        (IMAGE, [[0, 1, 2], [3, "4", 5]], "[1][1]"),
        (IMAGE, [[0, 1, 2], [3, 2**70, 5]], "[1][1]"),
        (spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), [2**63, -1], "[0]"),
        (MANY, [3, 1], "[1]"),
        (MANY, [4, 0], "[0]"),
        (MANY, [1.5, 0], "[0]"),
        (BITS, [0, 1, 2], "[2]"),
        (spaces.Discrete(2), 2, ""),
        (spaces.Discrete(2), -1, ""),
        (spaces.Discrete(2), 0.5, ""),
        (spaces.Discrete(2), math.nan, ""),
        (spaces.Discrete(2), 2**80, ""),
        (spaces.Discrete(2), True, ""),
        (spaces.Discrete(2), "1", ""),
        (spaces.Discrete(2), [1], ""),
        (TINY, {"pair": []}, '["a b"]'),
        (TINY, tiny(c=1), ".c"),
        (TINY, {**tiny(), 3: 1}, '["3"]'),
        (TINY, [], ""),
        (TINY, tiny(**{"a b": [0.0, 0.0, math.nan, 0.0]}), '["a b"][2]'),
        (TINY, tiny(pair={}), ".pair"),
        (TINY, tiny(pair=[1]), ".pair"),
        (TINY, tiny(pair=[[1, 1], [[0] * 3] * 2]), ".pair[0][1]"),
        (TINY, tiny(pair=[[1, -1], [[0] * 3, [0, 0, 300]]]), ".pair[1][1][2]"),
    ],
)
def test_what_is_refused_is_named_by_its_path(space: Any, value: Any, where: str) -> None:
    both = codec(space, space)
    with pytest.raises(ProtocolError) as caught:
        both.observation(value, 3)
    assert (caught.value.kind, caught.value.path) == ("invalid", f"steps[3].observation{where}")
    assert len(caught.value.detail) < 300
    with pytest.raises(ProtocolError) as caught:
        both.action(value, 3)
    assert caught.value.path == f"steps[3].action{where}"


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(("a b", "pair", "b64", "dtype", "shape", "x")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSONS)
@settings(max_examples=60, deadline=None)
def test_any_value_is_of_the_space_or_a_problem(value: Any) -> None:
    for space in (FLOATS, IMAGE, MANY, BITS, spaces.Discrete(2), TINY):
        try:
            found = codec(space).observation(value, 0)
        except ProtocolError as error:
            problem = error.problem()
        else:
            assert isinstance(found, int) or difference(found, found) is None
            continue
        assert problem.status == 422


@given(
    st.lists(st.lists(st.floats(width=32) | st.just("1") | st.booleans(), min_size=3, max_size=4), min_size=1)
)
@settings(max_examples=60, deadline=None)
def test_several_observations_are_read_as_each_by_itself(values: list[Any]) -> None:
    found = codec(FLOATS).observations(values)
    if found is None:
        with pytest.raises(ProtocolError):
            for value in values:
                codec(FLOATS).observation(value, 0)
            raise ProtocolError("invalid", "each is fine, and their sum is beyond the limit of one")
    else:
        each = [codec(FLOATS).observation(value, 0) for value in values]
        assert np.array_equal(found, each)
        assert found.dtype == each[0].dtype


def test_observations_in_other_forms_are_read_one_by_one() -> None:
    array = {"b64": "AAAAAAAAAAAAAAAAAAAAAA==", "dtype": "float32", "shape": [4]}
    assert codec(FLOATS).observations([[0.0] * 4, array]) is None
    assert codec(MANY).observations([[0.0] * 4]) is None


def test_agents_take_what_is_read() -> None:
    for space in (FLOATS, NESTED, MANY, BITS, spaces.Discrete(4, start=2)):
        checks = AgentSpaces("DQN", space, spaces.Discrete(2), [DiscreteActions])
        sent = msgspec.json.decode(encode_json(space.sample()))
        checks.check_observation(codec(space).observation(sent, 0))


# Masks --------------------------------------------------------------------------------------------

MASKED = spaces.Dict({"observation": FLOATS, "action_mask": spaces.MultiBinary(2)})
BAD_MASK = {"observation": [0.5] * 4, "action_mask": [1, 3]}
MASKED_PARTS = spaces.Dict({"a": FLOATS, "b": BITS, "action_mask": spaces.MultiBinary(5)})


def test_a_mask_stands_beside_the_observation_or_inside() -> None:
    masked = codec(MASKED)
    assert masked.mask_length == 2
    beside = masked.observation([0.5] * 4, 0, [1, 0])
    inside = masked.observation({"observation": [0.5] * 4, "action_mask": [True, False]}, 0)
    assert difference(beside, inside) is None
    assert MASKED.contains(beside)
    parts = codec(MASKED_PARTS, MANY).observation({"a": [0.5] * 4, "b": [0, 1, 1]}, 0, [[1, 0, 1], [0, 1]])
    assert MASKED_PARTS.contains(parts)
    assert parts["action_mask"].tolist() == [1, 0, 1, 0, 1]


def test_the_mask_of_a_last_observation_may_be_missing() -> None:
    last = codec(MASKED).observation([0.5] * 4, 0, is_last=True)
    assert last["action_mask"].tolist() == [1, 1]
    assert MASKED.contains(last)


@pytest.mark.parametrize(
    ("space", "value", "mask", "path"),
    [
        (MASKED, [0.5] * 4, None, "steps[1].action_mask"),
        (MASKED, [0.5] * 4, [1], "steps[1].action_mask"),
        (MASKED, [0.5] * 4, [1, 2], "steps[1].action_mask[1]"),
        (MASKED, [0.5] * 3, [1, 1], "steps[1].observation"),
        (MASKED, {"observation": [0.5] * 4}, None, "steps[1].action_mask"),
        (
            MASKED,
            {"observation": [0.5] * 4, "action_mask": [1, 3]},
            None,
            "steps[1].observation.action_mask[1]",
        ),
        (FLOATS, [0.5] * 4, [1, 1], "steps[1].action_mask"),
    ],
)
def test_a_wrong_mask_is_named(space: Any, value: Any, mask: Any, path: str) -> None:
    for place in (1, "steps[1].observation"):
        with pytest.raises(ProtocolError) as caught:
            codec(space).observation(value, place, mask)
        assert caught.value.path == path


def test_a_part_named_as_a_mask_is_none_if_actions_have_no_choices() -> None:
    boxes = codec(MASKED, FLOATS)
    assert boxes.mask_length is None
    assert boxes.observation({"observation": [0.5] * 4, "action_mask": [1, 0]}, 0)[
        "action_mask"
    ].tolist() == [1, 0]


def test_actions_are_sent_in_builtins() -> None:
    for space, action in (
        (spaces.Discrete(2), np.int64(1)),
        (FLOATS, np.array([0.1, 0.2, 0.3, 0.4], np.float32)),
        (MANY, np.array([3, 0])),
    ):
        sent = codec(FLOATS, space).encode_action(action)
        assert type(sent) in (int, list)
        assert np.array_equal(codec(FLOATS, space).action(sent, "action"), action)
