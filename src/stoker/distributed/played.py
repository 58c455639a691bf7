"""How many steps each environment of a process has played: a file in memory that outlives the process.

A killed process cannot report what it played since its last message, but the kernel keeps what it wrote to
a mapped file. Each link of a host has a slot of its own there, so that no two threads write to one number.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
from pathlib import Path

from stoker.errors import WriteFailed
from stoker.writer.files import remove_all

_PREFIX = "stoker-played-"
_KEPT_S = 24 * 3600.0
"""Files that were not written to for so long are left from trainings that were killed."""
_SLOT_BYTES = 8


class PlayedSteps:
    """The counts of one process, all zero at first.

    Args:
        name: tells the process from all others of its node, in whose directory for temporary files this is.
        n_slots: how many counts there are.
    """

    def __init__(self, name: str, n_slots: int) -> None:
        directory = Path(tempfile.gettempdir())
        _remove_old(directory)
        self.path: Path = directory / f"{_PREFIX}{name}"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, n_slots * _SLOT_BYTES)
            self._map = mmap.mmap(descriptor, n_slots * _SLOT_BYTES)
        finally:
            os.close(descriptor)
        self._counts = memoryview(self._map).cast("Q")

    def add(self, slot: int, n_steps: int) -> None:
        """Count steps; by one thread at a time for each slot."""
        self._counts[slot] += n_steps

    def of(self, slot: int) -> int:
        """The steps counted there."""
        return self._counts[slot]

    @property
    def total(self) -> int:
        """All steps counted."""
        return sum(self._counts)

    def remove(self) -> None:
        """Delete the file; the counts can still be used."""
        remove_all([self.path])


def _remove_old(directory: Path) -> None:
    oldest = time.time() - _KEPT_S
    with contextlib.suppress(OSError, WriteFailed):  # of another user, or removed meanwhile
        remove_all([file for file in directory.glob(f"{_PREFIX}*") if file.stat().st_mtime < oldest])


def read_total(path: str) -> int | None:
    """The sum of all counts of a process that has ended; None: there is no such file."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    return sum(memoryview(data).cast("Q"))
