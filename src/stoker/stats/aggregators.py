"""Aggregators: each turns a stream of numbers into one number, for one stat of a ``StatsTracker``.

Every aggregator here reads as NaN while its value is undefined, takes constant memory, and converts numpy
scalars; all but ``RollingMean`` read in O(1). Its state is plain numbers and lists, loadable with
``weights_only=True``, and restored bit by bit: a sequence interrupted by a save and a load ends on the same
value.

Values are finite: a ``StatsTracker`` drops all others first.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from stoker.errors import ConfigError


@runtime_checkable
class Aggregator(Protocol):
    """Reduces the numbers it is fed to one. ``copy.deepcopy`` of it must work."""

    def update(self, value: float) -> None:
        """Add one finite number."""
        ...

    def value(self) -> float:
        """The current value; NaN while it is undefined."""
        ...

    def reset(self) -> None:
        """Forget all numbers."""
        ...


@runtime_checkable
class StatefulAggregator(Aggregator, Protocol):
    """An aggregator that a checkpoint holds. One without state starts empty after a resume."""

    def state_dict(self) -> dict[str, Any]:
        """The complete state as a copy: ints, floats, strings, None, and lists and dicts of these."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        ...


@dataclass(slots=True, eq=False)  # not a msgspec.Struct: updates are frequent, and it assigns slowly
class _Numbers:
    """An aggregator whose state is its fields; their defaults are the values before the first update."""

    def reset(self) -> None:
        """Forget all values."""
        self.load_state_dict(type(self)().state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for field in fields(self):
            setattr(self, field.name, state[field.name])


@dataclass(slots=True, eq=False)
class Mean(_Numbers):
    """Mean of all values, for values whose sum stays below about 1e308 in size.

    The sum carries its rounding error along (Kahan-Babuska; the error of one sum by Knuth, TAOCP vol. 2,
    4.2.2, theorem B), so that it is as good after 10 million episodes as after ten.
    """

    count: int = 0
    sum: float = 0.0
    error: float = 0.0

    def update(self, value: float) -> None:
        """Add one value."""
        value = float(value)
        before = self.sum
        after = before + value
        gained = after - before
        self.error += (before - (after - gained)) + (value - gained)
        self.sum = after
        self.count += 1

    def value(self) -> float:
        """The mean; NaN while empty."""
        count = self.count  # read once: another thread may reset it
        return (self.sum + self.error) / count if count else math.nan


@dataclass(slots=True, eq=False)
class _Kept(_Numbers):
    """Keeps one of the values; the subclass chooses which."""

    kept: float | None = None

    def value(self) -> float:
        """The value kept; NaN while empty."""
        kept = self.kept
        return math.nan if kept is None else kept


class Max(_Kept):
    """The largest of all values."""

    def update(self, value: float) -> None:
        """Add one value."""
        kept = self.kept
        if kept is None or value > kept:
            self.kept: float | None = float(value)


class Min(_Kept):
    """The smallest of all values."""

    def update(self, value: float) -> None:
        """Add one value."""
        kept = self.kept
        if kept is None or value < kept:
            self.kept: float | None = float(value)


class Last(_Kept):
    """The latest value."""

    def update(self, value: float) -> None:
        """Add one value."""
        self.kept: float | None = float(value)


@dataclass(slots=True, eq=False)
class Std(_Numbers):
    """Population standard deviation of all values, for values below about 1e150 in size.

    Welford (1962), "Note on a method for calculating corrected sums of squares and products", equations
    I and II: never a difference of two large sums.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, value: float) -> None:
        """Add one value."""
        value = float(value)
        count = self.count + 1
        delta = value - self.mean
        mean = self.mean + delta / count
        self.squares += delta * (value - mean)
        self.mean = mean
        self.count = count

    def value(self) -> float:
        """The standard deviation; NaN below two values."""
        count = self.count
        return math.sqrt(self.squares / count) if count >= 2 else math.nan


class RollingMean:
    """Mean of the last ``window`` values, which it keeps: a read adds them up, so that nothing drifts.

    Rejected: a running sum minus the value that leaves. After 1e16 has passed through, small values stay
    lost. Updates are amortised O(1); memory is at most 16 bytes per value.

    Args:
        window: how many values, at least 1.

    Raises:
        ConfigError: The window is not an int above 0.
    """

    __slots__ = ("_values", "_window")

    def __init__(self, window: int) -> None:
        if type(window) is not int or window < 1:
            raise ConfigError(f"window={window!r}: give the number of values to average over, an int above 0")
        self._window = window
        self.reset()

    def update(self, value: float) -> None:
        """Add one value; beyond ``window`` values the oldest leaves."""
        self._values.append(float(value))
        if len(self._values) >= 2 * self._window:
            del self._values[: -self._window]

    def value(self) -> float:
        """The mean; NaN while empty."""
        values = self.recent()
        return sum(values) / len(values) if values else math.nan

    def recent(self) -> list[float]:
        """The values in the window, oldest first."""
        return self._values[-self._window :].tolist()

    def reset(self) -> None:
        """Forget all values."""
        self._values = array("d")

    def state_dict(self) -> dict[str, Any]:
        """The window and its values, oldest first."""
        return {"window": self._window, "values": self.recent()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; from another window size, the newest values that fit."""
        self._values = array("d", state["values"][-self._window :])
