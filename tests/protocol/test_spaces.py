"""Descriptions of spaces: the same space comes back, errors name the path, and differences are found."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from gymnasium import spaces

from stoker.errors import ConfigError
from stoker.protocol import (
    ProtocolError,
    Spaces,
    decode_hello,
    describe_space,
    difference,
    encode_json,
    space_from,
    spaces_digest,
)

CARTPOLE = spaces.Box(
    np.array([-4.8, -np.inf, -0.41887903, -np.inf], np.float32),
    np.array([4.8, np.inf, 0.41887903, np.inf], np.float32),
)
INFO = np.iinfo(np.int64)
EVERY = [
    CARTPOLE,
    spaces.Box(0, 255, (84, 84, 3), np.uint8),
    spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    spaces.Box(np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), 1.0, (2, 2)),
    spaces.Box(-np.inf, np.inf, (), np.float16),
    spaces.Box(0, 1, (0, 2), np.float32),
    spaces.Box(INFO.min, INFO.max, (2,), np.int64),
    spaces.Box(np.array([0, -7]), np.array([5, 2**40]), dtype=np.int64),
    spaces.Box(0, 1, (3,), np.bool_),
    spaces.Discrete(5),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiDiscrete(np.array([[3, 2], [4, 5]]), dtype=np.int32, start=np.array([[1, 2], [3, 4]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict({"b": CARTPOLE, "a": spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(1)])}),
    spaces.Tuple([]),
]


@pytest.mark.parametrize("space", EVERY, ids=str)
def test_a_space_comes_back_through_json(space: Any) -> None:
    sent = encode_json(Spaces.of(space, spaces.Discrete(2)))
    found, action = msgspec.json.decode(sent, type=Spaces).gymnasium()
    assert found == space
    assert action == spaces.Discrete(2)
    assert b"Infinity" not in sent
    through_msgpack = msgspec.msgpack.decode(msgspec.msgpack.encode(Spaces.of(space, space)), type=Spaces)
    assert through_msgpack.gymnasium() == (space, space)


def test_a_description_is_what_a_person_would_write() -> None:
    described = describe_space(CARTPOLE, ["position", "velocity", "angle", "angular velocity"])
    assert msgspec.to_builtins(described) == {
        "type": "box",
        "shape": [4],
        "dtype": "float32",
        "low": [-4.8, None, -0.41887903, None],
        "high": [4.8, None, 0.41887903, None],
        "names": ["position", "velocity", "angle", "angular velocity"],
    }
    image = describe_space(spaces.Box(0, 255, (84, 84), np.uint8))
    assert msgspec.to_builtins(image) == {
        "type": "box", "shape": [84, 84], "dtype": "uint8", "low": 0, "high": 255,
    }  # fmt: skip


def spaces_of(**observation: Any) -> Spaces:
    return msgspec.convert({"observation": observation, "action": {"type": "discrete", "n": 2}}, Spaces)


BOX = {"type": "box", "shape": [2]}
BITS = {"type": "multi_binary", "shape": [1], "names": []}
ONE, TWO = ({"type": "discrete", "n": n} for n in (1, 2))


@pytest.mark.parametrize(
    ("observation", "path"),
    [
        ({**BOX, "low": [0.0]}, "observation.low"),
        ({**BOX, "low": [0, 1e39]}, "observation.low[1]"),
        ({**BOX, "low": 1.0, "high": 0.5}, "observation.low"),
        ({**BOX, "dtype": "uint8", "high": 256}, "observation.high"),
        ({**BOX, "dtype": "uint8", "high": 0.5}, "observation.high"),
        ({**BOX, "names": ["x"]}, "observation.names"),
        ({"type": "box", "shape": [2**13, 2**13]}, "observation.shape"),
        ({"type": "discrete", "n": 2, "names": ["x"]}, "observation.names"),
        ({"type": "multi_discrete", "nvec": [2, 3], "shape": [3]}, "observation.nvec"),
        ({"type": "multi_discrete", "nvec": [2, 3], "start": [1]}, "observation.start"),
        ({"type": "multi_discrete", "nvec": [2, 3], "dtype": "float32"}, "observation.dtype"),
        ({"type": "multi_discrete", "nvec": [300], "dtype": "uint8"}, "observation.nvec"),
        ({"type": "multi_discrete", "nvec": [2], "dtype": "uint8", "start": -1}, "observation.nvec"),
        ({"type": "dict", "spaces": {"a": {"type": "box", "shape": [1], "low": []}}}, "observation.a.low"),
        (
            {"type": "tuple", "spaces": [BITS]},
            "observation[0].names",
        ),
    ],
)
def test_a_description_of_no_space_is_refused_by_its_path(observation: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spaces_of(**observation).gymnasium()
    assert str(caught.value).partition(": ")[0] == path


@pytest.mark.parametrize(
    ("observation", "path"),
    [
        ({"type": "sphere"}, "hello.spaces.observation.type"),
        ({"type": "box"}, "hello.spaces.observation.shape"),
        ({"type": "box", "shape": [-1]}, "hello.spaces.observation.shape[0]"),
        ({**BOX, "dtype": "object"}, "hello.spaces.observation.dtype"),
        ({"type": "discrete", "n": 0}, "hello.spaces.observation.n"),
    ],
)
def test_a_hello_with_something_else_is_refused_by_its_path(observation: Any, path: str) -> None:
    action = {"type": "discrete", "n": 2}
    with pytest.raises(ProtocolError) as caught:
        decode_hello(
            encode_json({"hello": {"spaces": {"observation": observation, "action": action}}}), "json"
        )
    assert caught.value.path == path


def test_names_and_the_order_of_keys_are_no_difference() -> None:
    named = spaces_of(type="dict", spaces={"b": TWO, "a": {**ONE, "names": ["x"]}})
    plain = spaces_of(type="dict", spaces={"a": {**ONE, "start": 0}, "b": TWO})
    assert difference(named, plain) is None
    assert spaces_digest(named) == spaces_digest(plain)
    bounds = spaces_of(type="box", shape=[2], low=0, high=[1, 1.0])
    assert spaces_digest(bounds) == spaces_digest(spaces_of(type="box", shape=[2], low=[0.0, 0.0], high=1))


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        (TWO, {"type": "multi_binary", "shape": [2]}, "observation.type"),
        (TWO, {"type": "discrete", "n": 3}, "observation.n"),
        (BOX, {"type": "box", "shape": [2, 1]}, "observation.shape"),
        (BOX, {"type": "box", "shape": [3]}, "observation.shape[0]"),
        ({**BOX, "low": [0, 1]}, {"type": "box", "shape": [3]}, "observation.shape[0]"),
        (
            BOX,
            {**BOX, "dtype": "float64"},
            "observation.dtype",
        ),
        (
            {**BOX, "low": [0, 1]},
            {**BOX, "low": [0, 2]},
            "observation.low[1]",
        ),
        (
            {"type": "dict", "spaces": {"a": ONE}},
            {"type": "dict", "spaces": {"b": ONE}},
            "observation.spaces.a",
        ),
    ],
)
def test_a_difference_is_named_by_its_path(one: Any, other: Any, path: str) -> None:
    found = difference(spaces_of(**one), spaces_of(**other))
    assert found is not None
    assert found.path == path
    assert str(found).startswith(f"{path} is ")
    assert spaces_digest(spaces_of(**one)) != spaces_digest(spaces_of(**other))


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), spaces.Dict({1: spaces.Discrete(2)})]
)
def test_a_space_that_has_no_description_is_refused(space: Any) -> None:
    with pytest.raises(ConfigError):
        describe_space(space)


def test_names_are_as_many_as_numbers() -> None:
    with pytest.raises(ConfigError, match="3 names for 2 numbers"):
        describe_space(spaces.MultiBinary(2), ["a", "b", "c"])
    assert space_from(describe_space(spaces.MultiBinary(2), ["a", "b"])) == spaces.MultiBinary(2)
