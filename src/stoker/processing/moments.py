"""The running mean and variance of observations.

An agent learns slowly from observations whose parts differ much in scale (an angle of 0.1 beside a position
of 2), unless they are brought to mean 0 and variance 1. The statistics grow by whole batches, so that they
depend on the order of events alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["RunningMoments"]

_BATCH = 100
_TINY = 1e-8  # added to the variance: a part that never changes is not blown up without limit


class RunningMoments:
    """Mean and variance of a stream of vectors, merged batch by batch (Chan, Golub & LeVeque 1979).

    Args:
        size: the length of a vector.
    """

    def __init__(self, size: int) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(size)
        self._squares: NDArray[np.float64] = np.zeros(size)  # sums of squared deviations from the mean
        self._pending: list[Any] = []

    def add(self, observation: Any) -> bool:
        """Take one observation in; return whether the statistics have changed with it: once per batch."""
        # A copy, because an environment may write into its array later. Flat, as a loaded row is.
        self._pending.append(np.array(observation).reshape(-1))
        if len(self._pending) < _BATCH:
            return False
        rows = self._rows()
        self._pending.clear()
        n_new, n_old = len(rows), self._count
        mean = rows.mean(axis=0)
        shift = mean - self._mean
        self._count = n_old + n_new
        self._mean = self._mean + shift * (n_new / self._count)
        self._squares = (
            self._squares + ((rows - mean) ** 2).sum(axis=0) + shift**2 * (n_old * n_new / self._count)
        )
        return True

    def mean(self) -> torch.Tensor:
        """float32 ``[size]``; zeros before the first batch."""
        return torch.as_tensor(self._mean.astype(np.float32))

    def scale(self) -> torch.Tensor:
        """One over the standard deviation, float32 ``[size]``; ones before the first batch."""
        if self._count == 0:
            return torch.ones(len(self._mean))
        return torch.as_tensor((1 / np.sqrt(self._squares / self._count + _TINY)).astype(np.float32))

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and what waits for its batch to be full."""
        return {
            "count": self._count,
            "mean": torch.as_tensor(self._mean.copy()),
            "squares": torch.as_tensor(self._squares.copy()),
            "pending": torch.as_tensor(self._rows()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._count = int(state["count"])
        self._mean = state["mean"].cpu().numpy().copy()
        self._squares = state["squares"].cpu().numpy().copy()
        self._pending = list(state["pending"].cpu().numpy().copy())

    def _rows(self) -> NDArray[np.float64]:
        """What waits for its batch to be full, one vector per row."""
        return np.array(self._pending, dtype=np.float64).reshape(-1, len(self._mean))
