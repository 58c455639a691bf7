"""How far a statistic of few numbers can be trusted: the interquartile mean, and bootstrap intervals.

Ten evaluation episodes say little about a policy, and their mean alone does not say how little. Agarwal et
al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", section 4, recommend the
interquartile mean, which a single lucky episode cannot carry, with an interval from the bootstrap.

Everything here is a function of its arguments: the resamples come from a generator that is seeded anew for
each call. Thousands of them take milliseconds, which is work for a thread, not for an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, InvalidExperience

__all__ = [
    "Interval",
    "Statistic",
    "bootstrap_interval",
    "interquartile_mean",
    "interquartile_means",
    "means",
]

Samples: TypeAlias = NDArray[np.float64]

Statistic: TypeAlias = Callable[[Samples], Samples]
"""Makes one number of each row: float64 [B, n] to float64 [B]. The order within a row must not matter."""

_MOST_NUMBERS = 1 << 18
"""So many resampled numbers are in memory at a time, about 4 MiB with their places."""


class Interval(msgspec.Struct, frozen=True):
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


def means(samples: Samples) -> Samples:
    """The mean of each row."""
    return samples.mean(axis=-1)


def interquartile_means(samples: Samples) -> Samples:
    """The interquartile mean of each row: the mean of what is left without its lowest and highest quarter.

    Of n values, floor(n / 4) are left out at each end, as by ``scipy.stats.trim_mean(values, 0.25)``, which
    the authors' library uses. Below 4 values nothing is left out and it is the mean.
    """
    n = samples.shape[-1]
    cut = n // 4
    if not cut:
        return means(samples)
    return np.partition(samples, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(axis=-1)


def interquartile_mean(values: Sequence[float]) -> float:
    """The interquartile mean of some values, see ``interquartile_means``.

    Raises:
        InvalidExperience: There are no values, or one is not finite.
    """
    return float(interquartile_means(_checked(values)))


def bootstrap_interval(
    values: Sequence[float],
    statistic: Statistic = means,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of a statistic (Efron and Tibshirani 1993, section 13.3).

    The values are drawn again with replacement, n of n, ``n_resamples`` times; the interval lies between the
    quantiles (1 - confidence) / 2 and (1 + confidence) / 2 of the statistics of these, and within the range
    of the values. Of a single value it is that value: nothing is known then, not everything. Below some ten
    values it covers the truth less often than it says.

    Args:
        values: independent draws, such as the total rewards of episodes.
        statistic: what the interval is of.
        confidence: how often, of many such intervals, the truth is to lie within; above 0 and below 1.
        n_resamples: how often to draw.
        seed: the same seed and values give the same interval.

    Raises:
        InvalidExperience: There are no values, or one is not finite.
        ConfigError: An argument is out of range.
    """
    drawn = _checked(values)
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence={confidence!r}: give a number above 0 and below 1, such as 0.95")
    if n_resamples < 1:
        raise ConfigError(f"n_resamples={n_resamples!r}: draw at least once")
    if seed < 0:
        raise ConfigError(f"seed={seed!r} is negative: give 0 or more")
    lowest, highest = float(drawn.min()), float(drawn.max())
    if lowest == highest:
        return Interval(lowest, highest)
    generator = np.random.default_rng(seed)
    found = np.empty(n_resamples)
    at_a_time = max(1, _MOST_NUMBERS // len(drawn))
    for first in range(0, n_resamples, at_a_time):
        last = min(n_resamples, first + at_a_time)
        places = generator.integers(0, len(drawn), (last - first, len(drawn)))
        found[first:last] = statistic(drawn[places])
    tail = (1.0 - confidence) / 2.0
    # A mean may be out of the range by a rounding: 0.1 + 0.1 + 0.1 is more than three times 0.1.
    low, high = np.clip(np.quantile(found, (tail, 1.0 - tail)), lowest, highest)
    return Interval(float(low), float(high))


def _checked(values: Sequence[float]) -> Samples:
    drawn = np.asarray(values, np.float64)
    if drawn.ndim != 1 or not drawn.size:
        raise InvalidExperience(f"values of shape {drawn.shape}: give at least one number, in one row")
    for place in np.flatnonzero(~np.isfinite(drawn)):
        raise InvalidExperience(f"values[{place}]={float(drawn[place])!r} is not finite: leave it out")
    return drawn
