"""The smoothed curves of runs that are watched: rows that are added to a run cost only themselves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.runs.smoothing import Numbers, Smoother, Smoothing


class SeriesCache:
    """Smoothed curves, each continued where it ended. For any number of threads.

    Args:
        most_bytes: the memory of all curves together; those that were asked for longest ago are dropped. The
            curve that is being asked for is always kept.
    """

    def __init__(self, most_bytes: int = 64 << 20) -> None:
        self.most_bytes = most_bytes
        self._curves: OrderedDict[tuple[Hashable, Smoothing], _Curve] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """The memory of all curves."""
        with self._lock:
            return sum(curve.n_bytes for curve in self._curves.values())

    def smoothed(
        self,
        key: Hashable,
        how: Smoothing,
        generation: Hashable,
        n: int,
        values_from: Callable[[int], NDArray[Any]],
    ) -> Numbers:
        """The first ``n`` smoothed values of a curve, which must not be written to.

        Args:
            key: the run and the name of the curve.
            how: the smoothing; each is a curve of its own.
            generation: changes when earlier values of the curve may have changed: then it is smoothed anew.
            n: how many values the curve has.
            values_from: the values from a place on, up to ``n`` or beyond; called with the number of values
                that are known already, and not at all if no value is new.
        """
        with self._lock:
            curve = self._curves.get((key, how))
            if curve is None or curve.generation != generation:
                curve = self._curves[key, how] = _Curve(how, generation)
            self._curves.move_to_end((key, how))
        found = curve.up_to(n, values_from)
        with self._lock:
            total = sum(curve.n_bytes for curve in self._curves.values())
            while total > self.most_bytes and len(self._curves) > 1:
                total -= self._curves.popitem(last=False)[1].n_bytes
        return found


class _Curve:
    """One smoothed curve, in an array that grows by a quarter: a long one must not take twice its size."""

    def __init__(self, how: Smoothing, generation: Hashable) -> None:
        self.generation = generation
        self._smoother = Smoother(how)
        self._values: Numbers = np.empty(0)
        self._n = 0
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        return self._values.nbytes + self._smoother.n_bytes

    def up_to(self, n: int, values_from: Callable[[int], NDArray[Any]]) -> Numbers:
        with self._lock:
            if self._n < n:
                new = self._smoother.extend(values_from(self._n)[: n - self._n])
                behind = self._n + len(new)
                if behind > len(self._values):
                    # Views of the old array stay as they are.
                    grown = np.empty(behind if not self._n else max(behind, self._n + self._n // 4))
                    grown[: self._n] = self._values[: self._n]
                    self._values = grown
                self._values[self._n : behind] = new
                self._n = behind
            return self._values[:n]
