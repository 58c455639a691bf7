"""Spaces for values that come without any: made of their dtypes, shapes and extremes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.data.episodes import Episode
from stoker.journal.blocks import mapped

_MOST_CHOICES = 1 << 16


def inferred_spaces(
    episodes: Iterable[Episode],
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None:
    """The spaces of observations and actions, for which all episodes are read; None: there is no episode."""
    found: list[Any] = [None, None]
    for episode in episodes:
        for at, value in enumerate((episode.observations, episode.actions)):
            found[at] = _widened(found[at], mapped(Extremes.of, value))
    if found[0] is None:
        return None
    return _nested_space(found[0], is_action=False), _nested_space(found[1], is_action=True)


class Extremes:
    """The least and the greatest value of each number of an array; NaN is left out.

    Args:
        low: the least values.
        high: the greatest.
    """

    def __init__(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        self.low: NDArray[Any] = low
        self.high: NDArray[Any] = high

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Extremes:
        """Those of some rows."""
        with np.errstate(invalid="ignore"):
            return cls(np.asarray(np.fmin.reduce(rows, 0)), np.asarray(np.fmax.reduce(rows, 0)))

    def widened(self, other: Extremes) -> Extremes:
        """Those of both."""
        return Extremes(np.fmin(self.low, other.low), np.fmax(self.high, other.high))


def _widened(before: Any, now: Any) -> Any:
    if before is None:
        return now
    if isinstance(now, dict):
        parts = cast("dict[Any, Any]", now)
        return {key: _widened(before[key], part) for key, part in parts.items()}
    if isinstance(now, tuple):
        return tuple(_widened(*pair) for pair in zip(before, cast("tuple[Any, ...]", now), strict=True))
    return now.widened(before)


def _nested_space(found: Any, *, is_action: bool) -> gymnasium.Space[Any]:
    if isinstance(found, dict):
        parts = cast("dict[str, Any]", found)
        return spaces.Dict({key: _nested_space(part, is_action=is_action) for key, part in parts.items()})
    if isinstance(found, tuple):
        members = cast("tuple[Any, ...]", found)
        return spaces.Tuple([_nested_space(part, is_action=is_action) for part in members])
    is_bounded = is_action or found.low.dtype.kind != "f"
    return inferred_space(found.low.dtype, found.low.shape, found if is_bounded else None)


def inferred_space(
    dtype: np.dtype[Any], shape: tuple[int, ...], extremes: Extremes | None
) -> gymnasium.Space[Any]:
    """The space of one array of numbers: integers are choices, images have the range of their dtype.

    Args:
        dtype: of the numbers.
        shape: of one row.
        extremes: the least and the greatest of each number; None: a Box without bounds.
    """
    kind: Any = dtype.type
    if extremes is None:
        return spaces.Box(-np.inf, np.inf, shape, kind)
    low, high = extremes.low, extremes.high
    if dtype.kind == "f":
        low, high = (np.nan_to_num(each, posinf=np.inf, neginf=-np.inf) for each in (low, high))
        return spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), shape, kind)
    if shape == () and int(low) >= 0 and int(high) < _MOST_CHOICES:
        return spaces.Discrete(int(high) + 1)
    if dtype.kind == "b":
        return spaces.MultiBinary(shape)
    if dtype == np.uint8:
        return spaces.Box(0, 255, shape, kind)
    return spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), shape, kind)
