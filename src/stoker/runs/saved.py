"""The part of a run that a resume reads: its lock, its checkpoints and its journal.

``TrainingRun`` adds config, metadata and rows. Calls that are not awaited block: they are for the threads of
the session and its writer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anyio import to_thread

import stoker.runs.layout as layout
from stoker.errors import CheckpointNotFound, ConfigError, RunLocked
from stoker.journal import JOURNAL, Journal, segment_name
from stoker.runs.bests import Bests
from stoker.runs.checkpoints import Retention, StepCheckpoints, remove_all
from stoker.runs.layout import METADATA
from stoker.runs.locking import Holder, RunLock, holder_of
from stoker.runs.metadata import RunMetadata, read_metadata
from stoker.writer import AppendLog, files

__all__ = ["SavedTraining"]

logger = logging.getLogger("stoker.runs")
_ALL = Retention(last=None, all_journal=True)
_RUNNING = "with another session on this very run object"
_GIVEN_UP = "in which a session was given up while a thread of it may still write"
_never_released: list[RunLock | None] = []  # a lock that is collected would be released


class SavedTraining(StepCheckpoints):
    """The part of a run that a resume reads.

    Args:
        directory: of the run.
        metadata: as it was read.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        super().__init__(directory)
        self.metadata = metadata
        """As of the last read or write."""
        self.is_new = False
        """Whether this process created it and no training has begun: there is nothing to resume."""
        self.on_disk = metadata
        """The metadata that is on disk, as far as this object knows."""
        self._bests = Bests(self.checkpoints_directory, lambda: self.is_acquired)
        self._lock: RunLock | None = None
        self._session: str | None = None  # the session that has this object, in words
        self._session_lock = threading.Lock()

    # Who writes -----------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Lock the run for this object; a second call does nothing. Blocks.

        The metadata is read again, since another process may have resumed the run meanwhile, and half-written
        files of a crash are removed.

        Raises:
            RunLocked: Another object or process writes it; the message names the holder.
            RunBroken: Its metadata cannot be read.
            WriteFailed: Nothing can be written there.
        """
        with self._session_lock:
            self._acquire()

    def release(self) -> None:
        """Unlock the run, unless a session has it; if it is not locked, nothing happens."""
        with self._session_lock:
            if self._session is None:
                self._release()

    def begin_session(self) -> None:
        """Lock the run for a session: one at a time, on this object too. Blocks.

        Each call that returns must be followed by ``end_session``.

        Raises:
            RunLocked: Another session has it, on this object or elsewhere; or a session on this object was
                abandoned with a thread that may still write.
            RunBroken, WriteFailed: As for ``acquire``.
        """
        with self._session_lock:
            if self._session is not None and self.is_acquired:
                raise RunLocked(self.directory, f"{self.holder() or 'this process'}, {self._session}")
            self._acquire()
            self._session = _RUNNING

    def end_session(self, settled: bool) -> None:
        """Unlock the run of a session; if no session has it, nothing happens.

        Args:
            settled: whether no thread of the session can write any more. If not, the run stays locked until
                this process ends.
        """
        with self._session_lock:
            if self._session != _RUNNING:
                return
            if settled:
                self._session = None
                self._release()
            else:
                self._session = _GIVEN_UP
                _never_released.append(self._lock)

    def _acquire(self) -> None:
        if self.is_acquired:
            return
        lock = RunLock.acquire(self.directory)
        try:
            there = read_metadata(self.directory)
            files.make_directory(self.checkpoints_directory)
            for directory in (self.directory, self.checkpoints_directory, self.journal_directory):
                files.remove_leftovers(directory)
        except BaseException:
            lock.release()
            raise
        if there != self.on_disk:
            self.metadata = self.on_disk = there
            self.is_new = False
        self._lock, self._session = lock, None  # a forked child has its parent's mark

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    @property
    def is_acquired(self) -> bool:
        """Whether this object has the run locked."""
        return self._lock is not None and self._lock.is_held

    def holder(self) -> Holder | str | None:
        """The process that has the run locked now, in words if it is unknown; None: there is none. Blocks."""
        return holder_of(self.directory)

    @property
    def attempt(self) -> int:
        """The number of the current attempt."""
        return self.metadata.attempts[-1].number

    async def acquire_if_needed(self) -> None:
        """``acquire`` off the event loop, unless the run is locked already."""
        if not self.is_acquired:
            await to_thread.run_sync(self.acquire)

    # Places ---------------------------------------------------------------------------------------

    @property
    def metadata_path(self) -> Path:
        """``metadata.json``."""
        return self.directory / METADATA

    @property
    def journal_directory(self) -> Path:
        """The directory of the journal."""
        return self.directory / JOURNAL

    @property
    def best_checkpoint_path(self) -> Path:
        """The policy with the highest evaluated mean reward."""
        return self._bests.path

    # Checkpoints ----------------------------------------------------------------------------------

    def publish_step(self, staged: Mapping[str, Any], step: int, retention: Retention | None = None) -> None:
        """Write a staged checkpoint, link ``latest`` to it, and remove what is not kept.

        That is old step checkpoints, and parts of the journal that none of the newest needs. Left out,
        ``retention`` keeps all.
        """
        retention = _ALL if retention is None else retention
        self._publish_step(staged, step, retention)
        self.prune_journal(retention)

    def publish_best(self, staged: Mapping[str, Any], retention: Retention | None = None) -> None:
        """Write the staged weights of an evaluated policy, if it is one of the best that are kept."""
        self._bests.publish(staged, 1 if retention is None else retention.best)

    def bests(self) -> list[tuple[float, int]]:
        """Value and step of the best policies, the best first."""
        return self._bests.scores()

    def load_best_score(self) -> tuple[float, int] | None:
        """The value and step of ``best``, or None if there is none.

        They are read from the file. If it does not load or is gone, a warning is logged, and they come from
        the metadata.
        """
        names = files.files_in(self.checkpoints_directory)
        if scores := self.bests():
            return scores[0]
        value, step = self.metadata.best_value, self.metadata.best_step
        if value is None or step is None:
            return None
        if layout.BEST not in names and not layout.best_steps_of(names):
            logger.warning(
                "%s is gone, the policy of step %d with mean reward %g: only a higher one is saved as best; "
                "put a copy back if there is one",
                self.best_checkpoint_path,
                step,
                value,
            )
        return value, step

    def candidates(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The same; a run that never had a checkpoint yields none, and starts from the beginning.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads.
            CheckpointNotFound: There is none, and there was one.
        """
        found = False
        for candidate in super().candidates():
            found = True
            yield candidate
        if not found and (sign := self.sign_of_lost_checkpoints()) is not None:
            raise CheckpointNotFound(
                f"{self.checkpoints_directory} has no step checkpoint any more: {sign}; put one back, or "
                "start a new run with `stoker train`"
            )

    def sign_of_lost_checkpoints(self) -> str | None:
        """Evidence that a run without step checkpoints had some, in words, or None. Blocks.

        ``best.pt`` is none: an evaluation may come before the first checkpoint.
        """
        if self.has_checkpoint():
            return None
        names = files.files_in(self.checkpoints_directory)
        for attempt in reversed(self.metadata.attempts):
            if attempt.from_steps:
                return f"attempt {attempt.number} began with one of step {attempt.from_steps}"
        if self.metadata.forked_at_step is not None:
            return f"it was forked with one of step {self.metadata.forked_at_step}"
        if aside := layout.set_aside_of(names):
            return f"{aside[-1]} is what was set aside"
        return "some were written" if layout.PUBLISHED in names else None

    def has_checkpoint(self) -> bool:
        """Whether there is a step checkpoint, by its name. Blocks."""
        names = files.files_in(self.checkpoints_directory)
        return layout.LATEST in names or bool(layout.steps_of(names))

    def load_newest(self) -> dict[str, Any] | None:
        """The content of the first of the ``candidates``, or None."""
        return next((state for _, state in self.candidates()), None)

    def begin_from(self, step: int) -> None:
        """Make that step the newest of the run, and ``best.pt`` the best policy."""
        super().begin_from(step)
        self._bests.relink()

    async def prune_checkpoints(self, keep: int, every: int = 0) -> list[int]:
        """Remove all step checkpoints but the newest ``keep``; never ``latest`` or ``best``.

        Args:
            keep: how many.
            every: also keep those at multiples of this many steps; 0: none.

        Returns:
            The steps that were removed.

        Raises:
            ConfigError: A number is negative.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: keep 0 or more checkpoints")
        await self.acquire_if_needed()
        doomed = Retention(last=keep, every=every).doomed(self.checkpoint_steps())
        await to_thread.run_sync(remove_all, list(map(self.checkpoint_path, doomed)))
        return doomed

    # Journal --------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """What the run's journal holds, without the abandoned futures of its attempts."""
        starts = [(attempt.number, attempt.from_events) for attempt in self.metadata.attempts]
        return Journal(self.journal_directory, starts)

    def begin_journal(self) -> None:
        """Make room for the present attempt's segments. Blocks.

        Segments of this attempt or later ones come from a process whose metadata was lost: they are renamed
        to ``<name>.abandoned``.
        """
        files.make_directory(self.journal_directory)
        for segment in self.journal.segments():
            if segment.attempt >= self.attempt:
                files.move_aside(segment.path, ".abandoned")

    def open_segment(self, first_event: int) -> AppendLog:
        """The file for the journal's events from that number on, in the present attempt."""
        return AppendLog(self.journal_directory / segment_name(self.attempt, first_event))

    def prune_journal(self, retention: Retention) -> list[Path]:
        """Remove the segments that none of the newest checkpoints needs, and return them. Blocks.

        Checkpoints that are kept for their number or as ``best`` do not count. As long as this object has
        neither written nor read one of the newest, nothing is removed.
        """
        return remove_all(self._doomed_segments(retention, load=False))

    def _doomed_segments(self, retention: Retention, *, load: bool) -> list[Path]:
        if retention.all_journal:
            return []
        needed = self._needed_from(retention, load=load)
        return [] if needed is None else self.journal.doomed(needed)

    def doomed(self, retention: Retention) -> list[Path]:
        """The files that ``prune`` would remove: step checkpoints, then segments. Blocks."""
        steps = retention.doomed(self.checkpoint_steps())
        return [*map(self.checkpoint_path, steps), *self._doomed_segments(retention, load=True)]

    def prune(self, retention: Retention) -> list[Path]:
        """Remove step checkpoints that are not kept, and segments that none of the newest needs. Blocks.

        Checkpoints are read if it is not known what they need of the journal.

        Returns:
            The removed files.

        Raises:
            RunLocked: Another process writes the run.
            CheckpointCorrupt: One of the newest does not load; nothing was removed.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        self.acquire()
        return remove_all(self.doomed(retention))
