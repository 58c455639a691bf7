"""How often an environment may fail, and how long to wait before it is made again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from stoker.errors import ActorFailed, ConfigError
from stoker.types import ActorId

__all__ = ["EnvironmentFailed", "FailureCount", "FailureLimit"]


class EnvironmentFailed(Exception):
    """An environment raised, with that as ``__cause__``; never leaves this package."""


class FailureLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor puts up with.

    Attributes:
        failures: the failure with this number within ``window_s`` ends the session; 1: the first one does.
        window_s: the time over which failures count, in seconds.
        first_delay_s: the pause before the environment is made again; doubled with each failure that
            counts, up to ``longest_delay_s``: a service that is down needs time to come back.
        longest_delay_s: the longest pause.
    """

    failures: int = 5
    window_s: float = 60.0
    first_delay_s: float = 0.1
    longest_delay_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.failures < 1:
            raise ConfigError(f"failures={self.failures}: give at least 1")
        if not (self.window_s > 0 and self.first_delay_s >= 0 and self.longest_delay_s >= 0):
            raise ConfigError(f"{self}: times are in seconds and not negative, the window above 0")


class FailureCount:
    """One actor's failures against its limit.

    Args:
        actor_id: whose.
        limit: what it puts up with.
        clock: the time in seconds, never going back.
    """

    def __init__(
        self, actor_id: ActorId, limit: FailureLimit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._actor_id = actor_id
        self._limit = limit
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self, cause: BaseException) -> float:
        """Count a failure and return how many seconds to wait before the next try.

        Raises:
            ActorFailed: It was one too many.
        """
        now, limit = self._clock(), self._limit
        self._times.append(now)
        while now - self._times[0] > limit.window_s:
            self._times.popleft()
        count = len(self._times)
        if count >= limit.failures:
            raise ActorFailed(self._actor_id, count, limit.window_s, cause)
        return min(limit.longest_delay_s, limit.first_delay_s * 2 ** (count - 1))
