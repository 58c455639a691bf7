"""What is seen of a run at a glance: the stamps of its files, and from them its line in the list. Blocks."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from stoker.dashboard.finding import link_out_of
from stoker.dashboard.summaries import LAST, Summary, SummaryMaker
from stoker.runs.event_rows import EVENTS
from stoker.runs.history import RunHistory
from stoker.runs.layout import CONFIG, METADATA
from stoker.runs.locking import LOCK, holder_of
from stoker.runs.rows import ROW_FILES, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.runs.status import RunStatus, status_of

logger = logging.getLogger("stoker.dashboard")

_HOLDER_S = 3.0
"""Seconds after which the holder of a live run's lock is asked for, if no file changes."""
_STILL_S = 30.0
"""Seconds after which a live run whose files do not change is looked at again: it may have stalled."""
_QUICK: Final = ("", ROW_FILES[TrainEpisodeRow], LOCK)
"""What changes when a run without a writer gets one; the directory changes when a file is replaced."""
_GROWING: Final = (ROW_FILES[EvalEpisodeRow], ROW_FILES[MetricsRow], EVENTS)
"""What else changes while a run is written."""
_NAMES: Final = (*_QUICK, *_GROWING, METADATA, CONFIG)


class Look(NamedTuple):
    """What was seen of a run.

    Attributes:
        seen: the stamps of its directory and its files.
        summary: its line in the list.
        at: when the holder of its lock was asked for last, on the clock of ``time.monotonic``.
        full_at: when the summary was made.
    """

    seen: tuple[tuple[int, int, int], ...]
    summary: Summary
    at: float
    full_at: float

    @property
    def is_live(self) -> bool:
        """Whether a process writes the run."""
        return self.summary.status in ("live", "stalled")


class Looker:
    """Looks at one run, and remembers what it needs for the next look. Not for several threads at once.

    Args:
        run_id: its id.
        root: the runs directory, out of which no link may lead.
        directory: the run's.
    """

    __slots__ = ("_directory", "_ends", "_lines", "_root")

    def __init__(self, run_id: str, root: Path, directory: Path) -> None:
        self._root, self._directory = root, directory
        self._lines = SummaryMaker(run_id, root, directory)
        self._ends: RunHistory | None = None  # of a live run: the next look reads only what is new

    def look(self, before: Look | None, *, is_thorough: bool) -> Look:
        """Look again. While nothing of the run changes this costs a few calls of the system.

        Args:
            before: what was seen of it last.
            is_thorough: look at each of its files, also where nobody writes it.
        """
        now, seen = time.monotonic(), None
        if before is not None:
            n = len(_NAMES) if is_thorough or before.is_live else len(_QUICK)
            seen = _stamps(self._directory, n)
            n = n if is_thorough else len(_QUICK) + (len(_GROWING) if before.is_live else 0)
            if seen[:n] == before.seen[:n]:
                if not before.is_live or now - before.at < _HOLDER_S:
                    return before
                if now - before.full_at < _STILL_S and holder_of(self._directory) is not None:
                    return before._replace(at=now)
        if seen is None or len(seen) < len(_NAMES):
            seen = _stamps(self._directory, len(_NAMES))
        look = Look(seen, self._summary(), now, now)
        if not look.is_live:
            self._ends = None
        return look

    def _summary(self) -> Summary:
        if (name := link_out_of(self._root, self._directory)) is not None:
            return self._broken(f"{name} is a symbolic link out of the runs directory; it is not read")
        try:
            if self._ends is None:
                self._ends = RunHistory(self._directory).tail(LAST)
            else:
                self._ends.refresh()
            return self._lines.summary(self._ends, status_of(self._ends))
        except Exception as error:  # one run must not take the others down
            logger.exception("%s could not be looked at", self._directory)
            return self._broken(f"it could not be read: {type(error).__name__}: {error}")

    def _broken(self, reason: str) -> Summary:
        return self._lines.summary(RunHistory(self._directory), RunStatus("broken", reason))


def _stamps(directory: Path, n: int) -> tuple[tuple[int, int, int], ...]:
    place = os.fspath(directory)
    return tuple(_stamp(f"{place}/{name}") for name in _NAMES[:n])


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
