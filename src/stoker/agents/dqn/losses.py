"""The losses that belong to each actor's running episode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stoker.types import ActorId

__all__ = ["EpisodeLosses"]


class _Summary:
    """Mean, spread and maximum of a stream of numbers (Welford 1962)."""

    __slots__ = ("count", "largest", "mean", "squares")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared deviations from the mean
        self.largest = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        deviation = value - self.mean
        self.mean += deviation / self.count
        self.squares += deviation * (value - self.mean)
        self.largest = max(self.largest, value)


class EpisodeLosses:
    """One summary per actor with an episode running; what an actor adds never reaches another's.

    It keeps nothing about an actor between ``drop`` or ``take`` and the next loss, so that memory is
    bounded by the actors at work and not by those there have ever been.
    """

    def __init__(self) -> None:
        self._running: dict[ActorId, _Summary] = {}

    def __len__(self) -> int:
        return len(self._running)

    def add(self, actor_id: ActorId, loss: float) -> None:
        """Count a loss, finite, to the actor's running episode."""
        summary = self._running.get(actor_id)
        if summary is None:
            summary = self._running[actor_id] = _Summary()
        summary.add(loss)

    def take(self, actor_id: ActorId) -> dict[str, float]:
        """``loss_mean``, ``loss_max`` and, from two losses on, ``loss_std`` (population); then drop them.

        Without any loss it is empty: never NaN.
        """
        summary = self._running.pop(actor_id, None)
        if summary is None:
            return {}
        taken = {"loss_mean": summary.mean, "loss_max": summary.largest}
        if summary.count > 1:
            taken["loss_std"] = math.sqrt(summary.squares / summary.count)
        return taken

    def drop(self, actor_id: ActorId) -> None:
        """Forget that actor's losses."""
        self._running.pop(actor_id, None)

    def state_dict(self) -> dict[ActorId, list[float]]:
        """Count, mean, sum of squared deviations and maximum per actor."""
        return {
            actor_id: [summary.count, summary.mean, summary.squares, summary.largest]
            for actor_id, summary in self._running.items()
        }

    def load_state_dict(self, state: Mapping[ActorId, Sequence[float]]) -> None:
        """Become what ``state_dict`` described."""
        self._running.clear()
        for actor_id, (count, mean, squares, largest) in state.items():
            summary = self._running[actor_id] = _Summary()
            summary.count, summary.mean, summary.squares, summary.largest = int(count), mean, squares, largest
