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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import LARGEST_INT, plain_text, shown

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
        if found is not None and found.ndim == 2:
            found = found[:, :, np.newaxis]
        is_picture = found is not None and found.ndim == 3 and found.shape[-1] in _CHANNELS and found.size
        if found is None or found.dtype != np.uint8 or not is_picture:
            raise ConfigError(
                f"Image({shown(pixels)}): give uint8 pixels of shape [H, W] or [H, W, C] with C of 1, 3 or 4"
            )
        self.pixels: NDArray[np.uint8] = found
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
        _check_key(key, value)
        record[key] = _checked_value(key, value)
    return record


def _check_key(key: Any, value: Any) -> None:
    """Refuse a name that some recorder could not store unchanged."""
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


def _checked_value(key: str, value: Any) -> Value:
    match value:
        case float():
            return float(value)  # numpy's float64 is a float
        case str():
            try:
                return plain_text(key, value)
            except InvalidExperience as error:
                raise ConfigError(str(error)) from error
        case bool() | Image() | Histogram():
            return value
        case int():
            try:
                return int(value) if -LARGEST_INT - 1 <= value <= LARGEST_INT else float(value)
            except OverflowError as error:
                raise ConfigError(f"{key}: an int of {value.bit_length()} bits cannot be recorded") from error
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
    if found.ndim:
        return found
    return float(found) if found.dtype.kind == "f" else found.item()  # of a longdouble, item() is one again


def finite_values(value: Histogram | Array) -> NDArray[np.float64]:
    """The finite ones of the values, in one dimension: the others have no place on an axis."""
    values = value.values if isinstance(value, Histogram) else value.astype(np.float64).reshape(-1)
    return values[np.isfinite(values)]


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


def _numbers(value: Any) -> Array | None:
    """A copy of real numbers as an array of any shape; None for anything else."""
    if isinstance(value, (str, bytes, Mapping)):
        return None
    torch = sys.modules.get("torch")  # without it there are no tensors
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            value = value.detach().cpu().resolve_conj().resolve_neg()
            value = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
        found = np.array(value)
    except (ValueError, TypeError, NotImplementedError):  # ragged, sparse, of a type that numpy lacks
        return None
    return found if found.dtype.kind in "biuf" else None
