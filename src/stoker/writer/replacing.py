"""Files that always hold the latest value of something, such as a run's metadata.

The writer task puts values in; a task of this part writes the newest of each, whole, in its own thread,
so that logs are made durable meanwhile. Two things can be waited for: that a value can be read under the
file's name, and that it stays there after a power cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import anyio
import msgspec

import stoker.writer.files as files
from stoker.threads import DedicatedThread
from stoker.writer.activities import Activities

__all__ = ["Replacer", "metered"]


class Replacer:
    """Values by path, and the task that writes them.

    Args:
        activities: where it says what it is at.
        interval_s: files are rewritten at most this often, unless ``begin`` is called.
    """

    def __init__(self, activities: Activities, interval_s: float) -> None:
        self._activities = activities
        self._interval_s = interval_s
        self._thread = DedicatedThread("stoker-replace")
        self._latest: dict[Path, Any] = {}
        self._n_put = self._n_readable = self._n_durable = 0
        self._wanted = anyio.Event()
        self._changed = anyio.Event()
        self._lag_s: float | None = None
        self._is_closed = False
        self.began_at = time.monotonic()
        """When it last began to write, in seconds of ``time.monotonic``."""

    def put(self, path: Path, value: Any) -> None:
        """Let the file hold this value as JSON, in place of any value that was put earlier."""
        self._latest[path] = value
        self._n_put += 1

    @property
    def due_at(self) -> float | None:
        """When ``begin`` is to be called; None: nothing waits, or it was called already."""
        if not self._latest or self._wanted.is_set():
            return None
        return self.began_at + (self._interval_s if self._lag_s is None else self._lag_s)

    def hurry(self, lag_s: float) -> None:
        """Let what waits be due so long after the last time."""
        self._lag_s = min(lag_s, self._interval_s)

    def begin(self) -> None:
        """Write what waits, now."""
        if self._latest:
            self._wanted.set()

    async def readable(self) -> None:
        """Return when every value put so far, or a later one, can be read under its file's name."""
        await self._until(lambda n_put=self._n_put: self._n_readable >= n_put)

    async def durable(self) -> None:
        """Return when every value put so far, or a later one, is in its file for good."""
        await self._until(lambda n_put=self._n_put: self._n_durable >= n_put)

    async def run(self) -> None:
        """Write whenever told to, until closed.

        Raises:
            WriteFailed: The disk refused.
        """
        while not self._is_closed:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            latest, self._latest = self._latest, {}
            n_put, self._lag_s = self._n_put, None
            self.began_at = time.monotonic()
            for path, value in latest.items():
                meter = files.Meter()
                work = partial(files.put_in_place, path, _json_writer(value))
                with self._activities.at(f"writing {path.name}", partial(getattr, meter, "n_bytes")):
                    await self._thread.run(metered, meter, work)
            self._n_readable = n_put
            self._tell()
            for directory in dict.fromkeys(path.parent for path in latest):
                with self._activities.at(f"syncing {directory.name}"):
                    await self._thread.run(files.sync_directory, directory)
            self._n_durable = n_put
            self._tell()

    def close(self) -> None:
        """Let ``run`` return, when all that was put is durable."""
        self._is_closed = True
        self._wanted.set()

    async def settle(self, timeout_s: float) -> bool:
        """Wait until it does not touch the disk, but no longer than that; say whether that is so."""
        return await self._thread.settle(timeout_s)

    def shutdown(self) -> None:
        """Let its thread end after what it has to do."""
        self._thread.release()

    async def _until(self, is_done: Callable[[], bool]) -> None:
        self.begin()
        while not is_done():
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def metered(meter: files.Meter, work: Callable[[], None]) -> None:
    """Do the work, counting what it writes."""
    with files.metered(meter):
        work()


def _json_writer(value: Any) -> Callable[[IO[bytes]], int]:
    pretty = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return lambda file: file.write(pretty)
