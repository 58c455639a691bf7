"""Nested values are compared to the bit, or as the same values in whatever precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stoker.nested import difference, differences, is_same

NAN = float("nan")
SAME: list[tuple[Any, Any]] = [
    (1, 1),
    (NAN, NAN),
    ("a", "a"),
    (None, None),
    ({"a": [1, (2.0, None)]}, {"a": [1, (2.0, None)]}),
    (np.array([1.0, NAN]), np.array([1.0, NAN])),
    (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN])),
    (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    (np.array(["a", "b"]), np.array(["a", "b"])),
    ([], ()),
    (np.array([None, "a"], object), np.array([None, "a"], object)),
]
OTHER: list[tuple[Any, Any, str]] = [
    (1, 2, "the whole: 1 (int) and 2 (int)"),
    ({"a": 1}, {"b": 1}, "the whole['a'] is only in the first"),
    ({"a": [1, 2]}, {"a": [1, 3]}, "['a'][1]: 2 (int) and 3 (int)"),
    ([1], [1, 2], "the whole[1] is only in the second"),
    (np.zeros(2), np.zeros(3), "and float64[3] array([0., 0., 0.])"),
    (np.zeros(2), np.zeros(2, np.float32), "float64[2] array([0., 0.]) (ndarray) and float32[2] array"),
    (torch.zeros(2), torch.ones(2), "the whole: float32[2] array"),
    (torch.zeros(1), None, "float32[1] array([0.], dtype=float32) (ndarray) and None (NoneType)"),
    (torch.zeros(2), None, "float32[2] array([0., 0.], dtype=float32) (ndarray) and None (NoneType)"),
    ([], torch.zeros(2), "[] (list) and float32[2] array([0., 0.], dtype=float32) (ndarray)"),
    (np.ones(1), 1.0, "float64[1] array([1.]) (ndarray) and 1.0 (float)"),
    (1.0, float("inf"), "1.0 (float) and inf (float)"),
    (NAN, 1.0, "nan (float) and 1.0 (float)"),
    ({"a": {}}, {"a": {"b": 1}}, "the whole['a'] is only in the first"),
    (np.array([0.0]), np.array([-0.0]), "float64[1] array([0.]) (ndarray) and float64[1] array([-0.])"),
    (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2), "int16[2] array([0, 0]"),
    ({"a": []}, {}, "the whole['a'] is only in the first"),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[repr(pair[0])[:40] for pair in SAME])
def test_what_is_the_same(one: Any, other: Any) -> None:
    assert difference(one, other) is None


@pytest.mark.parametrize(("one", "other", "message"), OTHER, ids=[each[2][:40] for each in OTHER])
def test_what_is_not(one: Any, other: Any, message: str) -> None:
    problem = difference(one, other)
    assert problem is not None
    assert message in problem


def test_each_difference_has_its_path() -> None:
    one = {"a": [1, torch.tensor([1.0])], "b": torch.zeros(2, dtype=torch.bfloat16), "c": {}}
    other = {"a": (1, torch.tensor([2.0])), "b": torch.ones(2, dtype=torch.bfloat16), "d": 1}
    assert [path for path, _ in differences(one, other, "state")] == [
        "state['a'][1]",
        "state['b']",
        "state['c']",
        "state['d']",
    ]


SAME_VALUES: list[tuple[Any, Any]] = [
    ("a", "a"),
    (None, None),
    ([], ()),
    (1, np.int64(1)),
    ([1.0, 2.0], np.array([1.0, 2.0])),
    (np.float64(0.1), np.float32(0.1)),
    ({"a": (1, NAN)}, {"a": [1, NAN]}),
    (torch.ones(2), np.ones(2)),
]
OTHER_VALUES: list[tuple[Any, Any]] = [
    (1, 2),
    ((1,), 1),
    ([1, 2], [1]),
    (np.zeros(2), np.zeros(3)),
    (np.float64(0.1), np.float64(np.float32(0.1))),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": 1}, [1]),
    (object(), object()),
    ([[1], [1, 2]], np.zeros(2)),
]


def test_the_same_values() -> None:
    for one, other in SAME_VALUES:
        assert is_same(one, other), (one, other)
        assert is_same(other, one), (one, other)


def test_other_values() -> None:
    for one, other in OTHER_VALUES:
        assert not is_same(one, other), (one, other)
        assert not is_same(other, one), (one, other)
