"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

__all__ = ["ago", "command", "duration", "from_here", "number", "short", "size"]


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:,.{digits}f}"


def short(value: float) -> str:
    """A number of any magnitude in at most nine characters: ``0.0123``, ``1.2e-07``, ``12.3``."""
    if not math.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """``0:24``, ``12:05``, ``3:01:59``, ``2d 4:00``; a dash where it is unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit: ``now``, ``12s ago``, ``5m ago``, ``3h ago``, ``8d ago``."""
    seconds = int((now - then).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return "now"


def size(n_bytes: int) -> str:
    """``512 B``, ``1.5 kB``, ``23 MB``."""
    value, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):  # noqa: B007 - the last one is used
        if value < 999.5:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def from_here(path: Path | str) -> str:
    """A path as one types it: from the working directory, if it lies below that."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def command(words: Sequence[str]) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(map(from_here, words))
