"""Transitions on their way into a replay's rows: read, converted and put together apart from the storage.

What cannot be stored is found out here, before a row of the storage is touched. Plain transitions are taken
as checked, and numpy spreads what it can; others are looked at array by array. Used by
``stoker.replay.storage``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from stoker.replay.batch import Batch
from stoker.replay.transition import TransitionSpec
from stoker.types import EpisodeStatus, Experience

__all__ = ["NestedPendingRow", "PendingRow", "stacked"]

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_TERMINATED = EpisodeStatus.TERMINATED  # compared here: asking a status for its bootstrap_mask shows in add
_pack_numbers = struct.Struct("=qff").pack_into  # the fields that a plain transition's row begins with


class PendingRow:
    """A separate row in which a plain transition is put together: half of one is never in the storage.

    Args:
        spec: a plain one.

    Attributes:
        bytes: the row.
    """

    def __init__(self, spec: TransitionSpec) -> None:
        self.bytes = bytearray(spec.layout.row_bytes)
        self._values = _places(spec, self.bytes)
        self._observation, _, _, self._next_observation, _ = self._values

    def write(self, experience: Experience, bootstrap_mask: float | None) -> None:
        """Replace what it holds."""
        mask = bootstrap_mask
        if mask is None:
            mask = 0.0 if experience.status is _TERMINATED else 1.0
        self._observation[...] = experience.observation
        self._next_observation[...] = experience.next_observation
        try:
            _pack_numbers(self.bytes, 0, experience.action, experience.reward, mask)
        except (struct.error, TypeError, OverflowError):  # numpy takes more than struct, or says why not
            _, action, reward, _, place_of_mask = self._values
            action[...], reward[...], place_of_mask[...] = experience.action, experience.reward, mask


class NestedPendingRow:
    """The same for any transition: written only when all of its values fit."""

    def __init__(self, spec: TransitionSpec) -> None:
        self._spec = spec
        self.bytes = bytearray(spec.layout.row_bytes)
        self._values = _places(spec, self.bytes)

    def write(self, experience: Experience, bootstrap_mask: float | None) -> None:
        """Replace what it holds.

        Raises:
            InvalidExperience: A value does not fit; the message names its place.
        """
        (mask,) = _masks((experience,)) if bootstrap_mask is None else (bootstrap_mask,)
        for place, value in zip(self._values, self._spec.arrays(experience, mask), strict=True):
            place[...] = value


def stacked(
    spec: TransitionSpec, experiences: Sequence[Experience], bootstrap_mask: float | None
) -> list[_Array]:
    """One array ``[B, *shape]`` of the stored dtype per column.

    Args:
        spec: what a transition holds.
        experiences: the transitions.
        bootstrap_mask: of all of them; None: what each status says.

    Raises:
        InvalidExperience: A value of a transition that is not plain does not fit.
    """
    masks = [bootstrap_mask] * len(experiences) if bootstrap_mask is not None else _masks(experiences)
    return (_plain_columns if spec.is_plain else _columns)(spec, experiences, masks)


def _columns(spec: TransitionSpec, experiences: Sequence[Experience], masks: list[float]) -> list[_Array]:
    layout = spec.layout
    columns = [
        np.empty((len(experiences), *layout.fields[name].shape), layout.dtype(name)) for name in spec.names
    ]
    for row, (experience, mask) in enumerate(zip(experiences, masks, strict=True)):
        for column, value in zip(columns, spec.arrays(experience, mask), strict=True):
            column[row] = value
    return columns


def _plain_columns(
    spec: TransitionSpec, experiences: Sequence[Experience], masks: list[float]
) -> list[_Array]:
    values: list[list[Any]] = [
        [experience.observation for experience in experiences],
        [experience.action for experience in experiences],
        [experience.reward for experience in experiences],
        [experience.next_observation for experience in experiences],
        masks,
    ]
    return [
        _column(column, spec.layout.dtype(name), spec.layout.fields[name].shape)
        for name, column in zip(Batch._fields, values, strict=True)
    ]


def _column(values: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> _Array:
    try:
        array = np.array(values, dtype)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != (len(values), *shape):
        # one by one numpy broadcasts what it can and says what is wrong with the rest
        array = np.empty((len(values), *shape), dtype)
        for row, value in enumerate(values):
            array[row] = value
    return array


def _masks(experiences: Sequence[Experience]) -> list[float]:
    return [0.0 if experience.status is _TERMINATED else 1.0 for experience in experiences]


def _places(spec: TransitionSpec, row_bytes: bytearray) -> list[_Array]:
    """The values of a row to write to, in the order of a ``Batch``."""
    row = torch.frombuffer(row_bytes, dtype=torch.int64).view(1, spec.layout.row_words)
    columns = spec.layout.arrays(row)
    # 0, ...: also a number is an array to write to, and a row in one step
    return [columns[name][0, ...] for name in spec.names]
