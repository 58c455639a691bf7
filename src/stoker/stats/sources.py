"""Where a stat gets its numbers from: functions of one episode's record.

Any function of this shape is a source. None says that this record has no such value; the stat then
skips the record.
"""

from __future__ import annotations

from collections.abc import Callable

from stoker.stats.records import EpisodeRecord

__all__ = ["Source", "extra", "length", "total_reward"]

Source = Callable[[EpisodeRecord], float | None]
"""Takes one number out of a record, or None where the record has none. Pure: called once per record."""


def total_reward(record: EpisodeRecord) -> float:
    """The undiscounted sum of the episode's rewards."""
    return record.total_reward


def length(record: EpisodeRecord) -> float:
    """The number of the episode's transitions."""
    return record.length


def extra(key: str) -> Source:
    """A source of the extra with this key; records without it are skipped."""

    def source(record: EpisodeRecord) -> float | None:
        return record.extras.get(key)

    return source
