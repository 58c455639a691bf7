"""Nested values as flat lists of arrays, and back.

A nest describes one value: an ``ArraySpec``, or a dict or tuple of nests, as Gymnasium's Dict and Tuple
spaces are nested. Its leaves have an order, and names that tell them apart, such as
``observations['arm'][0]``. A single array is a nest of one leaf. Used by ``stoker.replay.transition``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import msgspec
import torch

from stoker.errors import ConfigError, InvalidExperience

__all__ = ["ArraySpec", "Nest", "flatten", "leaves", "unflatten"]

_Leaf = TypeVar("_Leaf")


class ArraySpec(msgspec.Struct, frozen=True):
    """One array of a transition.

    Attributes:
        dtype: of its items.
        shape: ``()`` for a number.
    """

    dtype: torch.dtype
    shape: tuple[int, ...] = ()


Nest: TypeAlias = "ArraySpec | Mapping[str, Nest] | tuple[Nest, ...]"


def leaves(nest: Nest, name: str) -> list[tuple[str, ArraySpec]]:
    """Its arrays in order, each under a name that begins with ``name`` and says where it lies."""
    if isinstance(nest, ArraySpec):
        return [(name, nest)]
    return [leaf for key, inner in _items(nest) for leaf in leaves(inner, f"{name}[{key!r}]")]


def flatten(nest: Nest, value: Any, name: str, error: type[ConfigError | InvalidExperience]) -> list[Any]:
    """What a value has where the nest has leaves, in the order of ``leaves``; the leaves are not looked at.

    Args:
        nest: how the value should be nested.
        value: dicts (any mapping) and tuples (lists too).
        name: what the value is called in a message.
        error: what is raised when it is nested otherwise; the message names the place and the keys.
    """
    if isinstance(nest, ArraySpec):
        return [value]
    if isinstance(nest, tuple):
        given = cast("Sequence[Any]", value)
        if not isinstance(value, tuple | list) or len(given) != len(nest):
            raise error(f"{name} is {_kind(value)}: give a tuple of {len(nest)}")
    else:
        if not isinstance(value, Mapping):
            raise error(f"{name} is {_kind(value)}: give a dict with the keys {_listed(nest)}")
        mapping = cast("Mapping[Any, Any]", value)
        if missing := [key for key in nest if key not in mapping]:
            raise error(f"{name} lacks {_listed(missing)}: give a dict with the keys {_listed(nest)}")
        if len(mapping) > len(nest):
            unknown = [key for key in mapping if key not in nest]
            raise error(f"{name} has {_listed(unknown)}, but only the keys {_listed(nest)} are taken")
    return [
        leaf for key, inner in _items(nest) for leaf in flatten(inner, value[key], f"{name}[{key!r}]", error)
    ]


def unflatten(nest: Nest, values: Iterator[_Leaf]) -> Any:
    """The nest with each leaf replaced by the next of the values: dicts and tuples that are new."""
    if isinstance(nest, ArraySpec):
        return next(values)
    if isinstance(nest, tuple):
        return tuple(unflatten(inner, values) for inner in nest)
    return {key: unflatten(inner, values) for key, inner in nest.items()}


def _items(nest: Mapping[str, Nest] | tuple[Nest, ...]) -> Sequence[tuple[Any, Nest]]:
    return list(enumerate(nest)) if isinstance(nest, tuple) else list(nest.items())


def _kind(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} of {len(cast('Sequence[Any]', value))}" if isinstance(value, tuple | list) else kind


def _listed(keys: Any) -> str:
    return ", ".join(reprlib.repr(key) for key in keys) or "(none)"
