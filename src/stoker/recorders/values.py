"""The values that a record may hold, and the check of values from callers.

A record holds the measurements of one environment step: under names like ``train/loss`` a number, an array,
an image, a histogram, a text or a time. Only names that every recorder stores unchanged are allowed. A
checked record shares no memory with the caller's values.

A number may be NaN or infinite: a loss that is no longer finite is worth seeing. JSON has no such numbers:
rows leave them out, and never hold null.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import LARGEST_INT, plain_text, shown

__all__ = [
    "Array",
    "Histogram",
    "Image",
    "Record",
    "Value",
    "check_key",
    "checked_record",
    "checked_value",
    "row_value",
]

Array = NDArray[Any]
"""Numbers in one to three dimensions."""

_KEY = re.compile(r"[\w.-]+(/[\w.-]+)*")
_LONGEST_KEY = 250
_CHANNELS = (1, 3, 4)


class Image:
    """A picture: a copy of uint8 pixels ``[H, W]`` or ``[H, W, C]``, with C of 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ConfigError: Another shape or type.
    """

    __slots__ = ("pixels",)

    def __init__(self, pixels: Any) -> None:
        found = _numbers(pixels)
        is_picture = found is not None and (
            found.ndim == 2 or (found.ndim == 3 and found.shape[-1] in _CHANNELS)
        )
        if found is None or not is_picture or found.dtype != np.uint8 or not found.size:
            raise ConfigError(
                f"Image({shown(pixels)}): give uint8 pixels of shape [H, W] or [H, W, C] with C of 1, 3 or 4"
            )
        self.pixels: NDArray[np.uint8] = found if found.ndim == 3 else found[:, :, np.newaxis]
        """uint8 ``[H, W, C]``."""

    def __repr__(self) -> str:
        return f"Image(uint8 {list(self.pixels.shape)})"


class Histogram:
    """A copy of values whose distribution is of interest; those of one record and name are pooled.

    Raises:
        ConfigError: They are not numbers.
    """

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        found = _numbers(values)
        if found is None:
            raise ConfigError(f"Histogram({shown(values)}): give numbers")
        self.values: NDArray[np.float64] = found.astype(np.float64).reshape(-1)
        """float64 ``[N]``."""

    def __repr__(self) -> str:
        return f"Histogram(float64 [{len(self.values)}])"

    def finite(self) -> NDArray[np.float64]:
        """The finite values: the others have no place on an axis."""
        return self.values[np.isfinite(self.values)]


Value = float | int | bool | str | datetime | Array | Image | Histogram
"""What a record may hold under one name; tensors, numpy's scalars and lists are converted."""

Record = Mapping[str, Value]
"""The measurements of one environment step, by name."""


def checked_record(values: Mapping[str, Any]) -> dict[str, Value]:
    """A copy of the values as plain Python numbers, numpy arrays and this module's types.

    Raises:
        ConfigError: A name or a value cannot be recorded; the message holds both.
    """
    if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's
        raise ConfigError(f"{shown(values)} is not a record: give a mapping of names to values")
    record: dict[str, Value] = {}
    for key, value in values.items():
        check_key(key, value)
        record[key] = checked_value(key, value)
    return record


def check_key(key: Any, value: Any) -> None:
    """Refuse a name that some recorder could not store unchanged.

    Raises:
        ConfigError: The message holds the name and the value.
    """
    if (
        not isinstance(key, str)
        or len(key) > _LONGEST_KEY
        or not _KEY.fullmatch(key)
        or {".", ".."} & set(key.split("/"))
    ):
        raise ConfigError(
            f"{key!r} (for {shown(value)}) cannot name a metric: use up to {_LONGEST_KEY} letters, digits, "
            "'_', '-' and '.', in groups divided by '/', such as 'train/loss'"
        )


def checked_value(key: str, value: Any) -> Value:
    """The value as a record holds it.

    Raises:
        ConfigError: It cannot be recorded; the message names it and its key.
    """
    match value:
        case float():
            return float(value)  # numpy's float64 is a float
        case str():
            return _text(key, value)
        case bool() | Image() | Histogram():
            return value
        case int():
            return int(value) if -LARGEST_INT - 1 <= value <= LARGEST_INT else _float(key, value)
        case datetime():
            if value.tzinfo is None:
                raise ConfigError(
                    f"{key}={value!r} has no time zone: give one, as in datetime.now(timezone.utc)"
                )
            return value
        case _:
            found = _numbers(value)
    if found is None or found.ndim > 3:
        raise ConfigError(
            f"{key}={shown(value)} cannot be recorded: give a number, a text, a datetime, an array of one "
            "to three dimensions, an Image or a Histogram"
        )
    return found if found.ndim else cast("float | int | bool", found.item())


def row_value(value: Value) -> float | str | None:
    """The value as a row of JSON holds it; None for NaN, infinity, arrays, images and histograms."""
    match value:
        case int():
            return int(value)
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            return None


def _text(key: str, value: str) -> str:
    try:
        return plain_text(key, value)
    except InvalidExperience as error:
        raise ConfigError(str(error)) from error


def _float(key: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{key}: an int of {value.bit_length()} bits cannot be recorded") from error


def _numbers(value: Any) -> Array | None:
    """A copy of real numbers as an array of any shape; None for anything else."""
    torch = sys.modules.get("torch")  # without it there are no tensors
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype is torch.bfloat16:  # numpy has no such type
            value = value.float()
        value = value.resolve_neg().numpy() if not value.is_complex() else None
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        found = np.array(value)
    except (ValueError, TypeError):  # ragged, or of a type that numpy does not know
        return None
    return found if found.dtype.kind in "biuf" else None
