"""The buffer between measuring and recording: many values in, one value per name out.

The learner stores the metrics of an optimization step without waiting, in about a microsecond. A flush makes
one record of everything stored since the last one. The names in it depend on what is stored, never on how
often: a curve keeps its name when the record interval changes.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np

from stoker.errors import ConfigError
from stoker.recorders.values import Histogram, Image, Value, checked_record

STATISTICS: Final[dict[str, Callable[..., Any]]] = {"min": np.min, "max": np.max, "median": np.median}
"""What a record can hold of a scalar besides its mean."""

_KINDS: dict[Any, str] = {
    (bool, int, float): "scalar",
    Histogram: "histogram",
    str: "text",
    Image: "image",
    np.ndarray: "array",
    datetime: "time",
}


class Metrics:
    """Values by name, aggregated from one flush to the next. Safe for several threads.

    - Scalars of one name become their mean, in the order in which they were stored; a NaN makes it NaN. With
      ``statistics`` there are also ``<name>_min``, ``<name>_max``, ``<name>_median``.
    - Histograms of one name are pooled.
    - Of any other values the last one counts.

    A name keeps its kind: a scalar cannot be an image later. Memory between two flushes is that of
    one value per name, of the pooled histograms, and with ``statistics`` of 8 bytes per scalar.

    Args:
        statistics: what to keep of each scalar besides its mean, out of ``STATISTICS``.

    Raises:
        ConfigError: An unknown statistic.
    """

    def __init__(self, *, statistics: Iterable[str] = ()) -> None:
        wanted = (statistics,) if isinstance(statistics, str) else tuple(dict.fromkeys(statistics))
        for statistic in wanted:
            if statistic not in STATISTICS:
                raise ConfigError(f"statistics: {statistic!r} is none of {', '.join(map(repr, STATISTICS))}")
        self.statistics = wanted
        self._lock = threading.Lock()
        self._kinds: dict[str, str] = {}
        self._scalars: set[str] = set()  # the names of that kind, for the quick look in ``store``
        self._series: dict[str, _Series] = {}
        self._pools: dict[str, list[Histogram]] = {}
        self._last: dict[str, Value] = {}

    def store(self, values: Mapping[str, Any]) -> None:
        """Keep the values for the next flush. The mapping may be changed afterwards.

        Raises:
            ConfigError: A name or a value cannot be recorded, or a name was of another kind before, such as
                another one's statistic. Nothing of the mapping is kept.
        """
        for value in values.values():
            if type(value) is not float:
                break
        else:
            if self._scalars.issuperset(values):  # the metrics of an optimization step, but for the first
                with self._lock:
                    for key, value in values.items():
                        self._add(key, value)
                return
        checked = checked_record(values)
        with self._lock:
            self._note_kinds(checked)
            for key, value in checked.items():
                if isinstance(value, (float, int)):
                    self._add(key, value)
                elif isinstance(value, Histogram):
                    self._pools.setdefault(key, []).append(value)
                else:
                    self._last[key] = value

    def flush(self) -> dict[str, Value]:
        """Everything stored since the last flush, as one record; empty if that is nothing."""
        with self._lock:
            series, pools, last = self._series, self._pools, self._last
            self._series, self._pools, self._last = {}, {}, {}
        record: dict[str, Value] = {}
        for key, found in series.items():
            record[key] = found.total / found.count
            for name in self.statistics:
                record[f"{key}_{name}"] = float(STATISTICS[name](found.values))
        for key, pool in pools.items():
            record[key] = pool[0] if len(pool) == 1 else Histogram(np.concatenate([h.values for h in pool]))
        return record | last

    def _note_kinds(self, values: Mapping[str, Value]) -> None:
        """Refuse names that were of another kind; note the kinds of new ones and of their statistics."""
        fresh: dict[str, str] = {}
        for key, value in values.items():
            names = {key: next(kind for types, kind in _KINDS.items() if isinstance(value, types))}
            if names[key] == "scalar":
                names |= {f"{key}_{statistic}": f"statistic of {key!r}" for statistic in self.statistics}
            for name, kind in names.items():
                known = self._kinds.get(name) or fresh.setdefault(name, kind)
                if known != kind:
                    raise ConfigError(f"{name!r} was a {known} before and is a {kind} now: use two names")
        self._kinds |= fresh
        self._scalars.update(key for key, kind in fresh.items() if kind == "scalar")

    def _add(self, key: str, value: float) -> None:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.count += 1
        series.total += value
        if self.statistics:
            series.values.append(value)


class _Series:
    """The scalars of one name since the last flush."""

    __slots__ = ("count", "total", "values")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.values = array("d")
