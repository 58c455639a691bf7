"""The parts of an observation space: their names, kinds and values, and the check of each."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stoker import space_kinds as spaces
from stoker.agents.arrays import ArrayValues, native_dtype
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import shown
from stoker.replay import ArraySpec
from stoker.replay.transition import Nest

MASK = "action_mask"
"""The key of a Dict space under which it says which actions are allowed."""

OBSERVED = (
    "a Box with at least one number, of floats, integers or bools; Discrete, MultiDiscrete, MultiBinary; and "
    "Dict and Tuple of these, however nested"
)
"""The spaces that agents observe, for messages."""

Kind: TypeAlias = Literal["numbers", "bits", "choices", "image", "mask"]
"""See ``PartLayout``."""

_ARRAY: type[Any] = np.ndarray


class WholeNumbers:
    """Integers between bounds: the values of Discrete, MultiDiscrete and MultiBinary.

    Args:
        low: the least value of each, int64 of the shape of a value.
        high: the greatest.
    """

    def __init__(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
        self.shape: tuple[int, ...] = low.shape
        self.low: NDArray[np.int64] = low
        self.high: NDArray[np.int64] = high
        self._bounds = (int(low), int(high)) if not low.shape else None

    def check(self, value: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for a value that is not whole numbers of this shape within the bounds.

        Their dtype is not checked: environments give the bits of a MultiBinary as floats, too.
        """
        bounds = self._bounds
        if bounds is not None and type(value) in (int, np.int64) and bounds[0] <= value <= bounds[1]:
            return
        if type(value) is _ARRAY and self.are_valid(value[None]):
            return
        taken = f"give integers {list(self.shape)}"
        if bounds is not None:
            taken = f"give an int from {bounds[0]} to {bounds[1]}"
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidExperience(f"{name}={shown(value)} is not an array ({error}): {taken}") from error
        if array.shape != self.shape:
            raise InvalidExperience(f"{name}={shown(value)} has shape {list(array.shape)}: {taken}")
        try:
            numbers = array.astype(np.int64) if array.dtype.kind == "b" else array
            with np.errstate(invalid="ignore"):  # infinity has no remainder
                fits = (numbers % 1 == 0) & (numbers >= self.low) & (numbers <= self.high)
        except TypeError as error:
            raise InvalidExperience(f"{name}={shown(value)} is not made of numbers: {taken}") from error
        if not np.all(fits):
            where = np.unravel_index(int(np.argmin(fits)), self.shape)
            place = f"{name}[{', '.join(str(int(index)) for index in where)}]" if where else name
            raise InvalidExperience(
                f"{place}={array[where]} is not one of its values: give an int from {self.low[where]} to "
                f"{self.high[where]}"
            )

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` passes each row of an array ``[B, *shape]``."""
        return (
            type(rows) is _ARRAY
            and rows.shape[1:] == self.shape
            and rows.dtype.kind in "biu"
            and bool(((rows >= self.low) & (rows <= self.high)).all())
        )


class PartLayout(NamedTuple):
    """A part of an observation, which has no parts itself.

    Attributes:
        name: the path to it, such as ``"inventory/0"``; ``"observation"`` if there is no path.
        where: the same path in Python: ``"['inventory'][0]"``.
        kind: ``"numbers"``; ``"bits"``: 0 or 1; ``"choices"``: one-hot vectors for the network; ``"image"``:
            uint8 or bool of three axes, or a stack of such; ``"mask"``: of actions.
        shape: of its value.
        dtype: of its value, by numpy's name.
        values: their check.
        columns: its items in a packed row, or in the flattened array of a Box.
        counts: the choices that each number of it has; of other kinds empty.
        first: where it begins in the vector that a network sees of numbers and choices.
    """

    name: str
    where: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    values: ArrayValues | WholeNumbers
    columns: slice = slice(0)
    counts: tuple[int, ...] = ()
    first: int = 0

    @property
    def size(self) -> int:
        """How many numbers its value has."""
        return math.prod(self.shape)

    @property
    def divisor(self) -> float:
        """What brings bytes to 0..1; 1 for other numbers."""
        return 255.0 if self.dtype == "uint8" and self.kind in ("numbers", "image") else 1.0

    def describe(self) -> list[Any]:
        """What a saved network depends on, in plain types."""
        described: list[Any] = [self.name, self.kind, list(self.shape), self.dtype]
        if self.counts and isinstance(self.values, WholeNumbers):
            described += [list(self.counts), self.values.low.reshape(-1).tolist()]
        return described


def box_values(space: spaces.Box) -> tuple[np.dtype[Any], str]:
    """What the values of a Box are stored as, and the kinds of dtype, by numpy's letters, they come in."""
    native = native_dtype(space)
    return (np.dtype(np.float32), "biuf") if native.kind == "f" else (native, "biu")


def kind_of_box(space: spaces.Box) -> Kind:
    """Whether a Box is an image, or a stack of images, by its axes and its dtype; else numbers."""
    is_image = len(space.shape) in (3, 4) and native_dtype(space).name in ("uint8", "bool")
    return "image" if is_image else "numbers"


def space_parts(
    agent: str, space: Any, name: str, where: str, n_choices: int
) -> tuple[list[PartLayout], Nest]:
    """The parts of a space, and how they nest.

    Args:
        agent: its name in messages.
        space: the space, or a part of it.
        name: of that part, as ``PartLayout`` has it; "": it is the whole.
        where: the same.
        n_choices: the length of a mask of actions; 0: there is none.

    Raises:
        ConfigError: A part is of another kind, or a mask has another length.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        is_mask = name == MASK and n_choices > 0
        part = _part(agent, space, name or "observation", where)
        if is_mask:
            if part.size != n_choices:
                raise ConfigError(
                    f"observation{where} of {space} has {part.size} numbers for {n_choices} actions: an "
                    "action mask has one for each; rename it if it is something else"
                )
            part = part._replace(kind="mask", counts=())
        return [part], ArraySpec(torch.float32, part.shape)
    inner: Any = cast("Any", space).spaces
    items: Any = inner.items() if isinstance(space, spaces.Dict) else enumerate(inner)
    found = [
        (
            key,
            *space_parts(agent, each, f"{name}/{key}" if name else str(key), f"{where}[{key!r}]", n_choices),
        )
        for key, each in items
    ]
    nest: Any = {key: each for key, _, each in found}
    return [part for _, parts, _ in found for part in parts], (
        nest if isinstance(space, spaces.Dict) else tuple(nest.values())
    )


def _part(agent: str, space: Any, name: str, where: str) -> PartLayout:
    match space:
        case spaces.Discrete():
            first, n = int(space.start), int(space.n)
            values = WholeNumbers(np.array(first, np.int64), np.array(first + n - 1, np.int64))
            return PartLayout(name, where, "choices", (), "int64", values, counts=(n,))
        case spaces.MultiDiscrete():
            counts, start = np.asarray(space.nvec, np.int64), np.asarray(space.start, np.int64)
            values, shape = WholeNumbers(start, start + counts - 1), counts.shape
            counted = tuple(counts.reshape(-1).tolist())
            if counted:
                return PartLayout(name, where, "choices", shape, "int64", values, counts=counted)
        case spaces.MultiBinary():
            shape = tuple(int(length) for length in cast("Any", space).shape)
            values = WholeNumbers(np.zeros(shape, np.int64), np.ones(shape, np.int64))
            if 0 not in shape:
                return PartLayout(name, where, "bits", shape, "int8", values)
        case spaces.Box() if 0 not in space.shape:
            box = ArrayValues(space, *box_values(space))
            return PartLayout(name, where, kind_of_box(space), box.shape, native_dtype(space).name, box)
        case _:
            pass
    part = f"observation{where}, a {space}" if where else f"{space}"
    raise ConfigError(
        f"{agent} cannot observe {part}: it takes {OBSERVED}; wrap the environment so that its "
        "observations are of these"
    )
