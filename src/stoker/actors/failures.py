"""How often an environment may fail, how long to wait before it is made again, and what is logged."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import anyio
import msgspec

from stoker.actors.report import ActorReport
from stoker.errors import ActorFailed, ConfigError, UnexpectedExit
from stoker.types import ActorId

__all__ = [
    "EnvironmentFailed",
    "FailureCount",
    "FailureLimit",
    "RemoteFailure",
    "WorkerLost",
    "described",
    "recover",
]

logger = logging.getLogger("stoker.actors")


class EnvironmentFailed(Exception):
    """An environment raised, with that as ``__cause__``; never leaves this package."""


class RemoteFailure(Exception):
    """What an exception in another process was: its type and message; its traceback is a note.

    Args:
        text: ``RuntimeError: simulator crashed``, say.
        trace: the traceback that it had there, as text.
    """

    def __init__(self, text: str, trace: str = "") -> None:
        super().__init__(text)
        if trace:
            self.add_note(trace)


class WorkerLost(Exception):
    """The process or thread that an environment lived in is gone, for no reason that it told."""


def described(error: BaseException) -> str:
    """An error in one line, wherever it happened."""
    return str(error) if isinstance(error, RemoteFailure) else f"{type(error).__name__}: {error}"


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
            ActorFailed: It was one too many, or the environment wanted to end the process, which the next
                one would do, too.
        """
        now, limit = self._clock(), self._limit
        self._times.append(now)
        while now - self._times[0] > limit.window_s:
            self._times.popleft()
        count = len(self._times)
        if isinstance(cause, UnexpectedExit):
            raise ActorFailed(self._actor_id, 1, limit.window_s, cause)
        if count >= limit.failures:
            raise ActorFailed(self._actor_id, count, limit.window_s, cause)
        return min(limit.longest_delay_s, limit.first_delay_s * 2 ** (count - 1))


async def recover(report: ActorReport, failures: FailureCount, cause: BaseException) -> None:
    """Note an environment's failure, say it, and pause before another one is made.

    Raises:
        ActorFailed: It was one too many.
    """
    report.restarts += 1
    report.last_error = described(cause)
    delay_s = failures.add(cause)
    logger.warning(
        "actor %r: its environment failed (%s); that episode is lost, a new one is made in %.1f s",
        report.actor_id,
        report.last_error,
        delay_s,
    )
    await anyio.sleep(delay_s)
