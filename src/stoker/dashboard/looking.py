"""What is seen of a run at a glance: the stamps of its files, and from them its line in the list. Blocks."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from stoker.dashboard.finding import link_out_of
from stoker.dashboard.summaries import LAST, Summary, summary_of
from stoker.runs.events import EVENTS
from stoker.runs.history import RunHistory
from stoker.runs.layout import CONFIG, METADATA
from stoker.runs.locking import LOCK, holder_of
from stoker.runs.rows import ROW_FILES, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.runs.status import RunStatus, status_of

__all__ = ["Look", "looked_at"]

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
        ends: of a live run the ends of its files, of which the next look reads only what is new.
    """

    seen: tuple[tuple[int, int, int], ...]
    summary: Summary
    at: float
    full_at: float
    ends: RunHistory | None = None

    @property
    def is_live(self) -> bool:
        """Whether a process writes the run."""
        return self.summary.status in ("live", "stalled")


def looked_at(run_id: str, root: Path, directory: Path, before: Look | None, *, is_thorough: bool) -> Look:
    """Look at a run. While nothing of it changes this costs a few calls of the system.

    Two threads must not look at a run from the same ``before``.

    Args:
        run_id: its id.
        root: the runs directory.
        directory: the run's.
        before: what was seen of it before.
        is_thorough: look at each of its files, also where nobody writes it.
    """
    now = time.monotonic()
    if before is not None:
        n = len(_NAMES) if is_thorough else len(_QUICK) + (len(_GROWING) if before.is_live else 0)
        if _stamps(directory, n) == before.seen[:n]:
            if not before.is_live or now - before.at < _HOLDER_S:
                return before
            if now - before.full_at < _STILL_S and holder_of(directory) is not None:
                return before._replace(at=now)
    seen = _stamps(directory, len(_NAMES))
    summary, ends = _summary(run_id, root, directory, None if before is None else before.ends)
    look = Look(seen, summary, now, now)
    return look._replace(ends=ends) if look.is_live else look


def _summary(
    run_id: str, root: Path, directory: Path, ends: RunHistory | None
) -> tuple[Summary, RunHistory | None]:
    """The line about a run, and the ends of its files, which may be known from before."""
    if (name := link_out_of(root, directory)) is not None:
        status = RunStatus("broken", f"{name} is a symbolic link out of the runs directory; it is not read")
        return summary_of(run_id, root, RunHistory(directory), status), None
    try:
        if ends is None:
            ends = RunHistory(directory).tail(LAST)
        else:
            ends.refresh()
        return summary_of(run_id, root, ends, status_of(ends)), ends
    except Exception as error:  # one run must not take the others down
        logger.exception("%s could not be looked at", directory)
        status = RunStatus("broken", f"it could not be read: {type(error).__name__}: {error}")
        return summary_of(run_id, root, RunHistory(directory), status), None


def _stamps(directory: Path, n: int) -> tuple[tuple[int, int, int], ...]:
    place = os.fspath(directory)
    return tuple(_stamp(f"{place}/{name}") for name in _NAMES[:n])


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
