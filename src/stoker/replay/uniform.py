"""A replay that samples uniformly with replacement."""

from __future__ import annotations

from typing import Any

import torch

from stoker.replay.batch import Batch
from stoker.replay.ring import Ring

__all__ = ["UniformReplay"]


class UniformReplay(Ring):
    """The newest ``capacity`` transitions, each as likely as any other. Settings and errors: see ``Ring``."""

    _drawn = torch.empty(0, dtype=torch.int64)
    _drawn_array = _drawn.numpy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_room(0)  # copied on their own, the tensor and its array would no longer share memory

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement, as new tensors on the replay's device.

        They may be views of one memory that holds whole transitions.

        Raises:
            ConfigError: The batch size is below 1 or above the number of transitions held.
        """
        if not 1 <= batch_size <= self._size:
            self._check_batch_size(batch_size)
        if len(self._drawn_array) != batch_size:
            self._make_room(batch_size)
        self._drawn.random_(self._size, generator=self._generator)
        return self._storage.take(self._drawn_array)

    def _make_room(self, batch_size: int) -> None:
        """Allocate memory for the drawn rows, kept between draws: that costs more than to fill it."""
        self._drawn = torch.empty(batch_size, dtype=torch.int64)
        self._drawn_array = self._drawn.numpy()
