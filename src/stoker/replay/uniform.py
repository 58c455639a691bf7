"""A ring of the newest transitions, sampled uniformly with replacement.

It has a random generator of its own: the same transitions in the same order, and the same seed, give the same
batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stoker.replay.batch import Batch
from stoker.replay.ring import Ring
from stoker.replay.transition import TransitionSpec
from stoker.types import AnyPath

__all__ = ["UniformReplay"]


class UniformReplay(Ring):
    """The newest ``capacity`` transitions, each as likely as any other.

    As for any ``Ring``: what is added is copied, what is refused leaves all as it was, and transitions of one
    array and one whole-numbered action are taken as checked. Use it from one thread at a time.

    Args:
        capacity: how many transitions it holds, at least 1.
        observation_shape: the shape of one observation; for more than one array see ``for_spaces``.
        observation_dtype: what observations are stored as.
        device: where they are stored and sampled.
        seed: of the generator that draws batches.
        memory_map: a directory for a file without a name that holds the transitions, to have more of them
            than fit into memory; on the CPU only.

    Raises:
        ConfigError: The capacity is below 1 or too large for the memory or disk, numpy lacks the dtype, or
            the directory cannot be used.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: Sequence[int] | TransitionSpec,
        observation_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        *,
        memory_map: AnyPath | None = None,
    ) -> None:
        super().__init__(capacity, observation_shape, observation_dtype, device, seed, memory_map=memory_map)
        self._make_room(0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_room(0)  # copied on their own, the tensor and its array would no longer share memory

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement, as new tensors on the replay's device.

        They may be views of one memory, in which a row holds all of a transition.

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
        """Memory for the rows that are drawn, kept between draws: to make it costs more than to fill it."""
        self._drawn = torch.empty(batch_size, dtype=torch.int64)
        self._drawn_array = self._drawn.numpy()
