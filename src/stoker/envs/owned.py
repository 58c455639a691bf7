"""Copies of observations and actions, so that nobody can change them later.

An environment may write its next observation into the array, list, deque or dict that held the last one, and
may change an action in place. Whether it does cannot be seen from outside, so everything mutable is copied.
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import numpy as np

__all__ = ["IMMUTABLE", "owned"]

IMMUTABLE: frozenset[type] = frozenset(
    (bool, int, float, complex, str, bytes, type(None), *np.sctypeDict.values())
) - {np.object_, np.void}
"""Types whose values are handed out as they are."""


def owned(value: Any) -> Any:
    """The value in its own memory, nested containers included.

    Raises:
        Exception: Whatever ``copy.deepcopy`` raises for an object that cannot be copied.
    """
    if value.__class__ in IMMUTABLE:  # by exact type: the value may be anything
        return value
    copied = _COPIERS.get(value.__class__)
    return _copied_object(value) if copied is None else copied(value)


def _copied_array(value: Any) -> Any:
    return copy.deepcopy(value) if value.dtype.hasobject else value.copy()


def _copied_object(value: Any) -> Any:
    kind: Any = value.__class__
    if issubclass(kind, tuple) and (make := getattr(cast("Any", kind), "_make", None)):  # a named one
        return make(map(owned, value))
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().clone()  # deepcopy refuses one that has a gradient history
    return copy.deepcopy(value)


_COPIERS: dict[type, Callable[[Any], Any]] = {
    np.ndarray: _copied_array,
    dict: lambda value: {key: owned(part) for key, part in value.items()},
    tuple: lambda value: tuple(map(owned, value)),
    list: lambda value: list(map(owned, value)),
    deque: lambda value: deque(map(owned, value), value.maxlen),
}
