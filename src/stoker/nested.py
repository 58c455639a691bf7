"""Comparisons of nested values: containers of numbers, texts, arrays and tensors.

``differences`` compares bit by bit; ``is_same`` compares values, whatever their precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from stoker.plain import shown


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal; floats of different precision are compared in the lower one."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        ours, theirs = cast("Mapping[Any, Any]", one), cast("Mapping[Any, Any]", other)
        return ours.keys() == theirs.keys() and all(is_same(ours[key], theirs[key]) for key in ours)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        parts, others = cast("Sequence[Any]", one), cast("Sequence[Any]", other)
        return len(parts) == len(others) and all(map(is_same, parts, others))
    try:
        mine, its = np.asarray(one), np.asarray(other)
        if mine.dtype.kind == its.dtype.kind == "f" and mine.dtype != its.dtype:
            lower = min(mine.dtype, its.dtype, key=lambda dtype: dtype.itemsize)
            mine, its = mine.astype(lower), its.astype(lower)
        if mine.dtype.kind != "O" and its.dtype.kind != "O":
            return np.array_equal(mine, its, equal_nan=mine.dtype.kind == "f")
        return bool(one == other)
    except Exception:  # noqa: BLE001 - values that cannot be compared are not the same
        return False


def has_tuple(value: Any) -> bool:
    """Whether a value of nested spaces has a part of a Tuple space."""
    if isinstance(value, dict):
        return any(map(has_tuple, cast("dict[Any, Any]", value).values()))
    return isinstance(value, tuple)


def differences(one: Any, other: Any, where: str = "the whole") -> Iterator[tuple[str, str]]:
    """Each place where two values are not equal to the bit: its path, and a sentence that names it.

    NaN equals NaN, and a list equals a tuple of the same parts.
    """
    mine, its = dict(_leaves(one, where)), dict(_leaves(other, where))
    for path in mine | its:
        if path not in mine or path not in its:
            yield path, f"{path} is only in the {'second' if path in its else 'first'}"
        elif not _is_equal(first := mine[path], second := its[path]):
            yield path, f"{path}: {_layout(first)}{shown(first)} and {_layout(second)}{shown(second)}"


def difference(one: Any, other: Any, where: str = "the whole") -> str | None:
    """The first of the ``differences``, as a sentence; None if the values are equal to the bit."""
    return next((problem for _, problem in differences(one, other, where)), None)


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Each value in nested containers, by its path; an empty container is a value, too."""
    if isinstance(value, Mapping) and value:
        for key, part in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(part, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple) and value:
        for at, part in enumerate(cast("Sequence[Any]", value)):
            yield from _leaves(part, f"{where}[{at}]")
    elif hasattr(cast("Any", value), "detach"):
        yield where, _array_of(value)
    else:
        yield where, [] if isinstance(value, tuple) else value


def _array_of(tensor: Any) -> Any:
    """A tensor as an array; of a dtype that numpy lacks, such as bfloat16, its bits as integers."""
    import torch  # late: environments and their fakes do without it

    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(getattr(torch, f"int{8 * tensor.itemsize}")).numpy()


def _layout(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)} " if hasattr(value, "dtype") else ""


def _is_equal(one: Any, other: Any) -> bool:
    if not hasattr(one, "dtype") or not hasattr(other, "dtype"):
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
            return False  # where numpy would compare each item with the other value
        return bool(one == other) or bool(one != one and other != other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return np.array_equal(one, other) if one.dtype.hasobject else one.tobytes() == other.tobytes()
