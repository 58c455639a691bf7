"""How long a process may train: ``--max-time`` and ``--grace``, and since when the time counts.

Imported for every command, ``--help`` too: it imports little.
"""

from __future__ import annotations

import math
import os
import re
import time
from contextvars import ContextVar
from pathlib import Path

import msgspec

from stoker.errors import ConfigError

__all__ = ["Limits", "limits_from", "seconds", "start_clock"]

_PARTS = re.compile(
    r"(?:(?P<d>[0-9]+)d)?(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m)?(?:(?P<s>[0-9]+(?:\.[0-9]+)?)s)?"
)
_CLOCK = re.compile(r"(?P<h>[0-9]+):(?P<m>[0-5][0-9]):(?P<s>[0-5][0-9])")
_PLAIN = re.compile(r"(?P<s>[0-9]+(?:\.[0-9]+)?)")
_UNIT_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_MOST_S = 10 * 366 * 86_400.0
"""Ten years: the timers of some systems take no more."""

_LEAST_MARGIN_S = 2.0
_LAST_S = 0.5
"""A process that has not ended is killed so long before the limit."""

_started_at: ContextVar[float] = ContextVar("started_at")


class Limits(msgspec.Struct, frozen=True):
    """The limits of a training process.

    Attributes:
        grace_s: most seconds from the first signal to the end.
        max_s: seconds that the process may live, or None.
        ends_at: when these are over, on the clock of ``time.monotonic``; infinity without a limit.
    """

    grace_s: float
    max_s: float | None = None
    ends_at: float = math.inf

    @property
    def leaves_at(self) -> float:
        """When a process that has not ended is killed, so that it is gone at ``ends_at``."""
        return self.ends_at if self.max_s is None else self.ends_at - min(_LAST_S, self.max_s / 10)

    def finishes_at(self, margin_s: float) -> float:
        """When to begin to finish, if that may take so many seconds; at half of the limit at the earliest."""
        if self.max_s is None:
            return math.inf
        return self.ends_at - min(self.max_s / 2, max(_LEAST_MARGIN_S, margin_s))


def limits_from(max_time: str | None, grace: str) -> Limits:
    """The limits of this process from its flags.

    Raises:
        ConfigError: One of them is not a duration.
    """
    grace_s = seconds("--grace", grace)
    if max_time is None:
        return Limits(grace_s)
    max_s = seconds("--max-time", max_time)
    return Limits(grace_s, max_s, _started_at.get(time.monotonic()) + max_s)


def seconds(flag: str, text: str) -> float:
    """A duration above 0: ``3600``, ``90s``, ``30m``, ``1h30m``, ``2d``, ``01:30:00``.

    Raises:
        ConfigError: It is none of these; the message names the flag.
    """
    plain = text.strip().lower()
    found = next((match for form in (_PLAIN, _CLOCK, _PARTS) if (match := form.fullmatch(plain))), None)
    parts = {} if found is None else {unit: part for unit, part in found.groupdict().items() if part}
    if not parts:
        raise ConfigError(f"{flag} {text!r} is not a duration: give seconds, 90s, 30m, 1h30m or 01:30:00")
    total_s = sum(_UNIT_S[unit] * float(part) for unit, part in parts.items())
    if not 0 < total_s <= _MOST_S:
        raise ConfigError(f"{flag} {text!r} is out of range: give more than 0 s, at most ten years")
    return total_s


def start_clock(*, with_process: bool) -> None:
    """Count ``--max-time`` from now, or from when this process began."""
    _started_at.set(time.monotonic() - (_age_s() if with_process else 0.0))


def _age_s() -> float:
    """Seconds since this process began; 0 on systems that do not say."""
    try:
        # The 22nd field, in ticks since the system started; the second one, a name, may hold spaces.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
