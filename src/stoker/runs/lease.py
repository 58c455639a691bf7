"""A run's lease: a token that only grows, so that a process thought dead cannot write when it comes back.

    .lease.<token>   the process that holds the run; it counts up in its own file while it lives

``flock`` is no fence where machines share a directory: a file system may not have it, or may give a lock away
while its holder is cut off. The holder of token N may write as long as ``.lease.N`` exists. To take over, a
process makes ``.lease.N+1``, which only one can, removes ``.lease.N``, and only then reads and writes: it
removes staged files and replaces the files that grow by copies (see ``stoker.writer.fencing``). No clocks of
machines are compared: who wants to take over watches for a whole lease time of its own clock whether the
file changes. A holder that the lock proves dead, because it ran under the same kernel, is not watched.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from stoker.errors import RunFenced, RunLocked, WriteFailed
from stoker.journal import JOURNAL
from stoker.journal.segments import parse_segment_name
from stoker.runs.holders import Holder, boot_id
from stoker.writer import files
from stoker.writer.fencing import fence, unfence

_logger = logging.getLogger("stoker.runs")

LEASE_S = 15.0
"""A holder whose file has not changed for so long may be replaced."""
_RENEWALS = 5
"""How often a holder renews within that time."""
_LOOK_S = 0.1
_TRIES = 20
_PATIENCE_S = 5.0
"""How long a release waits for a renewal that hangs."""
_FILE_BYTES = 1024
_NAME = re.compile(r"\.lease\.([1-9]\d*)", re.ASCII)
_GONE = {errno.ENOENT, errno.ESTALE}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNKNOWN = "an unknown process"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a lease's file.

    Attributes:
        token: its number; that of a later holder is higher.
        holder: the process.
        boot: names the kernel that it runs under.
        lease_s: how long others wait for a sign of life, in seconds.
        renewals: counts up while it lives.
        is_released: whether it gave the run back.
    """

    token: int
    holder: Holder
    boot: str
    lease_s: float
    renewals: int = 0
    is_released: bool = False


class RunLease:
    """A lease that is held. Get it from ``take``; a thread renews it until ``release``.

    Attributes:
        directory: what is held.
    """

    def __init__(self, directory: Path, descriptor: int, lease: Lease) -> None:
        self.directory = directory
        self._descriptor = descriptor
        self._lease = lease
        self._path = _path_of(directory, lease.token)
        self._released = threading.Event()
        self._lost: str | None = None  # to whom
        self._thread = threading.Thread(target=self._renew, name="stoker-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, directory: Path, holder: Holder, *, has_lock: bool) -> RunLease | None:
        """Take the lease of a directory. Blocks, for a lease time where its last holder may be alive.

        Args:
            directory: to be held.
            holder: this process.
            has_lock: whether this process has the directory's ``flock``: under the same kernel nobody else
                who took it is alive then.

        Returns:
            None: the disk is full, and the lock alone must do, so that room can be made.

        Raises:
            RunLocked: Its holder is alive; the message names it.
            WriteFailed: Nothing can be written there.
        """
        for _ in range(_TRIES):
            there = _leases_in(directory)
            silent = {token: raw for token, raw in there.items() if _may_live(raw, has_lock=has_lock)}
            if silent and not _stay_silent(directory, there, silent):
                continue
            path = _path_of(directory, max(there, default=0) + 1)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:  # another process was faster
                continue
            except OSError as error:
                if has_lock and error.errno in _FULL:
                    _logger.warning("%s could not be made (%s): only the lock protects the run", path, error)
                    return None
                raise
            token = int(path.suffix[1:])
            lease = Lease(token=token, holder=holder, boot=boot_id(), lease_s=LEASE_S)
            taken = cls(directory, descriptor, lease)
            try:
                if taken._replace_lower(was_silent=bool(silent)):
                    return taken
            except BaseException:
                taken.release()
                raise
            taken.release()
            files.remove_all([path])
        raise RunLocked(directory, f"{_UNKNOWN} that takes it over just now")

    def _replace_lower(self, *, was_silent: bool) -> bool:
        """Let nobody write but this holder; False if there is a higher lease."""
        try:
            self._write()
        except OSError as error:  # on a full disk it stays empty: others watch whether that changes
            _logger.warning("%s could not be written (%s)", self._path, error)
        token = self._lease.token
        lower = [other for other in _leases_in(self.directory) if other < token]
        if max(_leases_in(self.directory)) > token:
            return False
        files.remove_all(_path_of(self.directory, other) for other in lower)
        fence(self.directory, self.check)
        if was_silent:
            _replace_growing(self.directory)
        return True

    @property
    def is_lost(self) -> bool:
        """Whether another process was found to have taken over."""
        return self._lost is not None

    def raise_if_lost(self) -> None:
        """As ``check``, by what is known already: for an event loop. Found within a fifth of the lease time.

        Raises:
            RunFenced: Another process has taken over.
        """
        if self._lost is not None:
            raise RunFenced(self.directory, self._lease.token, self._lost)

    def check(self) -> None:
        """Return if this process may write: nobody had taken over when this was called. Blocks.

        Raises:
            RunFenced: Another process has taken over, now or earlier.
            WriteFailed: The system does not say.
        """
        self.raise_if_lost()
        try:
            # Opened, not only looked for: a network file system asks its server then, not its own memory.
            os.close(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in _GONE or not self.directory.is_dir():
                raise WriteFailed(self._path, error) from error
            newest = newest_lease(self.directory)
            self._lost = _UNKNOWN if newest is None else str(newest[0].holder)
            self.raise_if_lost()

    def release(self) -> None:
        """Give the directory back, unless it was lost; a second call does nothing."""
        if self._released.is_set():
            return
        self._released.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_S)
            if self._thread.is_alive():
                _logger.warning("%s: the disk does not answer; the lease is not given back", self._path)
                return
        unfence(self.directory)
        self._lease = msgspec.structs.replace(self._lease, is_released=True)
        try:
            if not self.is_lost:
                self._write()
        except OSError as error:
            _logger.warning("%s could not be released (%s): the next holder waits", self._path, error)
        finally:
            os.close(self._descriptor)

    def _renew(self) -> None:
        problem = ""
        while not self._released.wait(self._lease.lease_s / _RENEWALS):
            self._lease = msgspec.structs.replace(self._lease, renewals=self._lease.renewals + 1)
            try:
                self.check()
                self._write()
                problem = ""
            except RunFenced as error:
                _logger.warning("%s", error)
                return
            except OSError as error:
                if not problem:
                    _logger.warning("%s cannot be renewed: %s", self._path, error)
                problem = str(error)

    def _write(self) -> None:
        """Write the own file, in place: one that was removed does not come back."""
        content = msgspec.json.encode(self._lease).ljust(_FILE_BYTES - 1) + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.fsync(self._descriptor)  # so that other machines see it


def newest_lease(directory: Path) -> tuple[Lease, float] | None:
    """The last lease of a directory, and when it was written, as a Unix time; None: there is none.

    By the clock of the machine or server that wrote it: to be shown, not to be relied on.
    """
    for token, raw in sorted(_leases_in(directory).items(), reverse=True):
        lease, stat = _decoded(raw), files.stat_of(_path_of(directory, token))
        if lease is not None and stat is not None:
            return lease, stat.st_mtime
    return None


def _path_of(directory: Path, token: int) -> Path:
    return directory / f".lease.{token}"


def _leases_in(directory: Path) -> dict[int, bytes]:
    """The content of each lease's file by its token."""
    names = [match for name in files.files_in(directory) if (match := _NAME.fullmatch(name))]
    found: dict[int, bytes] = {}
    for match in names:
        try:
            found[int(match[1])] = files.read_bytes(directory / match[0])
        except FileNotFoundError:  # removed since
            continue
    return found


def _decoded(raw: bytes) -> Lease | None:
    try:
        return msgspec.json.decode(raw, type=Lease)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _may_live(raw: bytes, *, has_lock: bool) -> bool:
    """Whether the process that wrote this may be alive. Half of a lease may be of one that is writing it."""
    if (lease := _decoded(raw)) is None:
        return True
    return not (lease.is_released or (has_lock and lease.boot == boot_id()))


def _stay_silent(directory: Path, before: Mapping[int, bytes], watched: Mapping[int, bytes]) -> bool:
    """Watch some of a directory's leases for a lease time; whether all are as they were. Blocks.

    Raises:
        RunLocked: One of them was renewed: its holder is alive.
    """
    leases = [lease for raw in watched.values() if (lease := _decoded(raw)) is not None]
    lease_s = max((lease.lease_s for lease in leases), default=LEASE_S)
    holder = str(leases[-1].holder) if leases else _UNKNOWN
    words = "%s is held by %s, which did not give it back; waiting for %g s to see whether it is alive"
    _logger.warning(words, directory, holder, lease_s)
    until = time.monotonic() + lease_s
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        now = _leases_in(directory)
        if now.keys() != before.keys():
            return False
        for token, raw in now.items():
            if raw != before[token]:
                lease = _decoded(raw)
                if lease is not None and lease.is_released:
                    return False
                raise RunLocked(directory, holder if lease is None else str(lease.holder))
    return True


def _replace_growing(directory: Path) -> None:
    """Put copies in the place of the files that a process, which may come back, appends to. Blocks.

    What it appends goes to a file without a name then. Rows come before the journal, which may be ahead.
    """
    journal = directory / JOURNAL
    segments = {name: numbers for name in files.files_in(journal) if (numbers := parse_segment_name(name))}
    paths = [directory / name for name in files.files_in(directory) if name.endswith(".jsonl")]
    paths += [journal / name for name in sorted(segments, key=lambda name: segments[name])[-1:]]
    for path in paths:
        with files.open_to_read(path) as file:
            files.write_atomically(path, partial(shutil.copyfileobj, file))
