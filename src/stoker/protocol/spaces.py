"""Spaces as clients in any language read them: Gymnasium's spaces described in JSON, with names.

``describe_space`` and ``space_from`` are each other's inverse but for the names, which Gymnasium has no place
for. Arrays of bounds and counts are flat, row by row; one number stands for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from stoker import space_kinds
from stoker.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium

_LARGEST: Final = 2**53 - 1
_MOST_ITEMS: Final = 1 << 24
_ARRAY_DTYPES = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip
Axis = Annotated[int, Meta(ge=0, le=_MOST_ITEMS)]
Shape = Annotated[list[Axis], Meta(max_length=8)]
Bound = float | int | None
Names = Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=65536)]
Choices = Annotated[int, Meta(ge=1, le=_LARGEST)]
Start = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)]


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class BoxSpace(_Description, frozen=True, tag_field="type", tag="box"):
    """An array of numbers.

    Attributes:
        shape: the length of each axis.
        dtype: of its numbers.
        low: the least number, or that of each, row by row; null: unbounded, or the dtype's own.
        high: the greatest, in the same way.
        names: of the numbers, row by row.
    """

    shape: Shape
    dtype: _ARRAY_DTYPES = "float32"
    low: Bound | list[Bound] = None
    high: Bound | list[Bound] = None
    names: Names | UnsetType = UNSET


class DiscreteSpace(_Description, frozen=True, tag_field="type", tag="discrete"):
    """One integer.

    Attributes:
        n: how many values it has.
        start: the first of them.
        names: of the values.
    """

    n: Choices
    start: Start = 0
    names: Names | UnsetType = UNSET


class MultiDiscreteSpace(_Description, frozen=True, tag_field="type", tag="multi_discrete"):
    """An array of integers.

    Attributes:
        nvec: how many values each has, row by row.
        shape: the length of each axis; left out: it is a vector.
        dtype: of the integers.
        start: the first value of all, or of each.
        names: of the integers, row by row.
    """

    nvec: Annotated[list[Choices], Meta(min_length=1, max_length=65536)]
    shape: Shape | UnsetType = UNSET
    dtype: _ARRAY_DTYPES = "int64"
    start: Start | list[Start] = 0
    names: Names | UnsetType = UNSET


class MultiBinarySpace(_Description, frozen=True, tag_field="type", tag="multi_binary"):
    """An array of zeros and ones.

    Attributes:
        shape: the length of each axis.
        names: of the numbers, row by row.
    """

    shape: Shape
    names: Names | UnsetType = UNSET


class DictSpace(_Description, frozen=True, tag_field="type", tag="dict"):
    """Values by name: an object.

    Attributes:
        spaces: of each value.
    """

    spaces: dict[str, Space]


class TupleSpace(_Description, frozen=True, tag_field="type", tag="tuple"):
    """Values in order: an array.

    Attributes:
        spaces: of each value.
    """

    spaces: list[Space]


Space: TypeAlias = BoxSpace | DiscreteSpace | MultiDiscreteSpace | MultiBinarySpace | DictSpace | TupleSpace


class Spaces(_Description, frozen=True):
    """What an environment observes and does.

    Attributes:
        observation: the space of its observations.
        action: the space of its actions.
    """

    observation: Space
    action: Space

    @classmethod
    def of(cls, observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> Spaces:
        """The description of Gymnasium's spaces.

        Raises:
            ConfigError: As for ``describe_space``.
        """
        return cls(describe_space(observation), describe_space(action))

    def gymnasium(self) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """Gymnasium's observation and action space.

        Raises:
            ConfigError: As for ``space_from``.
        """
        return space_from(self.observation, "observation"), space_from(self.action, "action")


def describe_space(space: gymnasium.Space[Any], names: Sequence[str] | None = None) -> Space:
    """A space in plain values.

    Args:
        space: a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these.
        names: of its numbers, row by row; of a Discrete, of its values.

    Raises:
        ConfigError: It is of another kind, or the number of names differs.
    """
    named = UNSET if names is None else [*names]
    described = _described(space, named)
    if named is not UNSET:
        _check_names(described, "names")
    return described


def _described(space: Any, names: list[str] | UnsetType) -> Space:
    match space:
        case space_kinds.Box():
            dtype: Any = np.dtype(space.dtype).name
            low, high = _bounds(space.low), _bounds(space.high)
            return BoxSpace([*space.shape], dtype, low, high, names)
        case space_kinds.Discrete():
            return DiscreteSpace(int(space.n), int(space.start), names)
        case space_kinds.MultiDiscrete():
            nvec: Any = space.nvec.reshape(-1).tolist()
            starts: Any = np.asarray(space.start).reshape(-1).tolist()
            start = starts[0] if len(set(starts)) == 1 else starts
            shape = UNSET if len(space.shape) == 1 else [*space.shape]
            kind: Any = np.dtype(space.dtype).name
            return MultiDiscreteSpace(nvec, shape, kind, start, names)
        case space_kinds.MultiBinary():
            return MultiBinarySpace([int(length) for length in space.shape], names)
        case space_kinds.Dict():
            inner: Mapping[Any, Any] = space.spaces
            if not all(isinstance(key, str) for key in inner):
                raise ConfigError(f"{space} has keys that are no texts, which JSON cannot hold: rename them")
            return DictSpace({key: describe_space(each) for key, each in inner.items()})
        case space_kinds.Tuple():
            return TupleSpace([describe_space(each) for each in space.spaces])
        case _:
            raise ConfigError(
                f"clients cannot be told the space {space}: use a Box, Discrete, MultiDiscrete or "
                "MultiBinary, or a Dict or Tuple of these"
            )


def _bounds(array: NDArray[Any]) -> Bound | list[Bound]:
    """One bound if all are the same; the shortest decimals that give the same numbers back."""
    if array.dtype.kind == "f":
        bounds: list[Bound] = [
            None if math.isinf(float(each)) else float(str(each)) for each in array.reshape(-1)
        ]
    else:
        bounds = [int(each) if abs(int(each)) <= _LARGEST else None for each in array.reshape(-1)]
    return bounds[0] if bounds and bounds.count(bounds[0]) == len(bounds) else bounds


def space_from(description: Space, path: str = "space") -> gymnasium.Space[Any]:
    """The space that a description means.

    Raises:
        ConfigError: A length or a bound in it does not fit; the message begins with its path.
    """
    from gymnasium import spaces  # late: spaces are described without it

    _check_names(description, f"{path}.names")
    match description:
        case BoxSpace(shape, dtype, low, high):
            axes = _axes(shape, path)
            lows, highs = (
                _bound_array(bound, axes, dtype, sign, f"{path}.{name}")
                for bound, sign, name in ((low, -1, "low"), (high, 1, "high"))
            )
            if not bool((lows <= highs).all()):
                raise ConfigError(f"{path}.low: it is above {path}.high: exchange them")
            return spaces.Box(lows, highs, axes, np.dtype(dtype).type)
        case DiscreteSpace(n, start):
            return spaces.Discrete(n, start=start)
        case MultiDiscreteSpace(nvec, shape, dtype, start):
            axes = _axes([len(nvec)] if shape is UNSET else shape, path)
            if math.prod(axes) != len(nvec):
                raise ConfigError(f"{path}.nvec: it has {len(nvec)} numbers for the shape {list(axes)}")
            if np.dtype(dtype).kind not in "iu":
                raise ConfigError(f"{path}.dtype: {dtype} holds no integers: use int64")
            starts = start if isinstance(start, list) else [start] * len(nvec)
            if len(starts) != len(nvec):
                raise ConfigError(f"{path}.start: it has {len(starts)} numbers for {len(nvec)} of nvec")
            counts, first = (np.array(each, np.int64).reshape(axes) for each in (nvec, starts))
            limits = np.iinfo(dtype)
            if int(first.min()) < limits.min or int((first + (counts - 1)).max()) > limits.max:
                raise ConfigError(f"{path}.nvec: its values do not fit {dtype}: use int64")
            kind: Any = np.dtype(dtype).type
            return spaces.MultiDiscrete(counts.astype(dtype), dtype=kind, start=first.astype(dtype))
        case MultiBinarySpace(shape):
            axes = _axes(shape, path)
            return spaces.MultiBinary(axes[0] if len(axes) == 1 else list(axes))
        case DictSpace(inner):
            return spaces.Dict({key: space_from(each, f"{path}.{key}") for key, each in inner.items()})
        case TupleSpace(members):
            return spaces.Tuple([space_from(each, f"{path}[{at}]") for at, each in enumerate(members)])


def _axes(shape: list[int], path: str) -> tuple[int, ...]:
    if math.prod(shape) > _MOST_ITEMS:
        raise ConfigError(f"{path}.shape: {shape} has more than {_MOST_ITEMS:,} numbers")
    return tuple(shape)


def _bound_array(
    bound: Bound | list[Bound], shape: tuple[int, ...], name: str, sign: int, path: str
) -> NDArray[Any]:
    dtype, size = np.dtype(name), math.prod(shape)
    bounds = bound if isinstance(bound, list) else [bound]
    if isinstance(bound, list) and len(bounds) != size:
        raise ConfigError(
            f"{path}: it has {len(bounds)} numbers for the shape {list(shape)}: give one for each, row by row"
        )
    if dtype.kind == "f":
        unbounded: Any = sign * np.inf
        least, most = -float(np.finfo(dtype).max), float(np.finfo(dtype).max)
    else:
        least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        unbounded = most if sign > 0 else least
    for at, each in enumerate(bounds):
        if each is not None and not (least <= each <= most and (dtype.kind == "f" or each == int(each))):
            raise ConfigError(f"{path}{f'[{at}]' if isinstance(bound, list) else ''}: {each} is no {name}")
    numbers: list[Any] = [unbounded if each is None else each for each in bounds]
    if not isinstance(bound, list):
        return np.full(shape, numbers[0], dtype)
    return np.array(numbers, dtype).reshape(shape)


def _check_names(description: Space, path: str) -> None:
    if isinstance(description, DictSpace | TupleSpace) or description.names is UNSET:
        return
    match description:
        case DiscreteSpace(n):
            size = n
        case MultiDiscreteSpace(nvec):
            size = len(nvec)
        case BoxSpace(shape) | MultiBinarySpace(shape):
            size = math.prod(shape)
    if len(description.names) != size:
        raise ConfigError(f"{path}: there are {len(description.names)} names for {size} numbers")
