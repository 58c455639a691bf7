"""Noticing that a part is stuck: what it is doing, since when, and whether that moves.

Every watch in stoker (over the learner, the disk, environments) uses this one detector. A slow part makes
progress, a stuck one does not; and one activity may be stuck while others move.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import TypeVar

import anyio
import msgspec

K = TypeVar("K", bound=Hashable)
_LATE_S = 0.5
"""A wake-up that is later than this, beyond two intervals, means that the process was stopped or held up."""


class Activity(msgspec.Struct, frozen=True):
    """One thing that is being done.

    Attributes:
        words: what, for example ``syncing train_episodes.jsonl``.
        since: when it began, in seconds of ``time.monotonic``.
        progress: how far it is, for example in bytes; any other value means that it has moved.
    """

    words: str
    since: float
    progress: object = 0


class StallDetector:
    """Finds activities that have not moved for ``limit_s`` seconds.

    Time during which the process itself was stopped (Ctrl-Z, a paused container) does not count.

    Args:
        limit_s: how long an activity may stand still.
        interval_s: the time between two looks; by default a tenth of the limit, at most 1 s.
    """

    def __init__(self, limit_s: float, interval_s: float | None = None) -> None:
        self.awake_since: float = 0.0
        """When the process last resumed after it was stopped, in seconds of ``time.monotonic``."""
        self._limit_s = limit_s
        self._interval_s = min(1.0, limit_s / 10) if interval_s is None else interval_s
        # Of each activity at the last look: when it last moved, and whether it was reported since then.
        self._last: dict[Hashable, tuple[Activity, float, bool]] = {}

    async def next_look(self) -> float:
        """Sleep until the next look is due; return the time, in seconds of ``time.monotonic``."""
        due_at = time.monotonic() + self._interval_s
        await anyio.sleep(self._interval_s)
        now = time.monotonic()
        if now > due_at + _LATE_S + 2 * self._interval_s:
            self.awake_since = now
        return now

    def stalled(self, activities: Mapping[K, Activity], now: float) -> list[tuple[K, float]]:
        """Compare what is being done with the last look.

        Args:
            activities: everything that is being done, by any key that stays the same from look to look.
            now: the time of this look, in seconds of ``time.monotonic``.

        Returns:
            The key of each activity that has reached the limit, once until it moves, and the seconds that it
            has stood still.
        """
        before, self._last = self._last, {}
        found: list[tuple[K, float]] = []
        for key, activity in activities.items():
            known, moved_at, is_reported = before.get(key, (None, activity.since, False))
            if activity != known:
                is_new = known is None or known.since != activity.since
                moved_at, is_reported = activity.since if is_new else now, False
            still_s = now - max(moved_at, self.awake_since)
            if still_s >= self._limit_s and not is_reported:
                is_reported = True
                found.append((key, still_s))
            self._last[key] = activity, moved_at, is_reported
        return found
