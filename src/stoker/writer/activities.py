"""What the writer is doing: in words, since when, and how far, for the watch over the disk.

A disk that is slow moves on, one that is stuck does not; and one file may be stuck while others move. So
progress is counted for each activity, in bytes that have reached the file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator

import msgspec

__all__ = ["Activities", "Activity"]


class Activity(msgspec.Struct, frozen=True):
    """One thing that is being done.

    Attributes:
        words: what, such as ``syncing train_episodes.jsonl``.
        since: when it began, in seconds of ``time.monotonic``.
        progress: bytes that have reached the file since then; 0 for what writes none.
    """

    words: str
    since: float
    progress: int


class _Running:
    """An activity and where its progress is read."""

    def __init__(self, words: str | Callable[[], str], n_bytes: Callable[[], int]) -> None:
        self._words = words
        self.since = time.monotonic()
        self._n_bytes = n_bytes
        self._before = n_bytes()

    @property
    def words(self) -> str:
        return self._words if isinstance(self._words, str) else self._words()

    @property
    def progress(self) -> int:
        return max(0, self._n_bytes() - self._before)


class Activities:
    """Those that are running. They begin and end in tasks of one event loop; any thread may look."""

    def __init__(self) -> None:
        self._running: dict[int, _Running] = {}
        self._n_begun = 0
        self.busy_s = 0.0
        """Seconds spent, over all that have ended."""
        self.n_bytes = 0
        """Bytes written, over all that have ended."""

    def now(self) -> list[Activity]:
        """Those that are running, the one that began first in front."""
        # Copied in one step, since other threads look while they begin and end.
        running = list(self._running.values())
        return [Activity(one.words, one.since, one.progress) for one in running]

    @contextlib.contextmanager
    def at(self, words: str | Callable[[], str], n_bytes: Callable[[], int] = lambda: 0) -> Generator[None]:
        """Say what is being done, for as long as it is, and count the time.

        Args:
            words: what, or a function that says it, from any thread.
            n_bytes: says how many bytes have been written by now; only what is added counts.
        """
        self._n_begun += 1
        key = self._n_begun
        self._running[key] = running = _Running(words, n_bytes)
        try:
            yield
        finally:
            del self._running[key]
            self.busy_s += time.monotonic() - running.since
            self.n_bytes += running.progress
