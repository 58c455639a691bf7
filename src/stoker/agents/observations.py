"""Observations of any space as agents keep them: one array per observation, checked and packed.

A Box stays the array that it is. A Discrete, MultiDiscrete, MultiBinary, Tuple or Dict space, however nested,
has named parts, and each observation becomes one row (``stoker.agents.packed_rows``). So replays, rollouts,
windows of several steps and statistics know only arrays. Agents pack, not environments: a journal and other
agents see what the environment gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stoker import space_kinds as spaces
from stoker.agents.arrays import ArrayValues, native_dtype
from stoker.agents.observation_parts import (
    OBSERVED,
    Kind,
    PartLayout,
    WholeNumbers,
    box_values,
    kind_of_box,
    space_parts,
)
from stoker.agents.packed_rows import ImagePart, PackedRows
from stoker.errors import ConfigError, InvalidExperience
from stoker.replay import ArraySpec
from stoker.replay.transition import Nest, flatten

_MOST_CHOICES = 1 << 24  # the place of a choice is kept as a float32
_ARRAY: type[Any] = np.ndarray
_WORD = 4
_ORDER: tuple[tuple[Kind, ...], ...] = (("numbers", "bits"), ("choices",), ("image",), ("mask",))
"""The kinds of parts as they follow each other in a row."""


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
        super().__init__(space, *box_values(space))
        self.n_inputs: int = self.size
        self.n_statistics: int = self.size
        kind, dtype, columns = kind_of_box(space), native_dtype(space).name, slice(0, self.size)
        self.parts: tuple[PartLayout, ...] = (
            PartLayout("observation", "", kind, self.shape, dtype, self, columns),
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

    def __init__(self, parts: Sequence[PartLayout], nest: Nest) -> None:
        self._nest = nest
        laid_out = _laid_out(parts)
        self.rows: PackedRows = laid_out[0]
        self.parts: tuple[PartLayout, ...] = laid_out[1]
        self._offsets = [_offsets(part) for part in self.parts]
        self.mask: slice | None = self.rows.mask
        self.shape: tuple[int, ...] = (self.rows.width,)
        self.dtype: np.dtype[Any] = self.rows.dtype
        self.n_inputs: int = self.rows.n_flat
        self.n_statistics: int = self.rows.n_floats

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


def observations_of(agent: str, space: Any, n_choices: int = 0) -> Observations:
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
    parts, nest = space_parts(agent, cast("Any", space), "", "", n_choices)
    if all(part.kind == "mask" for part in parts):
        raise ConfigError(f"{agent} cannot observe {space}: it has no numbers; it takes {OBSERVED}")
    names = [part.name for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{agent} cannot observe {space}: two of its parts are named {twice!r}; rename one")
    return PackedObservations(parts, nest)


def _laid_out(parts: Sequence[PartLayout]) -> tuple[PackedRows, tuple[PartLayout, ...]]:
    """The layout of a row, and the parts with their places in it."""
    has_images = any(part.kind == "image" for part in parts)
    placed: dict[str, PartLayout] = {}
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


def _offsets(part: PartLayout) -> NDArray[np.int64] | None:
    """What makes of each choice the place of its 1 in the vector that a network sees, ``[*shape]``."""
    if not part.counts:
        return None
    return _first_places(part).reshape(part.shape) - cast("WholeNumbers", part.values).low


def _first_places(part: PartLayout) -> NDArray[np.int64]:
    """The place of the first choice of each of its numbers, ``[size]``."""
    return part.first + np.cumsum([0, *part.counts[:-1]], dtype=np.int64)


def _write(
    part: PartLayout, offsets: NDArray[np.int64] | None, rows: NDArray[Any], column: Sequence[Any]
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
