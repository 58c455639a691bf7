"""Statistics of few episodes: the interquartile mean, and bootstrap confidence intervals.

Ten evaluation episodes say little about a policy, and their mean alone does not say how little. Agarwal et
al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", section 4, recommend the
interquartile mean, which a single lucky episode cannot carry, with an interval from the bootstrap.

Resampling takes milliseconds: call ``bootstrap_interval`` from a thread, not from an event loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import InvalidExperience

Samples: TypeAlias = NDArray[np.float64]

Statistic: TypeAlias = Callable[[Samples], Samples]
"""Reduces each row to a number, float64 [B, n] to [B], whatever the order within the row."""

_N_RESAMPLES = 2000

_MOST_NUMBERS = 1 << 18
"""How many resampled numbers are in memory at a time: about 4 MiB with their indices."""


class Interval(msgspec.Struct, frozen=True):
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


def means(samples: Samples) -> Samples:
    """The mean of each row."""
    return samples.mean(axis=-1)


def interquartile_means(samples: Samples) -> Samples:
    """The interquartile mean of each row: the mean without the lowest and the highest quarter.

    Of n values, floor(n / 4) are left out at each end, as by ``scipy.stats.trim_mean(values, 0.25)``.
    """
    n = samples.shape[-1]
    cut = n // 4
    if not cut:
        return means(samples)
    return np.partition(samples, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(axis=-1)


def interquartile_mean(values: Sequence[float]) -> float:
    """The interquartile mean of one row of values, as by ``interquartile_means``.

    Raises:
        InvalidExperience: There are no values, or one is not finite.
    """
    return float(interquartile_means(_checked(values)))


def bootstrap_interval(values: Sequence[float], statistic: Statistic) -> Interval:
    """The 95 % percentile bootstrap interval of a statistic (Efron and Tibshirani 1993, section 13.3).

    The values are resampled with replacement, n of n; the interval spans the 2.5 % and 97.5 % quantiles of
    the resampled statistic, and lies within the range of the values. The same values give the same interval.
    The interval of a single value is that value, which says nothing about its error. Below about ten
    values the interval covers the true statistic less often than 95 %.

    Args:
        values: independent draws, for example the total rewards of episodes.
        statistic: what the interval is of.

    Raises:
        InvalidExperience: There are no values, or one is not finite.
    """
    drawn = _checked(values)
    lowest, highest = float(drawn.min()), float(drawn.max())
    generator = np.random.default_rng(0)
    found = np.empty(_N_RESAMPLES)
    at_a_time = max(1, _MOST_NUMBERS // len(drawn))
    for first in range(0, _N_RESAMPLES, at_a_time):
        last = min(_N_RESAMPLES, first + at_a_time)
        places = generator.integers(0, len(drawn), (last - first, len(drawn)))
        found[first:last] = statistic(drawn[places])
    # Not np.quantile, which imports numpy.ma at its first call: that would hold up a training.
    at = np.array((0.025, 0.975)) * (_N_RESAMPLES - 1)
    ends = np.interp(at, np.arange(_N_RESAMPLES), np.sort(found))
    # A mean may be out of the range by a rounding: 0.1 + 0.1 + 0.1 is more than three times 0.1.
    low, high = np.clip(ends, lowest, highest)
    return Interval(float(low), float(high))


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's 95 % interval of the mean: for a few seeds, of which the bootstrap's would be too narrow.

    It assumes a normal distribution. The interval of a single value is that value.

    Args:
        values: independent draws, for example the best evaluations of several seeds.

    Raises:
        InvalidExperience: There are no values, or one is not finite.
    """
    drawn = _checked(values)
    n, mean = len(drawn), float(drawn.mean())
    half = t_quantile(n - 1) * float(drawn.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Interval(mean - half, mean + half)


def t_quantile(freedom: int) -> float:
    """The factor of the standard error that gives the 95 % interval of a normal distribution's mean.

    It is the 97.5 % quantile of Student's t distribution, by Hill (1970), "Algorithm 396: Student's
    t-quantiles", to four digits; exactly for one and two degrees of freedom.

    Args:
        freedom: one less than the number of values, at least 1.
    """
    both = 0.05
    if freedom == 1:
        return 1 / math.tan(both * math.pi / 2)
    if freedom == 2:
        return math.sqrt(2 / (both * (2 - both)) - 2)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20_700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * both) ** (2 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(both / 2)
        y = x**2
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        return math.sqrt(freedom * math.expm1(a * y**2))
    inner = 1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3)
    y = ((inner + 0.5 / (freedom + 4)) * y - 1) * (freedom + 1) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)


def _checked(values: Sequence[float]) -> Samples:
    drawn = np.asarray(values, np.float64)
    if drawn.ndim != 1 or not drawn.size:
        raise InvalidExperience(f"values of shape {drawn.shape}: give at least one number, in one row")
    for place in np.flatnonzero(~np.isfinite(drawn)):
        raise InvalidExperience(f"values[{place}]={float(drawn[place])!r} is not finite: leave it out")
    return drawn
