"""What a training can go on from: a run's lock, its checkpoints and its journal.

``TrainingRun`` adds what people read: config, metadata and rows. Calls that are not awaited block: they are
for the threads of the session and its writer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anyio import to_thread

import stoker.runs.naming as naming
from stoker.errors import CheckpointNotFound, ConfigError, RunLocked
from stoker.journal import JOURNAL, Journal, segment_name
from stoker.runs.bests import Bests
from stoker.runs.checkpoints import Checkpoints, remove_all
from stoker.runs.locating import METADATA, read_metadata
from stoker.runs.locking import RunLock, holder_of
from stoker.runs.metadata import RunMetadata
from stoker.runs.processes import Holder
from stoker.runs.retention import Retention
from stoker.writer import AppendLog, files

__all__ = ["SavedTraining"]

logger = logging.getLogger("stoker.runs")
_ALL = Retention(last=None, all_journal=True)
_RUNNING = "with another session on this very run object"
_GIVEN_UP = "in which a session was given up while a thread of it may still write"
_never_released: list[RunLock | None] = []  # a lock that nobody has any more would be given back


class SavedTraining:
    """The part of a run that a training goes on from.

    Args:
        directory: the run's.
        metadata: as it was read.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        self.directory = directory.absolute()
        """Where it lies, whatever the working directory becomes; symbolic links in it are kept."""
        self.metadata = metadata
        """As of the last read or write."""
        self.is_new = False
        """Whether it was created here and nobody has begun to train on it: nothing to go on from."""
        self.on_disk = metadata
        """The metadata that is on disk, as far as this object knows."""
        self._checkpoints = Checkpoints(self.checkpoints_directory)
        self._bests = Bests(self.checkpoints_directory, lambda: self.is_acquired)
        self._lock: RunLock | None = None
        self._session: str | None = None  # what it is that has this object, in words
        self._turn = threading.Lock()

    # Who writes -----------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Lock the run for this object; nothing happens if it has. Blocks.

        Then the metadata is what it is on disk now, since somebody else may have gone on meanwhile, and what
        a crash left half written is cleared away.

        Raises:
            RunLocked: Somebody else writes it, in this process or another; the message names who.
            RunBroken: Its metadata cannot be read.
            WriteFailed: Nothing can be written there.
        """
        with self._turn:
            self._acquire()

    def release(self) -> None:
        """Unlock the run; nothing happens if it is not locked, or as long as a session has it."""
        with self._turn:
            if self._session is None:
                self._release()

    def begin_session(self) -> None:
        """Lock the run for a session that writes it: one at a time, on this object too. Blocks.

        Each that begins must end with ``end_session``; one that was refused must not.

        Raises:
            RunLocked: Another session has it, on this object or elsewhere; or one on this object was given
                up with a thread that may still write.
            RunBroken, WriteFailed: As for ``acquire``.
        """
        with self._turn:
            if self._session is not None and self.is_acquired:
                raise RunLocked(self.directory, f"{self.holder() or 'this process'}, {self._session}")
            self._acquire()
            self._session = _RUNNING

    def end_session(self, settled: bool) -> None:
        """Let go of the run; nothing happens if no session has it.

        Args:
            settled: whether nothing of the session can write any more. If not, the run stays locked for the
                life of this process.
        """
        with self._turn:
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
        """Who has the run locked now, in words or as what it says of itself; None: nobody. Blocks."""
        return holder_of(self.directory)

    @property
    def attempt(self) -> int:
        """The number of the present attempt."""
        return self.metadata.attempts[-1].number

    async def acquire_if_needed(self) -> None:
        """``acquire`` off the event loop, where it has not happened yet."""
        if not self.is_acquired:
            await to_thread.run_sync(self.acquire)

    # Places ---------------------------------------------------------------------------------------

    @property
    def metadata_path(self) -> Path:
        """``metadata.json``."""
        return self.directory / METADATA

    @property
    def checkpoints_directory(self) -> Path:
        """Where checkpoints lie."""
        return self.directory / naming.CHECKPOINTS

    @property
    def journal_directory(self) -> Path:
        """Where the journal lies."""
        return self.directory / JOURNAL

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint at that step lies, or would.

        Raises:
            ConfigError: The step is negative.
        """
        return self._checkpoints.path(step)

    @property
    def latest_checkpoint_path(self) -> Path:
        """The newest step checkpoint whose checksum is right, read if need be; ``latest.pt`` if none is."""
        return self._checkpoints.latest

    @property
    def best_checkpoint_path(self) -> Path:
        """The policy with the highest evaluated mean reward."""
        return self._bests.path

    def checkpoint_steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        return self._checkpoints.steps()

    # Checkpoints ----------------------------------------------------------------------------------

    def publish_step(self, staged: Mapping[str, Any], step: int, retention: Retention | None = None) -> None:
        """Write a staged checkpoint, name it ``latest`` too, and remove what is no longer kept.

        That goes for step checkpoints, and for the parts of the journal that none of the newest ones needs.
        Left out, ``retention`` keeps all.
        """
        retention = _ALL if retention is None else retention
        self._checkpoints.publish(staged, step, retention)
        self.prune_journal(retention)

    def publish_best(self, staged: Mapping[str, Any], retention: Retention | None = None) -> None:
        """Write the staged weights of an evaluated policy, if it is one of the best that are kept."""
        self._bests.publish(staged, 1 if retention is None else retention.best)

    def bests(self) -> list[tuple[float, int]]:
        """Value and step of the best policies that there are, the best first."""
        return self._bests.scores()

    def load_best_score(self) -> tuple[float, int] | None:
        """The value of ``best`` and the steps behind it, or None where there is none.

        It is read from the file itself. If it does not load or is gone, a warning is logged, and the
        metadata says what to beat.
        """
        names = files.files_in(self.checkpoints_directory)
        if scores := self.bests():
            return scores[0]
        value, step = self.metadata.best_value, self.metadata.best_step
        if value is None or step is None:
            return None
        if naming.BEST not in names and not naming.best_steps_of(names):
            logger.warning(
                "%s is gone, the policy of step %d with mean reward %g: only a higher one is saved as best; "
                "put a copy back if there is one",
                self.best_checkpoint_path,
                step,
                value,
            )
        return value, step

    def candidates(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The checkpoints that a resume may begin from, with their contents, the newest first.

        Those that do not load are logged. They stay as they are until ``begin_from`` says that another one
        was taken. A run that never had a checkpoint gives none: it starts from the beginning.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads.
            CheckpointNotFound: There is none, and there was one.
        """
        found = False
        for candidate in self._checkpoints.candidates():
            found = True
            yield candidate
        if not found and (sign := self.sign_of_lost_checkpoints()) is not None:
            raise CheckpointNotFound(
                f"{self.checkpoints_directory} has no step checkpoint any more: {sign}; put one back, or "
                "start a new run with `stoker train`"
            )

    def sign_of_lost_checkpoints(self) -> str | None:
        """What says that there were step checkpoints, where there is none now; None: nothing does. Blocks.

        ``best.pt`` says nothing of it: an evaluation may come before the first checkpoint.
        """
        names = files.files_in(self.checkpoints_directory)
        if naming.LATEST in names or naming.steps_of(names):
            return None
        for attempt in reversed(self.metadata.attempts):
            if attempt.from_steps:
                return f"attempt {attempt.number} began with one of step {attempt.from_steps}"
        if self.metadata.forked_at_step is not None:
            return f"it was forked with one of step {self.metadata.forked_at_step}"
        if aside := naming.set_aside_of(names):
            return f"{aside[-1]} is what was set aside"
        return "some were written" if naming.PUBLISHED in names else None

    def load_newest(self) -> dict[str, Any] | None:
        """The first of the ``candidates``, or None where there is none."""
        return next((state for _, state in self.candidates()), None)

    def begin_from(self, step: int) -> None:
        """Let that step be where the run stands, a checkpoint that was good.

        Those that were not are renamed to ``<name>.broken``, those beyond it to ``<name>.abandoned``.
        """
        self._checkpoints.begin_from(step)
        self._bests.mend()

    async def prune_checkpoints(self, keep: int, every: int = 0) -> list[int]:
        """Remove all step checkpoints but the newest ``keep``; never ``latest`` or ``best``.

        Args:
            keep: how many.
            every: those at multiples of so many steps stay as well; 0: none.

        Returns:
            The steps that were removed.

        Raises:
            ConfigError: A number is negative.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: keep 0 or more checkpoints")
        retention = Retention(last=keep, every=every)
        await self.acquire_if_needed()
        return await to_thread.run_sync(self._checkpoints.prune, retention)

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
        """Remove the segments that none of the newest checkpoints needs. Blocks.

        Checkpoints that are kept for their number or as ``best`` do not count. As long as one of the newest
        was neither written nor read by this object, nothing is removed.

        Returns:
            What was removed.
        """
        doomed = self.doomed_segments(retention, load=False)
        remove_all(doomed)
        return doomed

    def doomed_segments(self, retention: Retention, *, load: bool) -> list[Path]:
        """The segments that ``prune_journal`` would remove; with ``load``, checkpoints are read for it."""
        if retention.all_journal:
            return []
        needed = self._checkpoints.needed_from(retention, load=load)
        return [] if needed is None else self.journal.doomed(needed)

    def doomed(self, retention: Retention) -> list[Path]:
        """What ``prune`` would remove: step checkpoints, then segments. Blocks."""
        steps = retention.doomed(self.checkpoint_steps())
        return [*map(self.checkpoint_path, steps), *self.doomed_segments(retention, load=True)]

    def prune(self, retention: Retention) -> list[Path]:
        """Remove step checkpoints that are not kept, and segments that none of the newest needs. Blocks.

        Checkpoints are read where it is not known what they need of the journal.

        Returns:
            What was removed.

        Raises:
            RunLocked: Somebody else writes the run.
            CheckpointCorrupt: One of the newest does not load; nothing was removed.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        self.acquire()
        doomed = self.doomed(retention)
        remove_all(doomed)
        return doomed
