"""One writer per run: the lock of a run directory, and the process that holds it.

The lock is an ``flock`` on ``.lock``, which the system releases when its holder dies; the file describes the
holder. A forked child keeps its parent's lock alive: if the parent is known to be dead, a new file replaces
it. The file is not written through ``stoker.writer``: the lock is on the file, not on its name.

A pid alone does not identify a process: pids are reused, and other hosts and containers have their own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
import shlex
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path

import msgspec

from stoker.errors import RunLocked, WriteFailed
from stoker.runs.metadata import now

__all__ = ["LOCK", "Holder", "RunLock", "holder_of", "this_process"]

logger = logging.getLogger("stoker.runs")

LOCK = ".lock"
_GUARD = ".lock.guard"
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_MOST_BYTES = 4096
_PATIENCE_S = 0.5
"""For how long a lock is tried whose holder cannot be checked: ``holder_of`` takes it for a moment."""
_GUARD_S = 10.0
"""For how long it waits for others that lock at the same moment."""
_PAUSE_S = 0.01
_in_this_process = threading.Lock()
_PROC = Path("/proc")
_COMMAND_LENGTH = 80


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
        """Lock a run directory, or raise at once. Blocks only while another process is locking it.

        On a file system without locks a warning is logged, and nothing is locked.

        Raises:
            RunLocked: This process or another holds it; the message names the holder.
            WriteFailed: Nothing can be written there.
        """
        path = directory / LOCK
        try:
            with _guarded(directory):
                descriptor = _take(path)
        except OSError as error:
            if isinstance(error, RunLocked):
                raise
            raise WriteFailed(path, error) from error
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
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        holder = _read(descriptor)
        if holder is not None and holder.is_comparable:
            return None if holder.is_dead else holder
        # No description, or one that cannot be checked here: try the lock itself.
        if _try(fcntl.flock, descriptor, fcntl.LOCK_SH) is not False:
            return None
        return "an unknown process" if holder is None else holder
    finally:
        os.close(descriptor)


def _take(path: Path) -> int:
    """The descriptor of the locked file; called by one process at a time.

    Raises:
        RunLocked: A process holds it.
        OSError: The system refused.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.ExitStack() as closing:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            closing.callback(os.close, descriptor)
            locked = _try(fcntl.flock, descriptor, fcntl.LOCK_EX)
            holder = None if locked else _read(descriptor)
            if locked is None and (holder is None or not holder.is_comparable or holder.is_dead):
                logger.warning("%s: this file system has no locks: write it from one process only", path)
                locked = True
            if locked:
                _describe(descriptor)
                closing.pop_all()
                return descriptor
            if holder is not None and holder.is_dead:
                return _replace(path)
        if (holder is not None and holder.is_comparable) or time.monotonic() >= deadline:
            raise RunLocked(path.parent, "an unknown process" if holder is None else str(holder))
        time.sleep(_PAUSE_S)


def _replace(path: Path) -> int:
    """Put a fresh file that is locked in place of one that a dead process's child still locks."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _describe(descriptor)
        os.replace(beside, path)  # noqa: PTH105 - as everything here, the system's own call
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try(lock: Callable[[int, int], None], descriptor: int, kind: int) -> bool | None:
    """Whether the lock was taken; None: this file system has no locks."""
    try:
        lock(descriptor, kind | fcntl.LOCK_NB)
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
    described = msgspec.json.encode(this_process()) + b"\n"
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
    # In a forked child the description and the lock are the parent's.
    if os.getpid() == pid:
        with contextlib.suppress(OSError):  # closing unlocks as well
            os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextlib.contextmanager
def _guarded(directory: Path) -> Generator[None]:
    """Let one process at a time read and change the lock.

    By a record lock, which no child inherits; it does not exclude other threads, so a thread lock as well.

    Raises:
        RunLocked: Another process holds it for too long.
        OSError: The system refused.
    """
    busy = RunLocked(directory, "a process that is just locking it")
    deadline = time.monotonic() + _GUARD_S
    if not _in_this_process.acquire(timeout=_GUARD_S):
        raise busy
    try:
        descriptor = os.open(directory / _GUARD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while _try(fcntl.lockf, descriptor, fcntl.LOCK_EX) is False:
                if time.monotonic() >= deadline:
                    raise busy
                time.sleep(_PAUSE_S)
            yield
        finally:
            os.close(descriptor)
    finally:
        _in_this_process.release()


# Which process is which ------------------------------------------------------------------------------


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a lock; also the content of the lock file.

    Attributes:
        pid: its number, as it sees it.
        host: where it runs.
        machine: the scope of ``pid``: this boot of the host, this namespace of process numbers.
        started: when the process began, in the kernel's clock ticks; None if that is not known.
        since: when it took the lock, RFC 3339, UTC.
        command: its command line, shortened.
    """

    pid: int
    host: str
    machine: str
    started: int | None
    since: datetime
    command: str

    def __str__(self) -> str:
        this = " (this very process)" if self.is_this_process else ""
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"process {self.pid} on {self.host}{this}, since {since} ({self.command})"

    @property
    def is_this_process(self) -> bool:
        """Whether it is the calling process."""
        return self.pid == os.getpid() and self.is_comparable and self.started == _started(self.pid)

    @property
    def is_comparable(self) -> bool:
        """Whether its pid can be looked up here: the same boot of the same host, the same namespace."""
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether that process is certainly gone; False if that is unknown."""
        if not self.is_comparable:
            return False
        if _has_vanished(self.pid):
            return True
        return self.started is not None and self.started != _started(self.pid)


def this_process() -> Holder:
    """The current process, as the holder of a lock that it takes now."""
    command = shlex.join(sys.orig_argv)
    if len(command) > _COMMAND_LENGTH:
        command = command[: _COMMAND_LENGTH - 3] + "..."
    return Holder(
        pid=os.getpid(),
        host=platform.node(),
        machine=_machine(),
        started=_started(os.getpid()),
        since=now(),
        command=command,
    )


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:  # no /proc, as on macOS
        return platform.node()


def _started(pid: int) -> int | None:
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[19])


def _has_vanished(pid: int) -> bool:
    fields = _stat_fields(pid)
    if fields is not None and fields[0] in "ZX":
        # Killed and not yet reaped. Its other threads may still be inside a system call.
        try:
            return len(list((_PROC / str(pid) / "task").iterdir())) <= 1
        except OSError:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, and alive
        return False
    return False


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` after the name, which may hold spaces; the first is the state."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
