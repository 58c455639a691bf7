"""The buffer between those who measure and a record: many values in, one value per name out.

The learner stores the metrics of an optimization step and does not wait: keeping two numbers is about a
microsecond. A flush makes one record of all that was stored since the last one. The names in it depend on
what is stored, never on how often: a curve does not change its name with the record interval.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from stoker.errors import ConfigError
from stoker.recorders.values import Histogram, Image, Value, check_key, checked_value

__all__ = ["STATISTICS", "Metrics"]

STATISTICS: Final = ("min", "max", "median")
"""What can be kept of a scalar beside its mean."""

_FOLD_AT = 1024
"""So many stored mappings are aggregated at the latest, so that memory does not grow with their number."""


class Metrics:
    """Values by name, aggregated from one flush to the next. Safe for several threads.

    - Scalars of one name become their mean, as a float, in the order in which they were stored; a NaN among
      them makes it NaN. With ``statistics`` there are also ``<name>_min``, ``<name>_max``, ``<name>_median``.
    - Histograms of one name are pooled.
    - Of anything else the last one counts.

    A name keeps its kind: what was a scalar once cannot be an image later. Memory between two flushes is
    that of one value per name, of 8 bytes per scalar with ``median``, and of the pooled histograms.

    Args:
        statistics: what to keep of each scalar beside its mean, out of ``STATISTICS``.

    Attributes:
        flushed_at: the step of the last flush; -1 before the first.

    Raises:
        ConfigError: An unknown statistic.
    """

    def __init__(self, *, statistics: Iterable[str] = ()) -> None:
        self._statistics = _checked_statistics(statistics)
        self.flushed_at = -1
        self._lock = threading.Lock()
        self._pending: list[dict[str, Any]] = []
        self._kinds: dict[str, str] = {}
        self._scalars: set[str] = set()  # the names of that kind, for the quick look in ``store``
        self._derived: dict[str, str] = {}  # train/loss_min -> train/loss
        self._series: dict[str, _Series] = {}
        self._pools: dict[str, list[Histogram]] = {}
        self._last: dict[str, Value] = {}

    @property
    def statistics(self) -> tuple[str, ...]:
        """What is kept of each scalar beside its mean."""
        return self._statistics

    def store(self, values: Mapping[str, Any]) -> None:
        """Keep the values for the next flush. The mapping may be changed afterwards.

        Raises:
            ConfigError: A name or a value cannot be recorded, a name was of another kind before, or is that
                of another one's statistic. Nothing of the mapping is kept.
        """
        for value in values.values():
            if type(value) is not float:
                break
        else:
            if self._scalars.issuperset(values):  # what an optimization step says, ever again
                with self._lock:
                    self._pending.append(dict(values))
                    if len(self._pending) >= _FOLD_AT:
                        self._fold()
                return
        self._store_checked(values)

    def flush(self, step: int) -> dict[str, Value]:
        """All that was stored since the last flush, as one record; empty if that is nothing.

        Args:
            step: the environment step that the record is of.
        """
        with self._lock:
            self._fold()
            series, pools, last = self._series, self._pools, self._last
            self._series, self._pools, self._last = {}, {}, {}
            self.flushed_at = step
        record: dict[str, Value] = {}
        for key, found in series.items():
            record |= found.summary(key, self._statistics)
        for key, pool in pools.items():
            record[key] = pool[0] if len(pool) == 1 else Histogram(np.concatenate([h.values for h in pool]))
        return record | last

    def _store_checked(self, values: Mapping[str, Any]) -> None:
        checked: dict[str, Value] = {}
        kinds: dict[str, str] = {}
        for key, value in values.items():
            check_key(key, value)
            checked[key] = checked_value(key, value)
            kinds[key] = _kind_of(checked[key])
        with self._lock:
            self._settle_kinds(kinds)
            self._pending.append(checked)
            if len(self._pending) >= _FOLD_AT:
                self._fold()

    def _settle_kinds(self, kinds: Mapping[str, str]) -> None:
        """Refuse names that contradict what is known of them; then know them."""
        for key, kind in kinds.items():
            if self._kinds.get(key, kind) != kind:
                raise ConfigError(
                    f"{key!r} was a {self._kinds[key]} before and is a {kind} now: use two names"
                )
        fresh = {key: kind for key, kind in kinds.items() if key not in self._kinds}
        scalars = [key for key, kind in fresh.items() if kind == "scalar"]
        derived = {f"{key}_{statistic}": key for key in scalars for statistic in self._statistics}
        for name, key in {**self._derived, **derived}.items():
            if name in fresh or (name in derived and name in self._kinds):
                raise ConfigError(f"{name!r} is the name of a statistic of {key!r}: use another one")
        self._kinds |= fresh
        self._derived |= derived
        self._scalars.update(scalars)

    def _fold(self) -> None:
        """Aggregate what lies there; called with the lock held."""
        for values in self._pending:
            for key, value in values.items():
                if isinstance(value, (float, int)):
                    series = self._series.get(key)
                    if series is None:
                        series = self._series[key] = _Series(keeps_all="median" in self._statistics)
                    series.add(float(value))
                elif isinstance(value, Histogram):
                    self._pools.setdefault(key, []).append(value)
                else:
                    self._last[key] = value
        self._pending.clear()


class _Series:
    """The scalars of one name since the last flush."""

    __slots__ = ("_count", "_max", "_min", "_total", "_values")

    def __init__(self, *, keeps_all: bool) -> None:
        self._count = 0
        self._total = 0.0
        self._min, self._max = float("inf"), float("-inf")
        self._values: array[float] | None = array("d") if keeps_all else None

    def add(self, value: float) -> None:
        self._count += 1
        self._total += value
        if value != value:  # a NaN stays: it compares false with whatever comes
            self._min = self._max = value
        elif value < self._min:
            self._min = value
        if value > self._max:
            self._max = value
        if self._values is not None:
            self._values.append(value)

    def summary(self, key: str, statistics: Iterable[str]) -> dict[str, Value]:
        found: dict[str, Value] = {key: self._total / self._count}
        for statistic in statistics:
            if statistic == "min":
                found[f"{key}_min"] = self._min
            elif statistic == "max":
                found[f"{key}_max"] = self._max
            else:
                found[f"{key}_median"] = float(np.median(np.frombuffer(self._values or b"", np.float64)))
        return found


def _kind_of(value: Value) -> str:
    match value:
        case bool() | int() | float():
            return "scalar"
        case Histogram():
            return "histogram"
        case str():
            return "text"
        case Image():
            return "image"
        case np.ndarray():
            return "array"
        case _:
            return "time"


def _checked_statistics(statistics: Iterable[str]) -> tuple[str, ...]:
    found = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for statistic in found:
        if statistic not in STATISTICS:
            raise ConfigError(f"statistics: {statistic!r} is none of {', '.join(map(repr, STATISTICS))}")
    return tuple(dict.fromkeys(found))
