"""What a record may hold, and the gate that callers' values go through.

A record says what was measured at one environment step: names such as ``train/loss``, each with a number,
an array, an image, a histogram, a text or a time. Names are those that every sink takes as they are, so
that all of them agree. Past the gate a record shares no memory with what was handed in.

A number may be NaN or infinite: a loss that is no longer finite is worth seeing. Sinks that know such
numbers get them; JSON knows none, so there the value is left out, never written as null.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import LARGEST_INT, plain_text

__all__ = [
    "Array",
    "Histogram",
    "Image",
    "Record",
    "Value",
    "check_key",
    "checked_record",
    "checked_value",
    "logged_values",
    "row_value",
]

Array = NDArray[Any]
"""Numbers in one to three dimensions."""

_KEY = re.compile(r"[\w.-]+(/[\w.-]+)*")
_LONGEST_KEY = 250
_CHANNELS = (1, 3, 4)


class Image:
    """A picture.

    Args:
        pixels: uint8 ``[H, W]`` (grey) or ``[H, W, C]`` with C of 1 (grey), 3 (RGB) or 4 (RGBA), as array or
            tensor; it is copied.

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
                f"Image({_brief(pixels)}): give uint8 pixels of shape [H, W] or [H, W, C] with C of 1, 3 or 4"
            )
        self.pixels: NDArray[np.uint8] = found if found.ndim == 3 else found[:, :, np.newaxis]
        """uint8 ``[H, W, C]``."""

    def __repr__(self) -> str:
        return f"Image(uint8 {list(self.pixels.shape)})"


class Histogram:
    """Values whose distribution is of interest; those of one record and name are pooled.

    What is not finite has no place on an axis and is left out where the values are counted.

    Args:
        values: numbers of any shape, as array, tensor or sequence; they are copied.

    Raises:
        ConfigError: No numbers.
    """

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        found = _numbers(values)
        if found is None:
            raise ConfigError(f"Histogram({_brief(values)}): give numbers")
        self.values: NDArray[np.float64] = found.astype(np.float64).reshape(-1)
        """float64 ``[N]``."""

    def __repr__(self) -> str:
        return f"Histogram(float64 [{len(self.values)}])"

    def finite(self) -> NDArray[np.float64]:
        """Those of the values that are finite."""
        return self.values[np.isfinite(self.values)]


Value = float | int | bool | str | datetime | Array | Image | Histogram
"""What a record may hold under one name; scalars and arrays of torch, numpy's scalars and lists
are taken too."""

Record = Mapping[str, Value]
"""What was measured at one environment step, by name."""


def checked_record(values: Mapping[str, Any]) -> dict[str, Value]:
    """The values as plain Python numbers, numpy arrays and this module's types; the ones given stay.

    Raises:
        ConfigError: A name or a value cannot be recorded; the message has both.
    """
    if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's
        raise ConfigError(f"{_brief(values)} is no record: give a mapping of names to values")
    record: dict[str, Value] = {}
    for key, value in values.items():
        check_key(key, value)
        record[key] = checked_value(key, value)
    return record


def check_key(key: Any, value: Any) -> None:
    """Refuse a name that some sink could not store as it is.

    Raises:
        ConfigError: It is such a name.
    """
    if (
        not isinstance(key, str)
        or len(key) > _LONGEST_KEY
        or not _KEY.fullmatch(key)
        or {".", ".."} & set(key.split("/"))
    ):
        raise ConfigError(
            f"{key!r} (for {_brief(value)}) cannot name a metric: use up to {_LONGEST_KEY} letters, digits, "
            "'_', '-' and '.', in groups divided by '/', such as 'train/loss'"
        )


def checked_value(key: str, value: Any) -> Value:
    """The value as it is kept.

    Raises:
        ConfigError: It cannot be recorded; the message names it and its key.
    """
    match value:
        case float():
            return float(value)  # numpy's float64 is one of these
        case str():
            return _text(key, value)
        case bool() | Image() | Histogram():
            return value
        case int():
            return int(value) if -LARGEST_INT - 1 <= value <= LARGEST_INT else _float(key, value)
        case datetime():
            if value.tzinfo is None:
                raise ConfigError(
                    f"{key}={value!r} says no time zone: give one, such as datetime.now(timezone.utc)"
                )
            return value
        case _:
            found = _numbers(value)
    if found is None or found.ndim > 3:
        raise ConfigError(
            f"{key}={_brief(value)} cannot be recorded: give a number, a text, a datetime, an array of one "
            "to three dimensions, an Image or a Histogram"
        )
    return found if found.ndim else cast("float | int | bool", found.item())


def row_value(value: Value) -> float | str | None:
    """The value as a row of JSON holds it; None for what a row does not hold: NaN, infinity, arrays."""
    match value:
        case int():  # a bool is one
            return int(value)
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            return None


def logged_values(
    record: Record, image: Callable[[NDArray[np.uint8]], Any], histogram: Callable[[NDArray[np.float64]], Any]
) -> dict[str, Any]:
    """A record as W&B and Trackio log it: arrays become histograms, and times become texts.

    Scalars that are not finite stay. Histograms are of finite values; one of nothing is left out.

    Args:
        record: what was measured.
        image: makes the tracker's image of uint8 pixels ``[H, W, C]``.
        histogram: makes the tracker's histogram of finite values ``[N]``, N at least 1.
    """
    logged: dict[str, Any] = {}
    for key, value in record.items():
        match value:
            case Image():
                logged[key] = image(value.pixels)
            case Histogram() | np.ndarray():
                found = (value if isinstance(value, Histogram) else Histogram(value)).finite()
                if len(found):
                    logged[key] = histogram(found)
            case bool() | int() | float():
                logged[key] = value
            case _:
                logged[key] = row_value(value)
    return logged


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
    """A copy of real numbers as an array of whatever shape; None for anything else."""
    torch = sys.modules.get("torch")  # without it there are no tensors
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype is torch.bfloat16:  # numpy has no such numbers
            value = value.float()
        value = value.resolve_neg().numpy() if not value.is_complex() else None
    if value is None or isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        found = np.array(value)
    except (ValueError, TypeError):  # ragged, or nothing that numpy understands
        return None
    return found if found.dtype.kind in "biuf" else None


def _brief(value: Any) -> str:
    """A value in a message: with its type, and not pages of it."""
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text}, a {type(value).__qualname__}"
