"""The mean of several learning curves, one for each seed, with its interval. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.stats.intervals import t_quantile

__all__ = ["Curve", "MeanCurve", "mean_curve"]

Numbers: TypeAlias = NDArray[np.float64]
Curve: TypeAlias = tuple[Numbers, Numbers]
"""Environment steps, increasing, and a value at each."""

_POINTS = 200


class MeanCurve(msgspec.Struct, frozen=True):
    """The mean of curves over the steps that all of them have.

    Attributes:
        steps: environment steps, ``[N]``.
        mean: the mean of the curves at each, ``[N]``.
        low: the lower end of the mean's 95 % interval, ``[N]``; of one curve, the mean.
        high: its upper end, ``[N]``.
        n: the number of curves.
    """

    steps: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers
    n: int


def mean_curve(curves: Sequence[Curve], what: str) -> MeanCurve:
    """Average curves at the same steps, between which they are taken to be straight.

    The steps are those of the curves if all have the same, else 200 from the last beginning to the first end.
    The interval is Student's for the mean of a normal distribution: of a few seeds, the bootstrap's would be
    too narrow.

    Args:
        curves: one for each seed, none of them empty.
        what: what they are of, for messages.

    Raises:
        ConfigError: There is no step that all of them have.
    """
    first = float(max(steps[0] for steps, _ in curves))
    last = float(min(steps[-1] for steps, _ in curves))
    if first > last:
        raise ConfigError(
            f"{what}: one run begins at step {first:,.0f}, another ends at {last:,.0f}: there is no mean of "
            "runs that have no step in common; plot them without --mean"
        )
    own = curves[0][0]
    is_same = all(np.array_equal(steps, own) for steps, _ in curves)
    at: Numbers = own.astype(np.float64) if is_same else np.linspace(first, last, _POINTS, dtype=np.float64)
    values = np.stack([np.interp(at, steps, numbers) for steps, numbers in curves])
    n, mean = len(values), values.mean(axis=0)
    half = t_quantile(n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros_like(mean)
    return MeanCurve(at, mean, mean - half, mean + half, n)
