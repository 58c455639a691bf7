"""What one transition holds, and where each part of it lies in a row.

The fields are those of a ``Batch``. Observations may be nested; each of their arrays is then a field of the
row, a column of the state, and a tensor of the batch. One array and one int64 action, which DQN takes, is the
plain case: ``stoker.replay.pending`` and ``stoker.replay.storage`` have a shorter way for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stoker.errors import ConfigError, InvalidExperience
from stoker.replay.batch import Batch
from stoker.replay.layout import Field, RowLayout
from stoker.replay.nesting import ArraySpec, Nest, flatten, leaves, unflatten
from stoker.types import Experience

__all__ = ["TransitionSpec"]

_INDEX = ArraySpec(torch.int64)
_NUMBER = ArraySpec(torch.float32)

_ROW_ORDER = ("actions", "rewards", "bootstrap_masks", "observations", "next_observations")
"""A row begins with the numbers: in the plain case they are written in one go."""

_FIELDS = tuple(
    zip(Batch._fields, ("observation", "action", "reward", "next_observation", "bootstrap_mask"), strict=True)
)
"""Each field of a ``Batch`` and what it is called in one transition."""


class TransitionSpec:
    """The arrays of a transition: their nesting, names, dtypes and shapes.

    Args:
        observation: what one observation is: an ``ArraySpec``, or a dict or tuple of them, however nested.
        action: what one action is; an int64 when left out.

    Attributes:
        nests: what each field of a ``Batch`` holds for one transition.
        names: of all arrays, in the order of a ``Batch``: ``observations['camera']``, ..., ``actions``, ...
        layout: where they lie in a row.
        is_plain: whether an observation is one array and an action one int64.

    Raises:
        ConfigError: Numpy lacks a dtype.
    """

    def __init__(self, observation: Nest, action: ArraySpec = _INDEX) -> None:
        self.nests: dict[str, Nest] = {
            "observations": observation,
            "actions": action,
            "rewards": _NUMBER,
            "next_observations": observation,
            "bootstrap_masks": _NUMBER,
        }
        named = {field: leaves(nest, field) for field, nest in self.nests.items()}
        self.names = [name for field in Batch._fields for name, _ in named[field]]
        self.layout = RowLayout(
            Field(name, spec.dtype, spec.shape) for field in _ROW_ORDER for name, spec in named[field]
        )
        self.is_plain = isinstance(observation, ArraySpec) and action == _INDEX
        self._of_one = [
            (name, self.layout.dtype(column), self.layout.fields[column].shape)
            for column, name in zip(
                self.names,
                (name for field, called in _FIELDS for name, _ in leaves(self.nests[field], called)),
                strict=True,
            )
        ]

    def batch(self, columns: Sequence[torch.Tensor]) -> Batch:
        """Columns in the order of ``names``, nested as they belong."""
        if self.is_plain:
            return Batch(*columns)
        values = iter(columns)
        return Batch(*(unflatten(nest, values) for nest in self.nests.values()))

    def flat(self, columns: Sequence[Any]) -> dict[str, Any]:
        """The fields of a ``Batch`` as single columns, by name; they are not looked at.

        Raises:
            ConfigError: They are not nested as they should be.
        """
        values = [
            leaf
            for (field, nest), value in zip(self.nests.items(), columns, strict=True)
            for leaf in flatten(nest, value, field, ConfigError)
        ]
        return dict(zip(self.names, values, strict=True))

    def arrays(self, experience: Experience, bootstrap_mask: float) -> list[np.ndarray[Any, np.dtype[Any]]]:
        """A transition's values in the order of ``names``, each of the shape that is stored.

        Raises:
            InvalidExperience: A key is missing or unknown, or a value is of another shape or of a dtype that
                would lose its kind; the message names the place.
        """
        given = (
            experience.observation,
            experience.action,
            experience.reward,
            experience.next_observation,
            bootstrap_mask,
        )
        values = [
            leaf
            for (field, called), value in zip(_FIELDS, given, strict=True)
            for leaf in flatten(self.nests[field], value, called, InvalidExperience)
        ]
        return [
            value
            if type(value) is np.ndarray and value.shape == shape and value.dtype == dtype
            else _fitted(value, dtype, shape, name)
            for value, (name, dtype, shape) in zip(values, self._of_one, strict=True)
        ]


def _fitted(
    value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], name: str
) -> np.ndarray[Any, np.dtype[Any]]:
    """A value as an array of that dtype; whole numbers may come in any integer dtype that holds them."""
    taken = f"give {dtype.name} {list(shape)}"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidExperience(f"{name} cannot be read as an array ({error}): {taken}") from error
    if array.shape != shape:
        raise InvalidExperience(f"{name} has shape {list(array.shape)}: {taken}")
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
            raise InvalidExperience(f"{name} has values from {array.min()} to {array.max()}: {taken}")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InvalidExperience(f"{name} is {array.dtype.name} and would not stay what it is: {taken}")
    return array.astype(dtype)
