"""What training is a function of: the events that a journal keeps, in the order of their consumption.

An ``Experience`` is an event by itself: wrapping each one would cost more than accepting it.
"""

from __future__ import annotations

import msgspec

from stoker.stats import EpisodeRecord
from stoker.types import ActorId, Experience

__all__ = ["EpisodeEnded", "EpisodeStarted", "JournalEvent"]


class EpisodeStarted(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor begins an episode; ``seed`` is what its environment was reset with, where that is known."""

    actor_id: ActorId
    seed: int | None = None


class EpisodeEnded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor's episode is over; the record carries what the environment had to say."""

    record: EpisodeRecord
    actor_id: ActorId


JournalEvent = Experience | EpisodeStarted | EpisodeEnded
