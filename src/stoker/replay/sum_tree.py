"""A tree of sums, which draws items in proportion to their weights (Schaul et al. 2016, B.2.1).

The paper's tree is binary. Here a node has 32 children, and a binary search finds the place among up to 8192
sums at the top, because numpy's cost is per call, not per number. Every sum is computed from its children,
never by adding a difference, so that errors do not accumulate; and always in the same order, so that equal
leaves give bit-identical sums. A write only records its leaves: the sums above them are computed at the next
read, once for all writes since the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAN_OUT = 32


class SumTree:
    """Positive weights of the items 0, 1, ... up to the last one written; 0 marks an absent item.

    Present items have no gap between them. Use it from one thread at a time.

    Args:
        n_items: the largest number of items, at least 1.
        most_at_top: the largest number of sums at the top, which are searched at once.
    """

    def __init__(self, n_items: int, *, most_at_top: int = 8192) -> None:
        lengths = [n_items]
        while lengths[-1] > most_at_top:
            lengths.append(-(-lengths[-1] // _FAN_OUT))
        # each but the top in blocks, a block per item of the level above; what is beyond the end stays 0
        self._levels = [np.zeros((above, _FAN_OUT)) for above in lengths[1:]]
        self._top = np.zeros(lengths[-1])
        self._before = np.zeros(lengths[-1] + 1)  # the sum of all before each one at the top, then of all
        self._n_items = n_items
        self.leaves: NDArray[np.float64] = self._view_leaves()
        """The weights, float64 ``[n_items]``: read-only; ``set`` and ``replace`` write them."""
        self._written: list[NDArray[np.int64]] = []
        self._n_written = 0
        self._is_stale = False  # so much was written that all sums are recomputed

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.leaves = self._view_leaves()  # copied on its own, it would no longer be part of the levels

    @property
    def total(self) -> float:
        """The sum of all weights."""
        self._refresh()
        return float(self._before[-1])

    def set(self, items: NDArray[np.int64], weights: NDArray[np.float64] | float) -> None:
        """Write weights, one per item or one for all; the last weight of a repeated item counts."""
        self.leaves[items] = weights
        if self._is_stale:
            return
        self._written.append(items)
        self._n_written += len(items)
        self._is_stale = self._n_written * _FAN_OUT > len(self.leaves)

    def replace(self, weights: NDArray[np.float64]) -> None:
        """Replace all weights by these, which belong to the items from 0 on."""
        self.leaves[: len(weights)] = weights
        self.leaves[len(weights) :] = 0
        self._is_stale = True

    def find(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """The items whose stretches of ``[0, total)`` contain the points, int64 ``[B]``.

        Only present items are returned; a point beyond the total belongs to the last one.
        """
        self._refresh()
        rest = _below(points, self._before[-1])
        found = self._before.searchsorted(rest, side="right") - 1
        rest -= self._before.take(found)
        each = np.arange(len(points))
        for level in reversed(self._levels):
            until = np.zeros((len(points), _FAN_OUT + 1))  # the sums of the first 0, 1, ... of a block
            np.add.accumulate(level.take(found, 0), axis=1, out=until[:, 1:])
            rest = _below(rest, until[:, -1])  # rounding may have left a little more than the block has
            within = (until[:, 1:] > rest[:, None]).argmax(1)
            rest -= until[each, within]
            found = found * _FAN_OUT + within
        return found

    def _view_leaves(self) -> NDArray[np.float64]:
        return (self._levels[0].reshape(-1) if self._levels else self._top)[: self._n_items]

    def _refresh(self) -> None:
        """Recompute the sums above the written leaves."""
        if not (self._is_stale or self._written):
            return
        is_every = self._is_stale
        items = np.concatenate(self._written) if self._written else np.empty(0, np.int64)
        self._written, self._n_written, self._is_stale = [], 0, False
        for depth, level in enumerate(self._levels):
            items = items // _FAN_OUT
            is_every = is_every or len(items) >= len(level)
            where = slice(len(level)) if is_every else items
            above = self._levels[depth + 1].reshape(-1) if depth + 1 < len(self._levels) else self._top
            above[where] = _sums(level if is_every else level.take(items, 0))
        np.cumsum(self._top, out=self._before[1:])


def _below(points: NDArray[np.float64], limit: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.minimum(points, np.nextafter(limit, 0.0))


def _sums(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of each row, by adding halves: unlike numpy's own sum, independent of the number of rows."""
    while blocks.shape[1] > 1:
        half = blocks.shape[1] // 2
        blocks = blocks[:, :half] + blocks[:, half:]
    return blocks[:, 0]
