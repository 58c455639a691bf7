"""Staging: copies of their own, plain containers, memory that is used again."""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import InvalidAgentState
from stoker.writer import StagingArea, stage

Stage = Callable[..., Any]


def stage_twice(state: Any, where: str = "state") -> Any:
    """A staging over one that was made before."""
    area = StagingArea()
    area.stage({"w": torch.full((7,), 9.0), "agent": {"w": torch.full((3,), 9.0)}})
    area.stage(state, where)
    return area.stage(state, where)


BOTH = pytest.mark.parametrize("stage", [stage, stage_twice])


@BOTH
def test_a_staged_state_is_a_copy(stage: Stage) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    inner = {"list": [1, [2]], "w": weight}
    state = {"agent": inner, "same": weight}
    staged = stage(state)
    with torch.no_grad():
        weight.fill_(7.0)
    inner["list"][1].append(3)
    inner["more"] = 1
    assert staged["agent"]["list"] == [1, [2]]
    assert "more" not in staged["agent"]
    assert staged["agent"]["w"].tolist() == staged["same"].tolist() == [1.0, 1.0, 1.0]
    assert type(staged["agent"]["w"]) is torch.Tensor
    assert not staged["agent"]["w"].requires_grad


@pytest.mark.parametrize(
    ("view", "n_bytes"),
    [
        (lambda: torch.zeros(1_000_000)[:2], 8),
        (lambda: torch.zeros(1000, 1000)[:, 3], 4000),
        (lambda: torch.ones(1).expand(100), 400),
        (lambda: torch.zeros(10, 20).T, 800),
        (lambda: torch.zeros(1_000_000)[:0], 0),
        (lambda: torch.tensor(3.0), 4),
    ],
)
@BOTH
def test_a_view_does_not_drag_its_storage(stage: Stage, view: Any, n_bytes: int) -> None:
    original = view()
    staged = stage(original)
    assert staged.untyped_storage().nbytes() == n_bytes
    assert torch.equal(staged, original)
    assert staged.is_contiguous()


@BOTH
def test_shared_memory_is_not_aliased(stage: Stage) -> None:
    shared = torch.zeros(4).share_memory_()
    array = np.zeros(4, np.float32)
    staged = stage({"shared": shared, "numpy": torch.from_numpy(array), "half": shared[:2]})
    shared.fill_(1.0)
    array[:] = 1.0
    assert all(float(tensor.sum()) == 0.0 for tensor in staged.values())
    assert not any(tensor.is_shared() for tensor in staged.values())
    assert staged["half"].tolist() == [0.0, 0.0]


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the plain kind is what states hold


@BOTH
def test_containers_become_plain_ones(stage: Stage) -> None:
    staged = stage({
        "ordered": OrderedDict(a=1), "proxy": MappingProxyType({"b": 2}), "point": Point(1, 2.5),
        "size": torch.Size([2, 3]), "plain": [None, True, 1, 2.0, "s", b"b"], ("key", 1): "tuple key",
    })  # fmt: skip
    assert staged["ordered"] == {"a": 1}
    assert type(staged["ordered"]) is type(staged["proxy"]) is dict
    assert (type(staged["point"]), staged["point"]) == (tuple, (1, 2.5))
    assert (type(staged["size"]), staged["size"]) == (tuple, (2, 3))
    assert staged["plain"] == [None, True, 1, 2.0, "s", b"b"]
    assert staged["key", 1] == "tuple key"


class Level(enum.IntEnum):
    HIGH = 1


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (np.zeros(2), "numpy.ndarray"),
        (np.float64(0.5), "numpy.float64"),
        (np.int64(1), "numpy.int64"),
        (threading.Lock(), "_thread.lock"),
        ({1, 2}, "builtins.set"),
        (Level.HIGH, "Level"),
        (1j, "builtins.complex"),
        (torch.float32, "torch.dtype"),
        (object(), "builtins.object"),
        (len, "builtin_function"),
    ],
)
@BOTH
def test_what_would_not_load_safely_is_refused_by_its_path(stage: Stage, leaf: Any, kind: str) -> None:
    for state, where in [
        ({"optimizer": {"groups": [0, leaf]}}, r"agent\['optimizer'\]\['groups'\]\[1\]"),
        ({"x": (leaf,)}, r"agent\['x'\]\[0\]"),
        (leaf, "agent"),
    ]:
        with pytest.raises(InvalidAgentState, match=rf"^{where} is a .*{kind}"):
            stage(state, "agent")


@BOTH
def test_a_key_that_would_not_load_safely_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidAgentState, match=r"agent \(key\) is a numpy.int64"):
        stage({np.int64(3): 1}, "agent")


def addresses(staged: Any) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in staged.items()}


def test_a_second_staging_uses_the_memory_of_the_first() -> None:
    area = StagingArea()
    weights = {"a": torch.zeros(1000), "b": torch.zeros(10, 10, dtype=torch.int64)}
    first = area.stage(weights)
    before = addresses(first)
    assert area.held_bytes == 4000 + 800
    weights["a"].fill_(5.0)
    second = area.stage(weights)
    assert addresses(second) == before
    assert bool((second["a"] == 5.0).all())
    assert before["a"] != weights["a"].data_ptr()


@pytest.mark.parametrize(
    ("changed", "held_bytes", "kept"),
    [
        ({"a": torch.zeros(2000), "b": torch.zeros(10)}, 8040, {"b"}),
        ({"a": torch.zeros(1000, dtype=torch.float64), "b": torch.zeros(10)}, 8040, {"b"}),
        ({"a": torch.zeros(10, 100), "b": torch.zeros(10)}, 4040, {"b"}),
        ({"b": torch.zeros(10)}, 40, {"b"}),
        ({"a": torch.zeros(1000), "b": torch.zeros(10), "c": torch.zeros(1)}, 4044, {"a", "b"}),
        ({}, 0, set()),
    ],
)
def test_what_does_not_agree_is_freed(changed: dict[str, Any], held_bytes: int, kept: set[str]) -> None:
    area = StagingArea()
    before = addresses(area.stage({"a": torch.zeros(1000), "b": torch.zeros(10)}))
    staged = area.stage(changed)
    assert area.held_bytes == held_bytes
    after = addresses(staged)
    assert all(after[name] == before[name] for name in kept)
    assert {name: tensor.shape for name, tensor in staged.items()} == {
        name: tensor.shape for name, tensor in changed.items()
    }


def test_a_refused_state_leaves_the_one_before_whole() -> None:
    area = StagingArea()
    staged = area.stage({"a": torch.zeros(3)})
    with pytest.raises(InvalidAgentState):
        area.stage({"a": torch.ones(3), "b": object()})
    assert staged["a"].tolist() == [0.0, 0.0, 0.0]


def test_one_tensor_under_two_names_has_two_copies() -> None:
    area = StagingArea()
    weight = torch.ones(3)
    staged = area.stage({1: weight, "1": weight, "x": {"y": weight}, "x[y": weight})
    assert len({tensor.data_ptr() for tensor in (staged[1], staged["1"], staged["x"]["y"])}) == 3


def test_values_of_keys_that_read_alike_stay_apart() -> None:
    state = {torch.tensor(1.0): torch.zeros(2), torch.tensor(1.0): torch.ones(2)}
    area = StagingArea()
    for _ in range(2):
        zeros, ones = area.stage(state).values()
        assert (zeros.tolist(), ones.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_sparse_tensors_are_staged_too() -> None:
    area = StagingArea()
    for value in (1.0, 2.0):
        staged = area.stage({"s": (torch.eye(3) * value).to_sparse()})
        assert torch.equal(staged["s"].to_dense(), torch.eye(3) * value)


shapes = st.lists(st.integers(0, 4), max_size=3)
states = st.recursive(
    st.one_of(st.integers(), st.none(), st.text(max_size=3), st.builds(torch.zeros, shapes)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=2) | st.integers(0, 3), inner, max_size=3),
    ),
    max_leaves=8,
)


def filled(state: Any, value: float) -> Any:
    match state:
        case torch.Tensor():
            return torch.full_like(state, value)
        case dict():
            return {key: filled(inner, value) for key, inner in state.items()}
        case list():
            return [filled(inner, value) for inner in state]
        case _:
            return state


def same(left: Any, right: Any) -> bool:
    match left:
        case torch.Tensor():
            return torch.equal(left, right)
        case dict():
            return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        case list():
            return len(left) == len(right) and all(map(same, left, right))
        case _:
            return left == right


@given(st.lists(states, min_size=1, max_size=4))
def test_whatever_was_staged_before_the_copy_is_that_of_the_state(several: list[Any]) -> None:
    area = StagingArea()
    for k, state in enumerate(several):
        now = filled(state, float(k + 1))
        assert same(area.stage(now), now)
        assert same(area.stage(now), stage(now))
