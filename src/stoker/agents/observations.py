"""Observations of any space as agents keep them: one array per observation, checked and packed.

A Box stays the array that it is. A Discrete, MultiDiscrete, MultiBinary, Tuple or Dict space, however nested,
has named parts, and each observation becomes one row (``stoker.agents.packed_rows``). So replays, rollouts,
windows of several steps and statistics know only arrays. Agents pack, not environments: a journal and other
agents see what the environment gave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.agents.arrays import ArrayValues, native_dtype
from stoker.agents.packed_rows import ImagePart, PackedRows
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import shown
from stoker.replay import ArraySpec
from stoker.replay.transition import Nest, flatten

__all__ = [
    "MASK", "ObservationPart", "Observations", "PackedObservations", "PlainObservations", "WholeNumbers",
    "observations_of",
]  # fmt: skip

MASK = "action_mask"
"""The key of a Dict space under which it says which actions are allowed."""

Kind: TypeAlias = Literal["numbers", "bits", "choices", "image", "mask"]
"""See ``ObservationPart``."""

_MOST_CHOICES = 1 << 24  # the place of a choice is kept as a float32
_ARRAY: type[Any] = np.ndarray
_WORD = 4
_ORDER: tuple[tuple[Kind, ...], ...] = (("numbers", "bits"), ("choices",), ("image",), ("mask",))
"""The kinds of parts as they follow each other in a row."""
_TAKEN = (
    "a Box with at least one number, of floats, integers or bools; Discrete, MultiDiscrete, MultiBinary; and "
    "Dict and Tuple of these, however nested"
)


class WholeNumbers:
    """Integers between bounds: the values of Discrete, MultiDiscrete and MultiBinary.

    Args:
        low: the least value of each, int64 of the shape of a value.
        high: the greatest.
    """

    def __init__(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
        self.shape: tuple[int, ...] = low.shape
        self.low, self.high = low, high
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


class ObservationPart(NamedTuple):
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


class PlainObservations(ArrayValues):
    """The observations of a Box, which are kept as they are.

    Attributes: those of ``ArrayValues``.
        parts: one.
        rows: None: nothing is packed.
        n_inputs: the numbers that a perceptron sees.
        n_statistics: the numbers that statistics are kept of.
        mask: None: a Box has no mask of actions.
    """

    rows: PackedRows | None = None
    mask: slice | None = None

    def __init__(self, space: spaces.Box) -> None:
        native = native_dtype(space)
        is_float = native.kind == "f"
        super().__init__(space, np.dtype(np.float32) if is_float else native, "biuf" if is_float else "biu")
        self.n_inputs = self.n_statistics = self.size
        kind: Kind = "image" if _is_image(space) else "numbers"
        self.parts = (
            ObservationPart("observation", "", kind, self.shape, native.name, self, slice(0, self.size)),
        )

    def blank(self, count: int) -> NDArray[Any]:
        """Observations of zeros, ``[count, *shape]``, to try a network with."""
        return np.zeros((count, *self.shape), self.dtype)

    def numbers(self, row: Any) -> Any:
        """What statistics are kept of."""
        return row

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self.shape), "dtype": self.dtype.name}


class PackedObservations:
    """The observations of a space with parts, or of one that is no Box, as rows.

    Args:
        parts: in their order in ``nest``.
        nest: how an observation nests.

    Attributes: those of ``PlainObservations``.
        rows: the layout of a row.
        mask: the items of a row that are the mask of actions, each 0 or 1; None: there is none.
    """

    is_short = False

    def __init__(self, parts: Sequence[ObservationPart], nest: Nest) -> None:
        self._nest = nest
        self.rows, self.parts = _laid_out(parts)
        self._offsets = [_offsets(part) for part in self.parts]
        self.mask = self.rows.mask
        self.shape: tuple[int, ...] = (self.rows.width,)
        self.dtype = self.rows.dtype
        self.n_inputs, self.n_statistics = self.rows.n_flat, self.rows.n_floats

    @property
    def spec(self) -> ArraySpec:
        """How a replay holds one."""
        return ArraySpec(torch.uint8 if self.rows.images else torch.float32, self.shape)

    def check(self, value: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for a value that is not of the space; it names the part."""
        for part, leaf in zip(self.parts, flatten(self._nest, value, name, InvalidExperience), strict=True):
            part.values.check(leaf, name + part.where)

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` surely passes each row of columns: an array, or a dict as observations are."""
        if type(rows) is not _ARRAY and not isinstance(rows, Mapping):
            return False
        try:
            columns = flatten(self._nest, rows, "", InvalidExperience)
        except InvalidExperience:
            return False
        are_fine = all(
            part.values.are_valid(column) for part, column in zip(self.parts, columns, strict=True)
        )
        return are_fine and len({*map(len, columns)}) == 1

    def stack(self, values: Any) -> NDArray[Any]:
        """Checked observations, or columns of them, as rows ``[B, width]``."""
        if type(values) is _ARRAY or isinstance(values, Mapping):
            columns: Sequence[Any] = flatten(self._nest, values, "observations", InvalidExperience)
            n_rows = len(columns[0])
        else:
            n_rows = len(values)
            nested = (flatten(self._nest, value, "observation", InvalidExperience) for value in values)
            columns = list(zip(*nested, strict=True)) or [()] * len(self.parts)
        rows = np.zeros((n_rows, self.rows.width), self.dtype)
        floats = self.rows.float_columns(rows)
        for part, offsets, column in zip(self.parts, self._offsets, columns, strict=True):
            items = rows if part.kind in ("image", "mask") else floats
            _write(part, offsets, items[:, part.columns], column)
        return rows

    def blank(self, count: int) -> NDArray[Any]:
        """Rows of zeros and of first choices, ``[count, width]``, to try a network with."""
        rows = np.zeros((count, self.rows.width), self.dtype)
        floats = self.rows.float_columns(rows)
        for part in self.parts:
            if part.counts:
                floats[:, part.columns] = _first_places(part)
        return rows

    def named(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of packed rows ``[B, width]`` by name, without the mask of actions.

        Numbers and bits are float32 ``[B, *shape]``, choices int64 ``[B, *shape]`` that count from 0, images
        uint8 or bool ``[B, *shape]``.
        """
        floats, named = self.rows.floats(rows), dict[str, torch.Tensor]()
        for part in self.parts:
            if part.kind == "mask":
                continue
            if part.kind == "image":
                values = rows[:, part.columns]
                values = values.bool() if part.dtype == "bool" else values
            else:
                values = floats[:, part.columns]
            if part.counts:
                values = values.long() - torch.as_tensor(_first_places(part)).to(rows.device)
            named[part.name] = values.reshape(len(rows), *part.shape)
        return named

    def numbers(self, row: Any) -> NDArray[np.float32]:
        """What statistics are kept of: the floats of a packed row."""
        return self.rows.float_columns(row)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"parts": [part.describe() for part in self.parts]}


Observations: TypeAlias = PlainObservations | PackedObservations


def observations_of(agent: str, space: gymnasium.Space[Any], n_choices: int = 0) -> Observations:
    """How an agent keeps the observations of a space.

    Args:
        agent: its name in messages.
        space: of the environment.
        n_choices: the length of a mask of its actions; 0: it takes no mask.

    Raises:
        ConfigError: The space, or a part of it, is of another kind, or a mask has another length.
    """
    if isinstance(space, spaces.Box) and 0 not in space.shape:
        return PlainObservations(cast("Any", space))
    parts, nest = _found(agent, cast("Any", space), "", "", n_choices)
    if all(part.kind == "mask" for part in parts):
        raise ConfigError(f"{agent} cannot observe {space}: it has no numbers; it takes {_TAKEN}")
    names = [part.name for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{agent} cannot observe {space}: two of its parts are named {twice!r}; rename one")
    return PackedObservations(parts, nest)


def _found(
    agent: str, space: gymnasium.Space[Any], name: str, where: str, n_choices: int
) -> tuple[list[ObservationPart], Nest]:
    """The parts of a space, and how they nest."""
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
        (key, *_found(agent, each, f"{name}/{key}" if name else str(key), f"{where}[{key!r}]", n_choices))
        for key, each in items
    ]
    nest: Any = {key: each for key, _, each in found}
    return [part for _, parts, _ in found for part in parts], (
        nest if isinstance(space, spaces.Dict) else tuple(nest.values())
    )


def _part(agent: str, space: gymnasium.Space[Any], name: str, where: str) -> ObservationPart:
    match space:
        case spaces.Discrete():
            first, n = int(space.start), int(space.n)
            values = WholeNumbers(np.array(first, np.int64), np.array(first + n - 1, np.int64))
            return ObservationPart(name, where, "choices", (), "int64", values, counts=(n,))
        case spaces.MultiDiscrete():
            counts, start = np.asarray(space.nvec, np.int64), np.asarray(space.start, np.int64)
            values, shape = WholeNumbers(start, start + counts - 1), counts.shape
            counted = tuple(counts.reshape(-1).tolist())
            if counted:
                return ObservationPart(name, where, "choices", shape, "int64", values, counts=counted)
        case spaces.MultiBinary():
            shape = tuple(int(length) for length in cast("Any", space).shape)
            values = WholeNumbers(np.zeros(shape, np.int64), np.ones(shape, np.int64))
            if 0 not in shape:
                return ObservationPart(name, where, "bits", shape, "int8", values)
        case spaces.Box() if 0 not in space.shape:
            kind: Kind = "image" if _is_image(space) else "numbers"
            box = PlainObservations(space)
            return ObservationPart(name, where, kind, box.shape, native_dtype(space).name, box)
        case _:
            pass
    part = f"observation{where}, a {space}" if where else f"{space}"
    raise ConfigError(
        f"{agent} cannot observe {part}: it takes {_TAKEN}; wrap the environment so that its "
        "observations are of these"
    )


def _is_image(space: spaces.Box) -> bool:
    """Whether it is an image, or a stack of images, by its axes and its dtype."""
    return len(space.shape) in (3, 4) and native_dtype(space).name in ("uint8", "bool")


def _laid_out(parts: Sequence[ObservationPart]) -> tuple[PackedRows, tuple[ObservationPart, ...]]:
    """The layout of a row, and the parts with their places in it."""
    has_images = any(part.kind == "image" for part in parts)
    placed: dict[str, ObservationPart] = {}
    end = n_numbers = n_floats = n_vector = 0
    for kinds in _ORDER:
        if kinds == ("image",):
            end, n_floats = (_WORD if has_images else 1) * end, end
        for part in parts:
            if part.kind in kinds:
                placed[part.name] = part._replace(columns=slice(end, end + part.size), first=n_vector)
                end += part.size
                n_vector += (
                    sum(part.counts) if part.counts else part.size * (part.kind in ("numbers", "bits"))
                )
        if kinds == ("numbers", "bits"):
            n_numbers = end
    if n_vector > _MOST_CHOICES:
        raise ConfigError(
            f"{n_vector:,} numbers and choices in one observation are too many (at most {_MOST_CHOICES:,}): "
            "give large counts as a Box of numbers"
        )
    ordered = tuple(placed[part.name] for part in parts)
    is_normalized = np.zeros(n_floats, np.bool_)
    for part in ordered:
        if part.kind == "numbers":
            is_normalized[part.columns] = True
    return PackedRows(
        width=-(-end // _WORD) * _WORD if has_images else end,  # so that the floats of each row are aligned
        n_floats=n_floats,
        n_numbers=n_numbers,
        n_vector=n_vector,
        images=tuple(
            ImagePart(part.columns, part.shape, part.divisor) for part in ordered if part.kind == "image"
        ),
        mask=next((part.columns for part in ordered if part.kind == "mask"), None),
        is_normalized=is_normalized,
    ), ordered


def _offsets(part: ObservationPart) -> NDArray[np.int64] | None:
    """What makes of each choice the place of its 1 in the vector that a network sees, ``[*shape]``."""
    if not part.counts:
        return None
    return _first_places(part).reshape(part.shape) - cast("WholeNumbers", part.values).low


def _first_places(part: ObservationPart) -> NDArray[np.int64]:
    """The place of the first choice of each of its numbers, ``[size]``."""
    return part.first + np.cumsum([0, *part.counts[:-1]], dtype=np.int64)


def _write(
    part: ObservationPart, offsets: NDArray[np.int64] | None, rows: NDArray[Any], column: Sequence[Any]
) -> None:
    """Write the values of a part, checked, to its columns ``[B, size]``."""
    target = rows.reshape(len(rows), *part.shape)  # a view, as one axis becomes several
    if offsets is not None:
        target[...] = np.array(column, np.int64).reshape(target.shape) + offsets
        return
    if type(column) is _ARRAY:
        target[...] = column
    else:
        for row, value in enumerate(column):
            target[row] = value
    if part.kind == "mask":
        np.not_equal(target, 0, out=target, casting="unsafe")
    elif part.kind == "numbers" and part.divisor != 1.0:
        target /= part.divisor
