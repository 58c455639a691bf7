"""The time limits of a training process, ``--max-time`` and ``--grace``. Imports nothing slow."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from stoker.cli.options import Flag
from stoker.cli.parsing import Command
from stoker.errors import ConfigError
from stoker.settings import Natural

ExportFormat: TypeAlias = Literal["onnx", "pt2", "numpy"]
"""As ``stoker.policies.exporting.PolicyFormat``, whose module imports torch."""

_PARTS = re.compile(
    r"(?:(?P<d>[0-9]+)d)?(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m)?(?:(?P<s>[0-9]+(?:\.[0-9]+)?)s)?"
)
_UNIT_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_MOST_S = 10 * 366 * 86_400.0
"""Ten years: the timers of some systems take no more."""

_LEAST_MARGIN_S = 2.0
_LAST_S = 0.5
"""A process that has not ended is killed this long before the limit."""


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

    def over(self, *, is_out_of_time: bool) -> str:
        """Which of them is over, in words."""
        return f"--max-time of {self.max_s or 0:g} s" if is_out_of_time else f"--grace of {self.grace_s:g} s"

    def finishes_at(self, margin_s: float) -> float:
        """When to begin to finish, if that may take ``margin_s``; at half of the limit at the earliest."""
        if self.max_s is None:
            return math.inf
        return self.ends_at - min(self.max_s / 2, max(_LEAST_MARGIN_S, margin_s))


class TrainingCommand(Command, frozen=True, kw_only=True):
    """A command that trains, for a time, and shows it; the result does not depend on these flags."""

    max_time: Annotated[str | None, Flag(metavar="TIME")] = None
    """End this process, saved, when it is as old as that: 3600, 90s, 30m, 1h30m, 01:30:00."""

    grace: Annotated[str, Flag(metavar="TIME")] = "30s"
    """How long finishing may take after Ctrl-C or SIGTERM; then the process leaves with exit code 1."""

    progress: bool = True
    """Show progress: a live view on a terminal, else a line every few seconds."""

    json: bool = False
    """End standard output with one line of JSON, for scripts; all else goes to standard error."""

    metrics_port: Annotated[Natural | None, Flag(metavar="PORT")] = None
    """Answer Prometheus at http://127.0.0.1:PORT/metrics meanwhile; 0: any free port."""

    metrics_host: Annotated[str, Flag(metavar="HOST")] = "127.0.0.1"
    """The address of --metrics-port. Anybody who reaches it may read the metrics."""

    export_best: tuple[ExportFormat, ...] = ()
    """When the training is done, write its best policy to RUN/policy: as onnx, pt2 or numpy, or several."""

    def limits(self) -> Limits:
        """The limits of this process.

        Raises:
            ConfigError: One of them is not a duration.
        """
        return limits_of(self.max_time, self.grace)


def limits_of(max_time: str | None, grace: str) -> Limits:
    """The limits of this process that ``--max-time`` and ``--grace`` set.

    Raises:
        ConfigError: One of them is not a duration.
    """
    grace_s = seconds("--grace", grace)
    if max_time is None:
        return Limits(grace_s)
    max_s = seconds("--max-time", max_time)
    return Limits(grace_s, max_s, time.monotonic() - _age_s() + max_s)


def seconds(flag: str, text: str) -> float:
    """A duration above 0: ``3600``, ``90s``, ``30m``, ``1h30m``, ``2d``, ``01:30:00``.

    Raises:
        ConfigError: It is none of these; the message names the flag.
    """
    plain = re.sub(r"^([0-9]+):([0-5][0-9]):([0-5][0-9])$", r"\1h\2m\3s", text.strip().lower())
    plain = re.sub(r"^([0-9]+(?:\.[0-9]+)?)$", r"\1s", plain)
    found = _PARTS.fullmatch(plain)
    if not plain or found is None:
        raise ConfigError(f"{flag} {text!r} is not a duration: give seconds, 90s, 30m, 1h30m or 01:30:00")
    total_s = sum(_UNIT_S[unit] * float(part) for unit, part in found.groupdict("0").items())
    if not 0 < total_s <= _MOST_S:
        raise ConfigError(f"{flag} {text!r} is out of range: give more than 0 s, at most ten years")
    return total_s


def _age_s() -> float:
    """Seconds since this process began; 0 on systems that do not say."""
    try:
        # The 22nd field, in ticks since the system started; the second one, a name, may hold spaces.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
