"""What is counted of a data set's arrays while it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.data.checking import faults_of
from stoker.data.leaves import Leaf

_BINS = 10
_MOST_NUMBERS = 1024
"""Of arrays with more, nobody asks which numbers never change."""
_MOST_ACTIONS, _MOST_CHOICES = 64, 1024
_MOST_DIGESTS, _ROWS_AT_ONCE = 1 << 20, 1 << 16
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class ColumnReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one array of observations, of actions, or in the rewards.

    Attributes:
        name: such as ``observations`` or ``actions.left``.
        min: the least finite number in it; None: there is none.
        max: the greatest.
        n_not_finite: steps with NaN or infinity.
        n_outside: steps with another value outside of the space.
        first_bad: episode and step of the first of these; None: there is none.
        constant: the numbers of each step that are the same in all, by place; of arrays up to 1,024 numbers.
    """

    name: str
    min: float | None
    max: float | None
    n_not_finite: int
    n_outside: int
    first_bad: tuple[int, int] | None
    constant: tuple[int, ...] = ()


class ActionUse(msgspec.Struct, frozen=True, kw_only=True):
    """Which actions occur.

    Attributes:
        name: as in ``ColumnReport``; with a place behind it for one number of several, as in ``actions[2]``.
        shares: of the choices of a Discrete, MultiDiscrete or MultiBinary space, else of ten bins from the
            least to the greatest action of a bounded Box.
        entropy: of these, 1.0: all are equally frequent; 0.0: there is only one.
    """

    name: str
    shares: tuple[float, ...]
    entropy: float


class ColumnTally:
    """Looks at the rows of one array."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self._low, self._high = np.inf, -np.inf
        self._n_not_finite = self._n_outside = 0
        self._first_bad: tuple[int, int] | None = None
        self._first: NDArray[Any] | None = None
        self._is_constant: NDArray[np.bool_] | None = None

    def add(self, rows: NDArray[Any], bounds: NDArray[np.int64], first_episode: int) -> None:
        """Look at rows; ``bounds`` says where their episodes begin, and where the last one ends."""
        flat = rows.reshape(len(rows), -1)
        is_finite = np.isfinite(flat)
        all_finite = bool(is_finite.all())
        finite = flat if all_finite else flat[is_finite]
        if finite.size:
            self._low, self._high = min(self._low, float(finite.min())), max(self._high, float(finite.max()))
        not_finite = np.zeros(len(rows), np.bool_) if all_finite else ~is_finite.all(axis=1)
        outside = faults_of(self.leaf, rows) & ~not_finite
        self._n_not_finite += int(not_finite.sum())
        self._n_outside += int(outside.sum())
        bad = not_finite | outside
        if self._first_bad is None and bad.any():
            row = int(bad.argmax())
            episode = int(np.searchsorted(bounds, row, "right")) - 1
            self._first_bad = first_episode + episode, row - int(bounds[episode])
        if flat.shape[1] <= _MOST_NUMBERS:
            self._first = flat[0].copy() if self._first is None else self._first
            is_same = (flat == self._first).all(axis=0)
            self._is_constant = is_same if self._is_constant is None else self._is_constant & is_same

    def report(self) -> ColumnReport:
        """What was found."""
        constant = () if self._is_constant is None else tuple(np.flatnonzero(self._is_constant).tolist())
        has_any = self._low <= self._high
        return ColumnReport(
            name=self.leaf.name,
            min=self._low if has_any else None,
            max=self._high if has_any else None,
            n_not_finite=self._n_not_finite,
            n_outside=self._n_outside,
            first_bad=self._first_bad,
            constant=constant,
        )


class ActionTally:
    """Counts one number of the actions."""

    def __init__(self, name: str, leaf_at: int, place: int, low: float, high: float, n: int) -> None:
        self._name, self._leaf_at, self._place = name, leaf_at, place
        self._low, self._high = low, high
        self._counts = np.zeros(n, np.int64)

    def add(self, actions: Sequence[NDArray[Any]]) -> None:
        """Count the rows of the arrays of actions."""
        array = actions[self._leaf_at]
        values = array.reshape(len(array), -1)[:, self._place].astype(np.float64)
        values = values[(values >= self._low) & (values <= self._high)]
        width = (self._high - self._low) / len(self._counts)
        bins = ((values - self._low) / width).astype(np.int64).clip(max=len(self._counts) - 1)
        self._counts += np.bincount(bins, minlength=len(self._counts))

    def report(self) -> ActionUse:
        """The shares, and their entropy."""
        shares = self._counts / max(1, int(self._counts.sum()))
        known = shares[shares > 0]
        entropy = float(-(known * np.log(known)).sum() / np.log(max(2, len(shares))))
        return ActionUse(name=self._name, shares=tuple(shares.tolist()), entropy=abs(entropy))


def action_tallies(leaf: Leaf, leaf_at: int) -> list[ActionTally]:
    """What counts the numbers of an action, as far as they can be counted."""
    low, high = (np.asarray(each, np.float64).reshape(-1) for each in (leaf.low, leaf.high))
    if len(low) > _MOST_ACTIONS or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return []
    is_choice = not isinstance(leaf.space, spaces.Box)
    uses: list[ActionTally] = []
    for place, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        n = int(most - least) + 1 if is_choice else _BINS
        name = leaf.name if leaf.low.shape == () else f"{leaf.name}[{place}]"
        if n <= _MOST_CHOICES and (is_choice or least < most):
            stop = least + n if is_choice else most
            uses.append(ActionTally(name, leaf_at, place, least, stop, n))
    return uses


class DistinctTally:
    """How many transitions are distinct, from a sample of their digests that fits in memory.

    A digest is in the sample if its lowest bits are zero, which all equal ones have in common (Gibbons 2001,
    "Distinct Sampling for Highly-Accurate Answers to Distinct Values Queries").
    """

    def __init__(self) -> None:
        self._seen, self._counts = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._new: list[NDArray[np.uint64]] = []
        self._n_new = 0
        self._mask = 0

    @property
    def share(self) -> float:
        """Distinct ones per transition; 1.0 without any."""
        self._merge()
        return len(self._seen) / int(self._counts.sum()) if len(self._seen) else 1.0

    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Take the rows of these arrays together as transitions."""
        digests = _digests(arrays)
        self._new.append(digests[(digests & np.uint64(self._mask)) == 0])
        self._n_new += len(self._new[-1])
        if self._n_new >= max(_ROWS_AT_ONCE, len(self._seen)):
            self._merge()

    def _merge(self) -> None:
        digests = np.concatenate([self._seen, *self._new])
        counts = np.concatenate([self._counts, np.ones(self._n_new, np.int64)])
        self._new, self._n_new = [], 0
        self._seen, places = np.unique(digests, return_inverse=True)
        self._counts = np.zeros(len(self._seen), np.int64)
        np.add.at(self._counts, places.reshape(-1), counts)
        while len(self._seen) > _MOST_DIGESTS:
            self._mask = 2 * self._mask + 1
            kept = (self._seen & np.uint64(self._mask)) == 0
            self._seen, self._counts = self._seen[kept], self._counts[kept]


def _digests(arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """64 bits of each row that depend on all bytes of its arrays; the same in each process."""
    found = np.zeros(len(arrays[0]), np.uint64)
    for array in arrays:
        rows = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
        padded = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
        padded[:, : rows.shape[1]] = rows
        words = padded.view(np.uint64)
        factors = np.random.default_rng(words.shape[1]).integers(1, 1 << 63, words.shape[1], np.uint64)
        found = (found ^ (found >> np.uint64(29))) * _FACTOR
        found += (_mixed(words) * (2 * factors + np.uint64(1))).sum(axis=1, dtype=np.uint64)
    return _mixed(found)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (words ^ (words >> np.uint64(33))) * _FACTOR
    return mixed ^ (mixed >> np.uint64(29))
