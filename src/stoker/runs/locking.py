"""One writer per run: the lock of a run directory, and the process that holds it.

The lock is an ``flock`` on ``.lock``, which the system releases when its holder dies; the file describes the
holder. A forked child would keep its parent's lock, so it closes its copy at once. The file is not written
through ``stoker.writer``: the lock is on the file, not on its name.

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
from datetime import datetime
from pathlib import Path

import msgspec

from stoker.errors import RunLocked, WriteFailed
from stoker.runs.metadata import now

__all__ = ["LOCK", "Holder", "RunLock", "holder_of", "this_process"]

logger = logging.getLogger("stoker.runs")

LOCK = ".lock"
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_MOST_BYTES = 4096
_PATIENCE_S = 0.5
"""For how long a lock is tried whose holder is not known to live.

``holder_of`` takes it for a moment, a new holder has not described itself yet, and a child that was just
forked has not closed its copy yet.
"""
_PAUSE_S = 0.01
_PROC = Path("/proc")
_STATE, _N_THREADS, _STARTED = 0, 17, 19  # fields of /proc/<pid>/stat after the name: see proc(5)
_COMMAND_LENGTH = 80

_descriptors: set[int] = set()  # the lock files that this process has open
_opening = threading.RLock()  # no fork comes between an open and the entry in that set


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
        try:
            with _opening:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                _descriptors.add(descriptor)
            try:
                _take(path, descriptor)
            except BaseException:
                _close(descriptor)
                raise
        except RunLocked:
            raise
        except OSError as error:
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
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        holder = _read(descriptor)
        if holder is not None and holder.is_comparable:
            return None if holder.is_dead else holder
        # No description, or one that cannot be checked here: try the lock itself.
        return None if _try(descriptor, fcntl.LOCK_SH) is not False else holder or "an unknown process"
    finally:
        os.close(descriptor)


def _take(path: Path, descriptor: int) -> None:
    """Lock an open file, and write the holder into it.

    Raises:
        RunLocked: A process holds it.
        OSError: The system refused.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not (locked := _try(descriptor, fcntl.LOCK_EX)):
        holder = _read(descriptor)
        is_alive = holder is not None and holder.is_comparable and not holder.is_dead
        if locked is None and not is_alive:
            logger.warning("%s: this file system has no locks: write it from one process only", path)
            break
        if is_alive or time.monotonic() >= deadline:
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
    if os.getpid() != pid:  # a forked child has closed its copy
        return
    with contextlib.suppress(OSError):  # closing unlocks as well
        os.ftruncate(descriptor, 0)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    _close(descriptor)


def _close(descriptor: int) -> None:
    _descriptors.discard(descriptor)
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in list(_descriptors):
        _close(descriptor)
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_close_in_child)


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
        fields = _stat_fields(self.pid)
        if fields is None:  # also where /proc hides the processes of other users, or there is no /proc
            return not _has_pid(self.pid)
        if self.started not in (None, int(fields[_STARTED])):
            return True
        # Killed and not yet reaped; but its other threads may still be inside a system call.
        return fields[_STATE] in "ZX" and int(fields[_N_THREADS]) <= 1


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
    return None if fields is None else int(fields[_STARTED])


def _has_pid(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` after the name, which may hold spaces."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
