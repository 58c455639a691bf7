"""The arrays of nested spaces by name: ``observations.left.0`` is part 0 of the part ``left``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import gymnasium
import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.errors import ConfigError


class Leaf(msgspec.Struct, frozen=True):
    """One array of observations or actions.

    Attributes:
        name: of the column, dotted.
        path: the keys and places that lead to it.
        space: a Box, Discrete, MultiDiscrete or MultiBinary.
        low: the least allowed value of each number.
        high: the greatest.
    """

    name: str
    path: tuple[str | int, ...]
    space: gymnasium.Space[Any]
    low: NDArray[Any]
    high: NDArray[Any]


def leaves_of(space: gymnasium.Space[Any], name: str) -> list[Leaf]:
    """The arrays of a space, in its order.

    Raises:
        ConfigError: A part is of another kind than Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple;
            or two parts have one dotted name; or there is no part.
    """
    leaves = [*_leaves(space, name, ())]
    if len({leaf.name for leaf in leaves}) < max(1, len(leaves)):
        raise ConfigError(
            f"{name}: the space {space} has no part, or two parts of one dotted name: rename one"
        )
    return leaves


def _leaves(space: gymnasium.Space[Any], name: str, path: tuple[str | int, ...]) -> Iterator[Leaf]:
    match space:
        case spaces.Dict():
            for key, part in cast("dict[str, Any]", cast("Any", space).spaces).items():
                yield from _leaves(part, f"{name}.{key}", (*path, key))
        case spaces.Tuple():
            for at, part in enumerate(cast("tuple[Any, ...]", cast("Any", space).spaces)):
                yield from _leaves(part, f"{name}.{at}", (*path, at))
        case _:
            yield Leaf(name, path, space, *_limits(space, name))


def _limits(space: gymnasium.Space[Any], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    match space:
        case spaces.Box():
            return space.low, space.high
        case spaces.Discrete():
            return np.asarray(space.start), np.asarray(space.start + space.n - 1)
        case spaces.MultiDiscrete():
            return space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            shape = cast("tuple[int, ...]", cast("Any", space).shape)
            return np.zeros(shape, np.int8), np.ones(shape, np.int8)
        case _:
            raise ConfigError(
                f"{name}: data sets cannot hold values of {space}: use a Box, Discrete, MultiDiscrete or "
                "MultiBinary, or a Dict or Tuple of these"
            )


def arrays_of(leaves: Iterable[Leaf], value: Any) -> list[Any]:
    """The arrays in a nested value, in the order of the leaves.

    Raises:
        KeyError, IndexError, TypeError: The value is not nested like that.
    """
    found: list[Any] = []
    for leaf in leaves:
        part = value
        for key in leaf.path:
            part = part[key]
        found.append(part)
    return found


def nested(space: gymnasium.Space[Any], arrays: Iterator[Any]) -> Any:
    """The nested value of these arrays, which are in the order of the leaves."""
    match space:
        case spaces.Dict():
            inner = cast("dict[str, Any]", cast("Any", space).spaces)
            return {key: nested(part, arrays) for key, part in inner.items()}
        case spaces.Tuple():
            return tuple(nested(part, arrays) for part in cast("tuple[Any, ...]", cast("Any", space).spaces))
        case _:
            return next(arrays)
