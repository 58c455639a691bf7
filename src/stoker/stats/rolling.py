"""A mean over the last so many values that is read in O(1) and does not drift.

One of the aggregators; the others are in ``aggregators.py``. Also what a window of episodes is made of.
"""

from __future__ import annotations

import math
from array import array
from itertools import accumulate
from typing import Any

from stoker.errors import ConfigError

__all__ = ["RollingMean"]


class RollingMean:
    """Mean of the last ``window`` values. Updates are amortised O(1); memory is 16 bytes per value.

    It does not drift: what has left the window leaves no trace, whatever its size, because nothing is ever
    subtracted. (Rejected: a running sum minus the value that leaves. After 1e16 has passed through, small
    values stay lost until the sum is made anew.) Values are kept in a ring that is filled lap by lap. At
    the end of a lap each slot's tail, the sum of the lap from that slot on, is worked out; in the next lap
    the window's sum is the tail of the next slot, which is what is left of the previous lap, plus the sum
    of the current one.

    Args:
        window: how many values, at least 1.

    Raises:
        ConfigError: The window is not an int above 0.
    """

    __slots__ = ("_lap_sum", "_mean", "_slot", "_tails", "_values", "_window")

    def __init__(self, window: int) -> None:
        if type(window) is not int or window < 1:
            raise ConfigError(f"window={window!r}: give the number of values to average over, an int above 0")
        self._window = window
        self.reset()

    def update(self, value: float) -> None:
        """Take one value in; beyond ``window`` values the oldest leaves."""
        value = float(value)
        values = self._values
        slot = self._slot
        if len(values) < self._window:
            values.append(value)
        else:
            values[slot] = value
        slot += 1
        if slot == self._window:
            slot = 0
            self._lap_sum = 0.0
            self._tails = _tails(values)
        else:
            self._lap_sum += value
        self._slot = slot
        rest = self._tails[slot] if self._tails else 0.0
        self._mean = (rest + self._lap_sum) / len(values)

    def value(self) -> float:
        """The mean; NaN while empty."""
        return self._mean

    def recent(self) -> list[float]:
        """The values it is the mean of, oldest first; O(window)."""
        values, slot = self._values.tolist(), self._slot
        return values if len(values) < self._window else values[slot:] + values[:slot]

    def reset(self) -> None:
        """Forget all values."""
        self._values = array("d")
        self._tails = array("d")
        self._slot = 0
        self._lap_sum = 0.0
        self._mean = math.nan

    def state_dict(self) -> dict[str, Any]:
        """The window, the values in it (oldest first), and how many of them are of the current lap."""
        return {"window": self._window, "values": self.recent(), "lap": self._slot}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described; of another window's values, the newest that fit."""
        values = [float(value) for value in state["values"]]
        self.reset()
        if len(values) == self._window == state["window"]:
            # Back into the slots they had: sums are grouped as before, so they round as before.
            lap = int(state["lap"])
            oldest = len(values) - lap
            self._values.extend(values[oldest:] + values[:oldest])
            self._tails = _tails(self._values)
            for value in values[oldest:]:  # not sum(): since Python 3.12 it rounds otherwise than update
                self._lap_sum += value
            self._slot = lap
            self._mean = (self._tails[lap] + self._lap_sum) / len(values)
        else:
            for value in values[-self._window :]:
                self.update(value)


def _tails(values: array[float]) -> array[float]:
    """For each slot the sum of the values from there to the end."""
    tails = array("d", accumulate(reversed(values)))
    tails.reverse()
    return tails
