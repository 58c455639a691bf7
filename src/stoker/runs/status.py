"""What became of a run: live, stalled, done, stopped, crashed, ended or broken, and why. Reads few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec

import stoker.runs.layout as layout
from stoker.errors import RunDirectoryError
from stoker.journal import JOURNAL
from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.events import AttemptEnded
from stoker.runs.following import EventList
from stoker.runs.history import RunHistory
from stoker.runs.holders import Holder
from stoker.runs.locking import holder_of
from stoker.runs.metadata import RunMetadata, now, read_json
from stoker.runs.rows import ROW_FILES
from stoker.runs.run import TrainingRun
from stoker.writer import files

StatusName = Literal["live", "stalled", "done", "stopped", "crashed", "ended", "broken"]
ENDLESS_STEPS: Final = 10**15
"""The ``total_timesteps`` of a service that trains until it is stopped."""
_STALL_TIMEOUT_S = 120.0
_EVENTS = 16
"""How many of the last events are read."""
_STALLS = ("stalled", "actor_silent")
_UNREAD: Any = object()


class RunStatus(msgspec.Struct, frozen=True):
    """What became of a run.

    Attributes:
        name: ``live`` (a process writes it), ``stalled`` (a process holds it, but writes nothing), ``done``
            (all its steps), ``stopped`` (in good order, with fewer), ``crashed`` (failed or killed),
            ``ended`` (nobody knows how many steps it was to have) or ``broken`` (it cannot be read).
        reason: in one sentence.
    """

    name: StatusName
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def status_of(run: TrainingRun | RunHistory, config: Any = _UNREAD) -> RunStatus:
    """The status of a run now. Blocks.

    Args:
        run: a run, or its history as it was last refreshed.
        config: the content of its ``config.json``, where it was read already.
    """
    directory, metadata = run.directory, run.metadata
    if metadata is None:
        problem = run.problem if isinstance(run, RunHistory) else None
        return RunStatus("broken", problem or "its metadata was not read yet")
    if isinstance(run, RunHistory):
        config, events = run.config, run.events
    else:
        config = _config_of(directory) if config is _UNREAD else config
        log = EventList(directory / EVENTS)
        log.read_tail(_EVENTS)
        events = log.rows
    if (holder := holder_of(directory)) is not None:
        return _status_of_held(directory, holder, config, events)
    return _status_of_ended(metadata, wanted_steps(config), events)


def wanted_steps(config: Any) -> int | None:
    """The steps that the run is to have, by its config; None: it does not say, or without end."""
    total = _settings(config).get("total_timesteps")
    return total if isinstance(total, int) and total < ENDLESS_STEPS else None


def _status_of_held(
    directory: Path, holder: Holder | str, config: Any, events: Sequence[EventRow]
) -> RunStatus:
    process = f"process {holder.pid} on {holder.host}" if isinstance(holder, Holder) else holder
    timeout_s = _settings(config).get("stall_timeout_s")
    timeout_s = float(timeout_s) if isinstance(timeout_s, int | float) else _STALL_TIMEOUT_S
    last = events[-1] if events else None
    has_stalled = last is not None and last.kind in _STALLS
    written_at = _last_written(directory, ())
    if has_stalled or written_at is None or now() - written_at > timedelta(seconds=timeout_s):
        written_at = _last_written(directory, (JOURNAL, layout.CHECKPOINTS))
    if last is not None and has_stalled and (written_at is None or written_at <= last.time):
        return RunStatus("stalled", last.event.sentence)
    if written_at is not None and (still := now() - written_at) > timedelta(seconds=timeout_s):
        still_s = still.total_seconds()
        return RunStatus("stalled", f"{process} holds it, but has written nothing for {still_s:,.0f} s")
    return RunStatus("live", f"{process} writes it")


def _last_written(directory: Path, directories: Sequence[str]) -> datetime | None:
    """When the training last wrote rows, metadata, or files in these directories of the run; not events."""
    paths = [directory / name for name in (layout.METADATA, *ROW_FILES.values())]
    try:
        for below in directories:
            paths += (directory / below / name for name in files.files_in(directory / below))
        stats = [found for path in paths if (found := files.stat_of(path)) is not None]
    except RunDirectoryError:
        return None
    return datetime.fromtimestamp(max((found.st_mtime for found in stats), default=0), UTC)


def _status_of_ended(metadata: RunMetadata, wanted: int | None, events: Sequence[EventRow]) -> RunStatus:
    """The status of a run that nobody holds, by the last of its events."""
    attempt = metadata.attempts[-1].number
    rows = [row for row in events if row.attempt == attempt and row.kind != "forked"]
    end = next((row.event for row in rows[::-1] if row.kind == "attempt_ended"), None)
    if end is None and rows:
        return RunStatus("crashed", "it was killed: its last attempt recorded no end")
    if isinstance(end, AttemptEnded) and end.how in ("failed", "killed"):
        return RunStatus("crashed", end.sentence)
    steps = f"{metadata.total_steps:,}"
    if wanted is None:
        return RunStatus("ended", f"it ended at step {steps}; its config names no total")
    if metadata.total_steps >= wanted:
        return RunStatus("done", f"it has all of its {wanted:,} steps")
    how = "it ended" if end is None else end.sentence
    return RunStatus("stopped", f"{how} at step {steps} of {wanted:,}")


def _config_of(directory: Path) -> Any:
    try:
        return read_json(directory / layout.CONFIG, Any)
    except RunDirectoryError:  # a session without the command line need not write one
        return None


def _settings(config: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", config) if isinstance(config, dict) else {}
