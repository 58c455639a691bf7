"""What is handed out once does not change when its source does."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from stoker.envs.owned import owned


class Point(NamedTuple):
    x: Any
    y: Any


class Picture:
    def __init__(self, pixels: list[int]) -> None:
        self.pixels = pixels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.pixels == other.pixels

    __hash__ = None


def objects() -> np.ndarray:
    array = np.empty(1, object)
    array[0] = [1, 2]
    return array


VALUES: list[tuple[str, Any, Any]] = [
    ("array", np.arange(4.0), lambda v: v.__setitem__(0, 9.0)),
    ("array of objects", objects(), lambda v: v[0].append(3)),
    ("list", [1, 2], lambda v: v.append(3)),
    ("deque", deque([1, 2], maxlen=2), lambda v: v.append(3)),
    ("dict", {"a": 1}, lambda v: v.update(a=2)),
    ("list in a tuple in a dict", {"a": (1, [2])}, lambda v: v["a"][1].append(3)),
    ("array in a list", [np.zeros(2)], lambda v: v[0].fill(1.0)),
    ("named tuple", Point([1], 2), lambda v: v.x.append(3)),
    ("set", {1}, lambda v: v.add(2)),
    ("object", Picture([1]), lambda v: v.pixels.append(2)),
    ("tensor", torch.zeros(2), lambda v: v.fill_(1.0)),
    ("tensor with a history", torch.ones(2, requires_grad=True) * 2, lambda v: v.data.fill_(1.0)),
]


@pytest.mark.parametrize(("value", "change"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_a_later_change_does_not_show(value: Any, change: Any) -> None:
    mine = owned(value)
    assert type(mine) is type(value)
    shown = repr(mine) if not isinstance(value, Picture) else copy.copy(mine.pixels)
    change(value)
    assert (repr(mine) if not isinstance(value, Picture) else mine.pixels) == shown


def test_what_cannot_change_is_not_copied() -> None:
    for value in (1, 2.5, True, None, "text", b"bytes", np.float32(1.5), np.int64(3)):
        assert owned(value) is value


def test_a_deque_keeps_its_length() -> None:
    assert owned(deque([1], maxlen=3)).maxlen == 3
