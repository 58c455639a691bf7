"""Who holds a run: the description of a process, as its lock and its lease hold it."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from functools import cache
from pathlib import Path

import msgspec

from stoker.runs.metadata import now
from stoker.runs.processes import command_line

_COMMAND_LENGTH = 80

opened: dict[int, Holder | None] = {}
"""The lock files that this process has open, by descriptor, and what it wrote there."""


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

    @classmethod
    def here(cls) -> Holder:
        """This process, as of now."""
        command = command_line(most=_COMMAND_LENGTH)
        return cls(pid=os.getpid(), host=platform.node(), since=now(), command=command)

    @property
    def is_this_process(self) -> bool:
        """Whether it is the calling process, with a lock that it holds now."""
        return self in opened.values()  # a pid alone does not identify a process: containers have their own

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


@cache
def boot_id() -> str:
    """Names the running kernel: all containers of a machine have the same, until it starts again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return f"host {platform.node()}"
