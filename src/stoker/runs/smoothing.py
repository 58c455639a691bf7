"""Smoothed curves: trailing means and exponential averages over all points, continued as points are added.

A smoother skips gaps (values that are not finite): they count for nothing and stay gaps in the result. No
sum over the whole curve is kept, so that one huge value does not spoil all that follow it.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError

Numbers: TypeAlias = NDArray[np.float64]

_LARGEST_WINDOW = 1_000_000
_ALLOWED = (
    "give mean:WINDOW, such as mean:100, or ema:WEIGHT with a weight from 0 to below 1, such as ema:0.98"
)


class Smoothing(msgspec.Struct, frozen=True):
    """How a curve is smoothed.

    Attributes:
        kind: ``mean``: the mean of a value and those before it, in a window; ``ema``: the exponential moving
            average, divided by the sum of its weights, as TensorBoard does (Kingma and Ba 2015, section 3).
        amount: how many values the window has; or the weight of what was before, from 0 to below 1.
    """

    kind: Literal["mean", "ema"]
    amount: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``mean:100`` or ``ema:0.98``.

        Raises:
            ConfigError: It is neither; the message names it.
        """
        kind, _, number = text.partition(":")
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if kind == "mean" and amount.is_integer() and 1 <= amount <= _LARGEST_WINDOW:
            return cls("mean", amount)
        if kind == "ema" and 0 <= amount < 1:
            return cls("ema", amount)
        raise ConfigError(f"smoothing {text[:40]!r}: {_ALLOWED}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


class Smoother:
    """Smooths a curve that arrives in parts, as if it had arrived at once.

    A part costs its own length, and that of the window, whatever came before it.
    """

    def __init__(self, how: Smoothing) -> None:
        self.how = how
        self._n = 0  # known values so far
        self._tail: Numbers = np.empty(0)  # of a mean: what the next window may need
        self._average = 0.0  # of an exponential average: the last one, before the division

    @property
    def n_bytes(self) -> int:
        """The memory of what it keeps."""
        return self._tail.nbytes

    def extend(self, values: NDArray[Any]) -> Numbers:
        """The smoothed values of the next part, float64 ``[N]``; NaN where there is a gap."""
        every = np.asarray(values, np.float64)
        is_known = np.isfinite(every)
        is_whole = bool(is_known.all())
        known = every if is_whole else every[is_known]
        with np.errstate(over="ignore", invalid="ignore"):  # sums of huge values may overflow: a gap
            found = self._mean(known) if self.how.kind == "mean" else self._exponential(known)
        self._n += len(known)
        if is_whole:
            return found
        result = np.full(len(every), np.nan)
        result[is_known] = found
        return result

    def _mean(self, known: Numbers) -> Numbers:
        window = int(self.how.amount)
        joined = np.concatenate([self._tail, known])
        found = _trailing_means(joined, window)[len(self._tail) :]
        self._tail = joined[max(0, len(joined) - window + 1) :].copy()
        return found

    def _exponential(self, known: Numbers) -> Numbers:
        n, weight = len(known), self.how.amount
        if not n:
            return known.copy()
        # The recursion runs over the rows of a square, for all columns at once, and then over the columns.
        side = math.isqrt(n - 1) + 1
        padded = np.zeros(side * side)
        padded[:n] = known
        square = padded.reshape(side, side).T * (1 - weight)
        for row in range(1, side):
            square[row] += weight * square[row - 1]
        powers = weight ** np.arange(1.0, side + 1)
        before = np.empty(side)
        average = self._average
        for column in range(side):
            before[column] = average
            average = average * powers[-1] + square[-1, column]
        square += powers[:, None] * before
        found = square.T.reshape(-1)[:n]
        self._average = float(found[-1])
        return found / -np.expm1(np.arange(self._n + 1.0, self._n + n + 1) * _log(weight))


def smoothed(values: NDArray[Any], how: Smoothing, state: Smoother | None = None) -> Numbers:
    """Smooth a curve; with a ``state`` of the same smoothing, continue the one that it has seen."""
    return (state or Smoother(how)).extend(values)


def _trailing_means(values: Numbers, window: int) -> Numbers:
    """The mean of each value and up to ``window - 1`` before it.

    The values are cut into blocks as long as the window: each window is the end of one block and the
    beginning of the next, and both are running sums within their block.
    """
    n = len(values)
    if window == 1:
        return values.copy()
    if n <= window:
        return np.cumsum(values) / np.arange(1, n + 1)
    padded = np.zeros(-(-n // window) * window)
    padded[:n] = values
    blocks = padded.reshape(-1, window)
    sums = np.cumsum(blocks, axis=1)
    ends = np.cumsum(blocks[:-1, :0:-1], axis=1)[:, ::-1]
    sums[1:, :-1] += ends
    found = sums.reshape(-1)[:n]
    found[:window] /= np.arange(1, window + 1)
    found[window:] /= window
    return found


def _log(weight: float) -> float:
    return math.log(weight) if weight else -math.inf
