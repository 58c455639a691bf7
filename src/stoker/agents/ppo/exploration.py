"""The noise of state-dependent exploration, which each actor keeps for several steps.

An actor that keeps its noise explores smoothly: within these steps, the same state gives the same action
(Raffin et al. 2021, "Smooth Exploration for Robotic Reinforcement Learning", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.envs.seeding import actor_words
from stoker.lru import LRUDict
from stoker.types import ActorId

__all__ = ["ActorNoise"]


class ActorNoise:
    """Standard normal numbers, drawn anew for each actor after ``sample_freq`` steps and at an episode's end.

    The n-th numbers of an actor follow from the seed, the actor and n alone: they come from a generator that
    computes them from a key and a counter (Philox, Salmon et al. 2011). So it does not matter which actors
    act together, or in which order. Actors beyond the ``MAX_ACTORS`` most recent ones are forgotten.

    One thread at a time calls ``of``; the other methods may be called meanwhile.

    Args:
        shape: of an actor's numbers.
        sample_freq: for how many steps they are kept.
        seed: 64 bits.
    """

    def __init__(self, shape: tuple[int, ...], sample_freq: int, seed: int) -> None:
        self._shape: Final = shape
        self._freq: Final = sample_freq
        self._seed = seed
        self._actors: LRUDict[ActorId, _Kept] = LRUDict()
        # One generator whose state is set for each draw: a new one would take three times as long.
        self._generator = np.random.Generator(np.random.Philox(0))

    def of(self, actor_ids: Sequence[ActorId]) -> NDArray[np.float64]:
        """The numbers of these actors for their next step, ``[B, *shape]``."""
        numbers = np.empty((len(actor_ids), *self._shape))
        for row, actor_id in enumerate(actor_ids):
            kept = self._actors.get(actor_id) or _Kept(actor_id, 0, 0)
            self._actors.put(actor_id, kept)
            if kept.n_left <= 0:
                kept.n_drawn, kept.n_left = kept.n_drawn + 1, self._freq
                kept.numbers = None
            if kept.numbers is None:
                kept.numbers = self._drawn(kept.key, kept.n_drawn)
            # If ``end_episode`` is called between these two, it has no effect: the noise is kept for longer.
            kept.n_left -= 1
            numbers[row] = kept.numbers
        return numbers

    def end_episode(self, actor_id: ActorId) -> None:
        """Draw new numbers for the actor's next step."""
        if (kept := self._actors.get(actor_id)) is not None:
            kept.n_left = 0

    def fork(self, seed: int) -> ActorNoise:
        """The noise of a copy of the policy, which has actors of its own."""
        return ActorNoise(self._shape, self._freq, seed)

    def state_dict(self) -> dict[str, Any]:
        """The seed, and for each actor how often numbers were drawn and for how many steps they are kept."""
        actors = list(self._actors.items())
        return {
            "seed": self._seed,
            "actor_ids": [actor_id for actor_id, _ in actors],
            "n_drawn": torch.tensor([kept.n_drawn for _, kept in actors], dtype=torch.int64),
            "n_left": torch.tensor([kept.n_left for _, kept in actors], dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._seed = state["seed"]
        self._actors.clear()
        counts = zip(state["n_drawn"].tolist(), state["n_left"].tolist(), strict=True)
        for actor_id, (n_drawn, n_left) in zip(state["actor_ids"], counts, strict=True):
            self._actors.put(actor_id, _Kept(actor_id, n_drawn, min(n_left, self._freq)))

    def _drawn(self, key: int, number: int) -> NDArray[np.float64]:
        state = {
            # The counter has room for 2 ** 128 numbers between two draws.
            "state": {
                "counter": np.array([0, 0, number, 0], np.uint64),
                "key": np.array([self._seed, key], np.uint64),
            },
            "bit_generator": "Philox",
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._generator.bit_generator.state = state
        return self._generator.standard_normal(self._shape)


class _Kept:
    """What is kept of an actor; its numbers are None until they are needed."""

    __slots__ = ("key", "n_drawn", "n_left", "numbers")

    def __init__(self, actor_id: ActorId, n_drawn: int, n_left: int) -> None:
        low, high, *_ = actor_words(actor_id)
        self.key = low | high << 32
        self.n_drawn = n_drawn
        self.n_left = n_left
        self.numbers: NDArray[np.float64] | None = None
