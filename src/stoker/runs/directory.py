"""A run's directory: its metadata, its places, and who writes it: one process, and in it one session."""

from __future__ import annotations

import threading
from pathlib import Path

from anyio import to_thread

from stoker.errors import RunLocked
from stoker.journal import JOURNAL
from stoker.runs.holders import Holder
from stoker.runs.layout import CHECKPOINTS, METADATA
from stoker.runs.locking import RunLock, holder_of
from stoker.runs.metadata import RunMetadata, read_metadata
from stoker.writer import files

_RUNNING = "with another session on this very run object"
_GIVEN_UP = "in which a session was abandoned while one of its threads may still write"
_never_released: list[RunLock | None] = []  # a lock that is collected would be released


class RunDirectory:
    """A run's directory, its metadata, and who writes it.

    Args:
        directory: of the run.
        metadata: as it was read.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        self.directory: Path = directory.absolute()
        """The absolute path of the run; symbolic links in it are kept."""
        self.metadata_path: Path = self.directory / METADATA
        """``metadata.json``."""
        self.checkpoints_directory: Path = self.directory / CHECKPOINTS
        """The directory of checkpoints."""
        self.journal_directory: Path = self.directory / JOURNAL
        """The directory of the journal."""
        self.metadata: RunMetadata = metadata
        """As of the last read or write."""
        self.is_new: bool = False
        """Whether this process created it and no training has begun: there is nothing to resume."""
        self.on_disk: RunMetadata = metadata
        """The metadata that is on disk, as far as this object knows."""
        self._lock: RunLock | None = None
        self._session: str | None = None  # a description of the session that has this object
        self._session_lock = threading.RLock()

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

    def release(self) -> None:
        """Unlock the run, unless a session has it; if it is not locked, nothing happens."""
        with self._session_lock:
            if self._session is None and self._lock is not None:
                self._lock.release()
                self._lock = None

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
            self.acquire()
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
                self.release()
            else:
                self._session = _GIVEN_UP
                _never_released.append(self._lock)

    @property
    def is_acquired(self) -> bool:
        """Whether this object has the run locked."""
        return self._lock is not None and self._lock.is_held

    def holder(self) -> Holder | str | None:
        """The process that has the run locked now, as a text if it is unknown, or None. Blocks."""
        return holder_of(self.directory)

    def raise_if_fenced(self) -> None:
        """Return unless another process is known to have taken the run over from this one.

        Raises:
            RunFenced: It has; this process must write nothing more.
        """
        if (lock := self._lock) is not None:
            lock.raise_if_lost()

    @property
    def attempt(self) -> int:
        """The number of the current attempt."""
        return self.metadata.attempts[-1].number

    async def acquire_if_needed(self) -> None:
        """``acquire`` off the event loop, unless the run is locked already."""
        if not self.is_acquired:
            await to_thread.run_sync(self.acquire)
