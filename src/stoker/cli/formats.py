"""Ages, sizes, paths and command lines as people read them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

__all__ = ["ago", "command", "from_here", "size"]


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
