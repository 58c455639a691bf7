"""Fences: a process that has lost a directory must not change the files in it any more.

The holder of a directory registers a check. ``files`` and ``logs`` call it at three points, which leave a
process that has lost the directory no way to damage it, however long it stood still between two steps:

    a staged file     after it was written, before its rename   the next holder removes staged files
    an open log       after it was opened, before its write     the next holder replaces logs by copies
    a synced log      after the sync, before anybody is told    what was not in the copy was never confirmed
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_checks: dict[Path, Callable[[], None]] = {}  # by absolute directory


def fence(directory: Path, check: Callable[[], None]) -> None:
    """Call the check before each change to a file below that directory; it raises to forbid the change."""
    _checks[directory.absolute()] = check


def unfence(directory: Path) -> None:
    """Check no more; without a fence there, nothing happens."""
    _checks.pop(directory.absolute(), None)


def check_fence(path: Path) -> None:
    """Return if this process may change the file.

    Raises:
        RunFenced: Another process has taken over a directory above it.
    """
    if not _checks:
        return
    for directory in path.absolute().parents:
        if (check := _checks.get(directory)) is not None:
            check()
