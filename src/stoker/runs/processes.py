"""Which process is which: enough to tell whether the one that wrote something down still lives.

A pid alone says little: it is reused, and it means something else on another host or in another container.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime
from pathlib import Path

import msgspec

from stoker.runs.metadata import now

__all__ = ["Holder", "this_process"]

_PROC = Path("/proc")
_COMMAND_LENGTH = 80


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a lock; also the content of the lock file.

    Attributes:
        pid: its number, as it sees it.
        host: where it runs.
        machine: within what ``pid`` is unique: this start of the host, this namespace of process numbers.
        started: when the process began, in the kernel's clock ticks; None where that is not known.
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
        """Whether it is the one that asks."""
        return self.pid == os.getpid() and self.is_comparable and self.started == _started(self.pid)

    @property
    def is_comparable(self) -> bool:
        """Whether its pid means something here: the same start of the same host, the same namespace."""
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether that process is certainly gone; False where that is unknown."""
        if not self.is_comparable:
            return False
        if _has_vanished(self.pid):
            return True
        return self.started is not None and self.started != _started(self.pid)


def this_process() -> Holder:
    """The present process, as the holder of a lock that it takes now."""
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
        # Killed and not yet waited for. Its other threads may still be inside a system call.
        try:
            return len(list((_PROC / str(pid) / "task").iterdir())) <= 1
        except OSError:
            return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        return False
    return False


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` behind the name, which may hold spaces; the first is the state."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
