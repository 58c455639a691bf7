"""A run's directory: one process at a time writes it, and in it one session.

The lock is an ``flock`` on ``.lock``, which the system releases when its holder dies; the file describes the
holder. A forked child would keep its parent's lock, so it closes its copy at once. The file is not written
through ``stoker.writer``: the lock is on the file, not on its name.

Calls that are not awaited block: they are for the threads of the session and its writer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
import threading
import time
import weakref
from datetime import datetime
from pathlib import Path

import msgspec
from anyio import to_thread

from stoker.errors import RunLocked
from stoker.journal import JOURNAL
from stoker.runs.layout import CHECKPOINTS, METADATA
from stoker.runs.metadata import RunMetadata, now, read_metadata
from stoker.runs.processes import command_line
from stoker.writer import files

__all__ = ["LOCK", "Holder", "RunDirectory", "RunLock", "holder_of"]

logger = logging.getLogger("stoker.runs")

LOCK = ".lock"
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_MOST_BYTES = 4096
_GLANCE_S = 0.05
"""For how long a lock is tried whose holder seems to run: ``holder_of`` takes it for a moment."""
_PATIENCE_S = 0.5
"""The same if none does: it may just be describing itself, or its forked child be about to close its copy."""
_PAUSE_S = 0.01
_COMMAND_LENGTH = 80
_RUNNING = "with another session on this very run object"
_GIVEN_UP = "in which a session was abandoned while one of its threads may still write"
_never_released: list[RunLock | None] = []  # a lock that is collected would be released

_opened: dict[int, Holder | None] = {}  # the lock files that this process has open, and what it wrote there
_opening = threading.RLock()  # no fork comes between an open and the entry there


class RunLock:
    """A lock that is held. Get it from ``acquire``; it is also released when the object is collected.

    Attributes:
        directory: what is locked.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        self.directory = directory
        self._pid = os.getpid()
        self._give_back = weakref.finalize(self, _give_back, descriptor, self._pid)

    @classmethod
    def acquire(cls, directory: Path) -> RunLock:
        """Lock a run directory, or raise. Blocks for half a second at most.

        On a file system without locks a warning is logged, and nothing is locked.

        Raises:
            RunLocked: This process or another holds it; the message names the holder.
            WriteFailed: Nothing can be written there.
        """
        path = directory / LOCK
        with files.refusals_of(path):
            with _opening:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                _opened[descriptor] = None
            try:
                _take(path, descriptor)
            except BaseException:
                _close(descriptor)
                raise
        return cls(directory, descriptor)

    @property
    def is_held(self) -> bool:
        """Whether it is held by this process; a child that was forked does not hold its parent's."""
        return self._give_back.alive and self._pid == os.getpid()

    def release(self) -> None:
        """Unlock; a second call does nothing."""
        self._give_back()


def holder_of(directory: Path) -> Holder | str | None:
    """The process that holds the lock of a run directory now; None: there is none. Writes nothing.

    Returns:
        Its description; ``"an unknown process"`` if it could not write one.
    """
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        is_free = _try(descriptor, fcntl.LOCK_SH) is not False
        return None if is_free else _read(descriptor) or "an unknown process"
    finally:
        with contextlib.suppress(OSError):  # closing is not enough: a child forked just now has a copy
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _take(path: Path, descriptor: int) -> None:
    """Lock an open file, and write the holder into it.

    Raises:
        RunLocked: A process holds it.
        OSError: The system refused.
    """
    began = time.monotonic()
    while not (locked := _try(descriptor, fcntl.LOCK_EX)):
        if locked is None:
            logger.warning("%s: this file system has no locks: write it from one process only", path)
            break
        holder = _read(descriptor)
        patience_s = _GLANCE_S if holder is not None and holder.is_running else _PATIENCE_S
        if time.monotonic() - began >= patience_s:
            raise RunLocked(path.parent, str(holder or "an unknown process"))
        time.sleep(_PAUSE_S)
    _describe(descriptor)


def _try(descriptor: int, kind: int) -> bool | None:
    """Whether the lock was taken; None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _describe(descriptor: int) -> None:
    """Write the holder into the file. On a full disk it stays empty: `stoker prune` must be able to lock."""
    os.ftruncate(descriptor, 0)
    command = command_line(most=_COMMAND_LENGTH)
    holder = Holder(pid=os.getpid(), host=platform.node(), since=now(), command=command)
    _opened[descriptor] = holder
    described = msgspec.json.encode(holder) + b"\n"
    problem = "there is no room"
    try:
        if os.pwrite(descriptor, described, 0) == len(described):
            return
    except OSError as error:
        problem = str(error)
    os.ftruncate(descriptor, 0)
    logger.warning("the lock's holder could not be written into it (%s)", problem)


def _read(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, _MOST_BYTES, 0), type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError):
        return None


def _give_back(descriptor: int, pid: int) -> None:
    if os.getpid() != pid:  # a forked child has closed its copy
        return
    with contextlib.suppress(OSError):  # closing unlocks as well
        os.ftruncate(descriptor, 0)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    _close(descriptor)


def _close(descriptor: int) -> None:
    del _opened[descriptor]
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in list(_opened):
        with contextlib.suppress(OSError):  # the program has closed it; ``_opening`` must not stay taken
            _close(descriptor)
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_close_in_child)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a lock; also the content of the lock file.

    Attributes:
        pid: its number, as it sees it.
        host: where it runs.
        since: when it took the lock, RFC 3339, UTC.
        command: its command line, shortened, without what looks like a secret.
    """

    pid: int
    host: str
    since: datetime
    command: str

    def __str__(self) -> str:
        this = " (this very process)" if self.is_this_process else ""
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"process {self.pid} on {self.host}{this}, since {since} ({self.command})"

    @property
    def is_this_process(self) -> bool:
        """Whether it is the calling process, with a lock that it holds now."""
        return self in _opened.values()  # a pid alone does not identify a process: containers have their own

    @property
    def is_running(self) -> bool:
        """Whether a process with its number runs on this host."""
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # another user's
            pass
        except (ProcessLookupError, OverflowError):
            return False
        return self.host == platform.node()


class RunDirectory:
    """A run's directory, its metadata, and who writes it.

    Args:
        directory: of the run.
        metadata: as it was read.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        self.directory = directory.absolute()
        """The absolute path of the run; symbolic links in it are kept."""
        self.metadata_path = self.directory / METADATA
        """``metadata.json``."""
        self.checkpoints_directory = self.directory / CHECKPOINTS
        """The directory of checkpoints."""
        self.journal_directory = self.directory / JOURNAL
        """The directory of the journal."""
        self.metadata = metadata
        """As of the last read or write."""
        self.is_new = False
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

    @property
    def attempt(self) -> int:
        """The number of the current attempt."""
        return self.metadata.attempts[-1].number

    async def acquire_if_needed(self) -> None:
        """``acquire`` off the event loop, unless the run is locked already."""
        if not self.is_acquired:
            await to_thread.run_sync(self.acquire)
