"""The lock of a run's directory: one process at a time writes it. All calls block.

It is an ``flock`` on ``.lock``, which the system releases when its holder dies, and a lease, for where
machines share the directory. The file describes the holder. A forked child would keep its parent's lock, so
it closes its copy at once. The file is not written through ``stoker.writer``: the lock is on the file, not on
its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
import weakref
from pathlib import Path

import msgspec

from stoker.errors import RunLocked
from stoker.runs.holders import Holder, boot_id, opened
from stoker.runs.lease import RunLease, newest_lease
from stoker.writer import files

_logger = logging.getLogger("stoker.runs")

LOCK = ".lock"
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_MOST_BYTES = 4096
_GLANCE_S = 0.05
"""For how long a lock is tried whose holder seems to run: ``holder_of`` takes it for a moment."""
_PATIENCE_S = 0.5
"""The same if none does: it may just be describing itself, or its forked child be about to close its copy."""
_PAUSE_S = 0.01
_SHOWN_LEASES = 2
"""A process on another machine counts as alive for so many lease times after its last renewal."""

_opening = threading.RLock()  # no fork comes between an open and the entry there


class RunLock:
    """A lock that is held. Get it from ``acquire``; it is also released when the object is collected.

    Attributes:
        directory: what is locked.
    """

    def __init__(self, directory: Path, descriptor: int, lease: RunLease | None) -> None:
        self.directory = directory
        self._lease = lease
        self._pid = os.getpid()
        self._give_back = weakref.finalize(self, _give_back, descriptor, lease, self._pid)

    @classmethod
    def acquire(cls, directory: Path) -> RunLock:
        """Lock a run directory, or raise.

        Blocks for half a second at most; but for a lease time (15 s) where a process that may be alive on
        another machine did not give the directory back. On a file system without locks, the lease alone
        decides, and that machine may be this one.

        Raises:
            RunLocked: This process or another holds it; the message names the holder.
            WriteFailed: Nothing can be written there.
        """
        path = directory / LOCK
        with files.refusals_of(path):
            with _opening:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                opened[descriptor] = None
            holder = Holder.here()
            try:
                if has_lock := _take(path, descriptor):
                    _describe(descriptor, holder)
                lease = RunLease.take(directory, holder, has_lock=has_lock)
                if not has_lock:
                    _describe(descriptor, holder)
            except BaseException:
                _close(descriptor)
                raise
        return cls(directory, descriptor, lease)

    @property
    def is_held(self) -> bool:
        """Whether it is held by this process; a child that was forked does not hold its parent's."""
        return self._give_back.alive and self._pid == os.getpid()

    def raise_if_lost(self) -> None:
        """Return unless another process is known to have taken the directory over.

        Raises:
            RunFenced: It has; this process must write nothing more.
        """
        if self._lease is not None:
            self._lease.raise_if_lost()

    def release(self) -> None:
        """Unlock; a second call does nothing."""
        self._give_back()


def holder_of(directory: Path) -> Holder | str | None:
    """The process that holds the lock of a run directory now; None: there is none. Writes nothing.

    A process on another machine, whose lock is not seen here, counts if it renewed its lease within the last
    half a minute, by the clocks of both: that is for showing.

    Returns:
        Its description; ``"an unknown process"`` if it could not write one.
    """
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        is_free = _try(descriptor, fcntl.LOCK_SH)
        if is_free is False:
            return _read(descriptor) or "an unknown process"
    finally:
        with contextlib.suppress(OSError):  # closing is not enough: a child forked just now has a copy
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
    if (newest := newest_lease(directory)) is not None:
        lease, renewed_at = newest
        is_over = lease.is_released or (is_free and lease.boot == boot_id())
        if not is_over and time.time() - renewed_at < _SHOWN_LEASES * lease.lease_s:
            return lease.holder
    return None


def _take(path: Path, descriptor: int) -> bool:
    """Lock an open file; False: this file system has no locks.

    Raises:
        RunLocked: A process holds it.
        OSError: The system refused.
    """
    began = time.monotonic()
    while not (locked := _try(descriptor, fcntl.LOCK_EX)):
        if locked is None:
            return False
        holder = _read(descriptor)
        patience_s = _GLANCE_S if holder is not None and holder.is_running else _PATIENCE_S
        if time.monotonic() - began >= patience_s:
            raise RunLocked(path.parent, str(holder or "an unknown process"))
        time.sleep(_PAUSE_S)
    return True


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


def _describe(descriptor: int, holder: Holder) -> None:
    """Write the holder into the file. On a full disk it stays empty: `stoker prune` must be able to lock."""
    os.ftruncate(descriptor, 0)
    opened[descriptor] = holder
    described = msgspec.json.encode(holder) + b"\n"
    problem = "there is no room"
    try:
        if os.pwrite(descriptor, described, 0) == len(described):
            return
    except OSError as error:
        problem = str(error)
    os.ftruncate(descriptor, 0)
    _logger.warning("the lock's holder could not be written into it (%s)", problem)


def _read(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, _MOST_BYTES, 0), type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError):
        return None


def _give_back(descriptor: int, lease: RunLease | None, pid: int) -> None:
    if os.getpid() != pid:  # a forked child has closed its copy
        return
    if lease is not None:
        lease.release()
    with contextlib.suppress(OSError):  # closing unlocks as well
        if lease is None or not lease.is_lost:  # else the file describes the next holder
            os.ftruncate(descriptor, 0)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    _close(descriptor)


def _close(descriptor: int) -> None:
    del opened[descriptor]
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in list(opened):
        with contextlib.suppress(OSError):  # the program has closed it; ``_opening`` must not stay taken
            _close(descriptor)
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_close_in_child)
