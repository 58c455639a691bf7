"""Many numbers into one: what a ``StatsTracker`` keeps per stat.

Every aggregator here reads as NaN while it has nothing to say, keeps a constant amount of memory, reads in
O(1), and converts numpy scalars. Its state is plain numbers and lists, loadable with ``weights_only=True``,
and restored to the bit: a sequence interrupted by a save and a load ends on the same value.

Values are finite; a ``StatsTracker`` drops the others before they get here.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

from stoker.stats.rolling import RollingMean

__all__ = ["Aggregator", "Last", "Max", "Mean", "Min", "RollingMean", "StatefulAggregator", "Std"]


@runtime_checkable
class Aggregator(Protocol):
    """Makes one number of the numbers it is fed. ``copy.deepcopy`` of it must work."""

    def update(self, value: float) -> None:
        """Take one finite number in."""
        ...

    def value(self) -> float:
        """The number they come to so far; NaN while that is undefined."""
        ...

    def reset(self) -> None:
        """Forget all numbers."""
        ...


@runtime_checkable
class StatefulAggregator(Aggregator, Protocol):
    """An aggregator that outlives a process. One without state starts empty after a resume."""

    def state_dict(self) -> dict[str, Any]:
        """All it needs to go on, in ints, floats, strings, None, and lists and dicts of these; a copy."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        ...


class Mean:
    """Mean of all values, for values whose sum stays below about 1e308 in size.

    The sum carries its rounding error along (Kahan-Babuska; the error of one sum by Knuth, TAOCP vol. 2,
    4.2.2, theorem B), so that it is as good after 10 million episodes as after ten.
    """

    __slots__ = ("_count", "_error", "_sum")

    def __init__(self) -> None:
        self.reset()

    def update(self, value: float) -> None:
        """Take one value in."""
        value = float(value)
        before = self._sum
        after = before + value
        gained = after - before
        self._error += (before - (after - gained)) + (value - gained)
        self._sum = after
        self._count += 1

    def value(self) -> float:
        """The mean; NaN while empty."""
        count = self._count  # read once: another thread may reset it
        return (self._sum + self._error) / count if count else math.nan

    def reset(self) -> None:
        """Forget all values."""
        self._count = 0
        self._sum = 0.0
        self._error = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The count, the sum and the rounding error of the sum."""
        return {"count": self._count, "sum": self._sum, "error": self._error}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        self._count = int(state["count"])
        self._sum = float(state["sum"])
        self._error = float(state["error"])


class _Kept:
    """One of the values themselves; which one is for the subclass to say."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self.reset()

    def value(self) -> float:
        """The value kept; NaN while empty."""
        kept = self._kept
        return math.nan if kept is None else kept

    def reset(self) -> None:
        """Forget all values."""
        self._kept: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The value kept, None while empty."""
        return {"kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        kept = state["kept"]
        self._kept = None if kept is None else float(kept)


class Max(_Kept):
    """The largest of all values."""

    __slots__ = ()

    def update(self, value: float) -> None:
        """Take one value in."""
        kept = self._kept
        if kept is None or value > kept:
            self._kept = float(value)


class Min(_Kept):
    """The smallest of all values."""

    __slots__ = ()

    def update(self, value: float) -> None:
        """Take one value in."""
        kept = self._kept
        if kept is None or value < kept:
            self._kept = float(value)


class Last(_Kept):
    """The latest value."""

    __slots__ = ()

    def update(self, value: float) -> None:
        """Take one value in."""
        self._kept = float(value)


class Std:
    """Population standard deviation of all values, for values below about 1e150 in size.

    Welford (1962), "Note on a method for calculating corrected sums of squares and products", equations
    I and II: never a difference of two large sums.
    """

    __slots__ = ("_count", "_mean", "_squares")

    def __init__(self) -> None:
        self.reset()

    def update(self, value: float) -> None:
        """Take one value in."""
        value = float(value)
        count = self._count + 1
        delta = value - self._mean
        mean = self._mean + delta / count
        self._squares += delta * (value - mean)
        self._mean = mean
        self._count = count

    def value(self) -> float:
        """The standard deviation; NaN below two values."""
        count = self._count
        return math.sqrt(self._squares / count) if count >= 2 else math.nan

    def reset(self) -> None:
        """Forget all values."""
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The count, the mean and the sum of squared differences from the mean."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        self._count = int(state["count"])
        self._mean = float(state["mean"])
        self._squares = float(state["squares"])
