"""Transitions handed in as whole columns: checked and converted before any of them is stored.

Here shapes are looked at, other than for single transitions, because one look serves a whole batch. Used by
``stoker.replay.ring``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.replay.layout import RowLayout

__all__ = ["checked_columns"]


def checked_columns(layout: RowLayout, given: Mapping[str, Any]) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Columns as arrays ``[B, *shape]`` of the stored dtypes, in the order given; the first one says B.

    Args:
        layout: what a row takes.
        given: an array, or a tensor on any device, for each field of a row.

    Raises:
        ConfigError: A column is of another shape or length, or of a dtype that would lose its kind.
    """
    columns: list[np.ndarray[Any, np.dtype[Any]]] = []
    for name, values in given.items():
        dtype, shape = layout.dtype(name), layout.fields[name].shape
        try:
            array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} cannot be read as an array of {dtype.name}: {error}") from error
        length = len(columns[0]) if columns else len(array) if array.ndim else 0
        if array.shape != (length, *shape):
            raise ConfigError(
                f"{name} have shape {list(array.shape)}, but here {[length, *shape]} is taken: "
                "one row per transition, as many in each column"
            )
        if array.dtype != dtype:
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise ConfigError(
                    f"{name} are {array.dtype.name} and would not stay what they are as {dtype.name}, "
                    "which is what is held: convert them first"
                )
            array = array.astype(dtype)
        columns.append(array)
    return columns
