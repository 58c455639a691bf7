"""Files that always hold the latest value, such as a run's metadata; rewritten now and then."""

from __future__ import annotations

import math
import time
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import anyio
import msgspec

import stoker.writer.files as files
from stoker.writer.logs import DiskThread


class Replacer:
    """Files that always hold the latest value, like a run's metadata; rewritten every ``interval_s``."""

    def __init__(self, interval_s: float) -> None:
        self.thread: DiskThread = DiskThread("stoker-replace")
        self._interval_s = interval_s
        self._latest: dict[Path, Any] = {}
        self._begun: dict[Path, Any] = {}
        self._unsynced: set[Path] = set()  # directories
        self._lock = anyio.Lock()
        self._began_at = time.monotonic()
        self._lag_s = math.inf

    def put(self, path: Path, value: Any) -> bool:
        """Let the file hold this value as JSON; return whether it is the first that waits."""
        self._latest[path] = value
        return len(self._latest) == 1

    @property
    def due_at(self) -> float:
        """When ``begin`` is due, in seconds of ``time.monotonic``."""
        return self._began_at + min(self._interval_s, self._lag_s) if self._latest else math.inf

    def hurry(self, lag_s: float) -> None:
        """Let what waits be due so long after the last time."""
        self._lag_s = lag_s

    def begin(self) -> None:
        """Count the next interval from now; ``write`` follows."""
        self._begun |= self._latest
        self._latest = {}
        self._began_at, self._lag_s = time.monotonic(), math.inf

    async def write(self) -> None:
        """Return when every value put before ``begin`` can be read under its file's name."""
        async with self._lock:
            begun, self._begun = self._begun, {}
            for path, value in begun.items():
                pretty = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
                write = partial(files.put_in_place, path, methodcaller("write", pretty))
                await self.thread.work(f"writing {path.name}", write)
                self._unsynced.add(path.parent)

    async def sync(self) -> None:
        """Return when every value written so far is in its file for good."""
        async with self._lock:
            while self._unsynced:
                directory = self._unsynced.pop()
                await self.thread.work(f"syncing {directory.name}", partial(files.sync_directory, directory))

    async def make_durable(self) -> None:
        """Return when every value put before ``begin`` is in its file for good."""
        await self.write()
        await self.sync()
