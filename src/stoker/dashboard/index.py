"""The runs below a directory, read in worker threads as they grow, and kept while there is memory for them.

Each run is read by one thread at a time, and each byte of its files once. What was read of the runs that were
looked at longest ago is forgotten when all of it together is over the budget; it is read again on demand.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.abc import TaskGroup, TaskStatus

from stoker.dashboard.finding import Finder, id_of
from stoker.dashboard.looking import Look
from stoker.dashboard.memory import RowMemory
from stoker.dashboard.reading import Reading, RunEntry
from stoker.dashboard.viewers import Viewers
from stoker.protocol import ProtocolError

logger = logging.getLogger("stoker.dashboard")
T = TypeVar("T")

MEMORY_BYTES: Final = 512 << 20
INTERVAL_S: Final = 2.0
"""Seconds between two looks at the files, while somebody looks at the page; the page asks no sooner."""
_PAUSES = 20
"""The pause after a look lasts at least this many times as long as the look, however many runs there are."""

_THREADS = 3
_AT_ONCE = 50
"""Runs that are summed up between two chances for others."""
_LOOKS = 50
"""Runs without a writer that are looked at in one interval, in turn."""
_PLACES = 30
"""The same of directories that are no runs."""
_MOST_REMOVED = 10_000
_PATIENCE_S = 0.3
"""How long a request waits for the first scan; then it gets what there is."""


class Index:
    """The runs below a directory.

    Its methods are for one event loop; ``run`` must run there meanwhile.

    Args:
        root: the runs directory; a training may make it later.
        memory_bytes: what the columns of all runs may take; the run that is being looked at is kept.
        interval_s: seconds between two looks at the files, at least, while somebody looks at the page.

    Raises:
        ConfigError: It is no directory, or cannot be read.
    """

    def __init__(
        self, root: Path, *, memory_bytes: int = MEMORY_BYTES, interval_s: float = INTERVAL_S
    ) -> None:
        self._finder = Finder(root)
        self.root = self._finder.root
        self.memory_bytes = memory_bytes
        self.interval_s = interval_s
        self.entries: dict[str, RunEntry] = {}
        """Each run that was found, by its id."""
        self.is_scanned = False
        """Whether all of the root was looked at once."""
        self.version = 1
        """Rises when a summary of the list changes."""
        self.facts_version = 0
        """The version of the list in which more than the news of a run in it changed last."""
        self.nonce = secrets.token_hex(4)
        """Tells the versions of this index from those of one before it."""
        self.removed: list[tuple[int, str]] = []
        """Runs that are gone, each with the version of the list that is the first one without it."""
        self.viewers = Viewers()
        """Who waits for changes: while somebody does, the files are looked at."""
        self.known_from = 0
        """Of changes before that version it is not known which runs went."""
        self._limiter = CapacityLimiter(_THREADS)
        self._look_lock = anyio.Lock()
        self._scanned = anyio.Event()
        self._looked_at, self._pause_s = -math.inf, interval_s
        self._round: list[str] = []
        self._live: set[str] = set()
        self._memory = RowMemory(memory_bytes)
        self._tasks: TaskGroup | None = None
        self._closing = anyio.Event()

    # Life -----------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Scan the root, then look at the files while somebody looks at the page, until ``close``."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            self._tasks.start_soon(self._scan)
            while not self._closing.is_set():
                with anyio.move_on_after(self._pause_s):
                    await self._closing.wait()
                if self.viewers and self.is_scanned and not self._closing.is_set():
                    await self._look_on()
            self._tasks.cancel_scope.cancel()
        self._tasks = None

    def close(self) -> None:
        """Let ``run`` return, and wake every viewer."""
        self._closing.set()
        self.viewers.wake()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing.is_set()

    @property
    def is_running(self) -> bool:
        """Whether ``run`` runs."""
        return self._tasks is not None

    async def _scan(self) -> None:
        async with self._look_lock:
            try:
                await to_thread.run_sync(self._finder.find_all, limiter=self._limiter)
                self._take_found()
                new = sorted(self.entries.values(), key=lambda entry: entry.directory.name, reverse=True)
                for first in range(0, len(new), _AT_ONCE):
                    await self._look_at(new[first : first + _AT_ONCE])
            except Exception:  # what was found is shown, and looked at again
                logger.exception("not all runs below %s could be looked at", self.root)
            self.is_scanned = True
            self._scanned.set()
            self._raise_version()

    async def _look_on(self) -> None:
        """Look, and go on if that fails."""
        try:
            await self.look()
        except Exception:  # the next look may succeed
            logger.exception("the runs below %s could not be looked at", self.root)

    # Looking --------------------------------------------------------------------------------------

    async def until_scanned(self) -> None:
        """Wait a moment for the first scan."""
        with anyio.move_on_after(_PATIENCE_S):
            await self._scanned.wait()

    async def look(self, run_id: str | None = None) -> None:
        """Look at the files of the runs that may have changed, and take what is new into the list.

        A second look soon after another is left out, unless it is for one run.
        """
        if run_id is not None:
            await self._look_at([self.entry(run_id)], is_thorough=True)
            return
        if not self.is_scanned or time.monotonic() - self._looked_at < self._pause_s / 2:
            return
        async with self._look_lock:
            self._looked_at = time.monotonic()
            await self._look_at(self._due(), places=_PLACES)
            if self._finder.has_changed:
                self._take_found()
                await self._look_at([entry for entry in self.entries.values() if entry.look is None])
            self._pause_s = max(self.interval_s, _PAUSES * (time.monotonic() - self._looked_at))

    async def look_at_new(self, run_ids: Sequence[str]) -> None:
        """Look at those of these runs that were not looked at yet."""
        new = [entry for run_id in run_ids if (entry := self.entry(run_id)).look is None]
        if new:
            await self._look_at(new)

    def _due(self) -> list[RunEntry]:
        """The runs to look at now: those that are live or watched, and some of the others in turn."""
        if not self._round:
            self._round = list(self.entries)
        watched = (viewer.run_id for viewer in self.viewers if viewer.run_id is not None)
        due = dict.fromkeys((*self._live, *watched, *self._round[-_LOOKS:]))
        del self._round[-_LOOKS:]
        return [self.entries[run_id] for run_id in due if run_id in self.entries]

    async def _look_at(
        self, entries: Sequence[RunEntry], *, places: int = 0, is_thorough: bool = False
    ) -> None:
        """Look at the files of these runs, and at some directories, in a thread."""
        found = await to_thread.run_sync(self._looks, entries, places, is_thorough, limiter=self._limiter)
        changed = False
        for entry, (before, look) in zip(entries, found, strict=True):
            if look is before:  # nothing is new
                continue
            if look.is_live:
                self._live.add(entry.id)
            else:
                self._live.discard(entry.id)
            if before is None or look.summary != before.summary:
                entry.version = self.version + 1
                changed = True
                if before is None or not look.summary.has_same_facts(before.summary):
                    self.facts_version = entry.facts_version = entry.version
            if before is None or look.seen != before.seen or look.summary != before.summary:
                self.viewers.wake(entry.id)
        if changed:
            self._raise_version()

    def _looks(
        self, entries: Sequence[RunEntry], places: int, is_thorough: bool
    ) -> list[tuple[Look | None, Look]]:
        if places:
            self._finder.look(places)
        return [entry.look_again(is_thorough=is_thorough) for entry in entries]

    def _take_found(self) -> None:
        """Take the runs that were found into the list, and those that are gone out of it."""
        found = self._finder.runs
        self._finder.has_changed = False
        for run_id, directory in found.items():
            if run_id not in self.entries:
                self.entries[run_id] = RunEntry(run_id, self.root, directory)
        gone = [run_id for run_id in self.entries if run_id not in found]
        if gone:
            self._raise_version()
            self.facts_version = self.version
        for run_id in gone:
            self._memory.drop(self.entries.pop(run_id))
            self._live.discard(run_id)
            self.removed.append((self.version, run_id))
            self.viewers.wake(run_id)
        if len(self.removed) > _MOST_REMOVED:
            self.known_from = self.removed[-_MOST_REMOVED - 1][0]
            del self.removed[:-_MOST_REMOVED]

    def _raise_version(self) -> None:
        self.version += 1
        self.viewers.wake()

    def add(self, directory: Path) -> str:
        """Take a run into the index, wherever it is; return its id."""
        directory = directory.resolve()
        run_id = id_of(self.root, directory)
        self._finder.runs[run_id] = directory
        self.entries.setdefault(run_id, RunEntry(run_id, self.root, directory))
        return run_id

    @property
    def left_out(self) -> list[str]:
        """Directories that were not followed, and why."""
        return [f"{path}: {why}" for path, why in list(self._finder.left_out.items())]

    # Reading --------------------------------------------------------------------------------------

    def entry(self, run_id: str) -> RunEntry:
        """The run with that id.

        Raises:
            ProtocolError: 404: there is none.
        """
        try:
            return self.entries[run_id]
        except KeyError:
            way_out = "it may have been removed or moved; api/runs lists those that there are"
            raise ProtocolError("not-found", f"there is no run {run_id[:32]!r}: {way_out}") from None

    async def read(self, run_id: str, compute: Callable[[Reading], T], *, is_whole: bool = False) -> T:
        """Read what is new of a run, then compute something of it, both in one thread.

        Of a long run that has not been read yet, the ends of its files are read, and a first piece; the rest
        follows in the background.

        Args:
            run_id: the run.
            compute: what to do with it; it must not keep it.
            is_whole: wait until all of it is read.

        Raises:
            ProtocolError: 404: there is no such run; or what ``compute`` raises.
        """
        entry = self.entry(run_id)
        while True:
            async with entry.lock:
                found = await to_thread.run_sync(entry.read, compute, is_whole, limiter=self._limiter)
            self._memory.keep(entry)
            if found is not None:
                break
        if not entry.is_whole and not entry.is_reading and self._tasks is not None:
            entry.is_reading = True
            self._tasks.start_soon(self._read_rest, entry)
        return found[0]

    async def read_each(
        self, run_ids: Sequence[str], compute: Callable[[Reading], T], *, is_whole: bool = False
    ) -> list[T]:
        """The same for several different runs, in their order: those in memory are read in one thread."""
        entries = [self.entry(run_id) for run_id in run_ids]
        ready = [entry for entry in entries if entry.is_whole and not entry.lock.locked()]
        found: dict[str, tuple[T] | None] = {}
        try:
            for entry in ready:
                entry.lock.acquire_nowait()

            def read_all() -> None:
                for entry in ready:
                    found[entry.id] = entry.read(compute, is_whole)

            await to_thread.run_sync(read_all, limiter=self._limiter)
        finally:
            for entry in ready:
                entry.lock.release()
                self._memory.keep(entry)
        all_: list[T] = []
        for run_id in run_ids:
            known = found.get(run_id)
            all_.append(await self.read(run_id, compute, is_whole=is_whole) if known is None else known[0])
        return all_

    async def _read_rest(self, entry: RunEntry) -> None:
        """Read the rest of a run in pieces."""
        try:
            while not self._closing.is_set():
                async with entry.lock:
                    if entry.history is None or self.entries.get(entry.id) is not entry:
                        return
                    await to_thread.run_sync(entry.read_piece, limiter=self._limiter)
                self.viewers.wake(entry.id)
                if entry.is_whole:
                    break
            self._memory.keep(entry)
        except Exception:  # the others are still to be read
            logger.exception("%s could not be read", entry.directory)
        finally:
            entry.is_reading = False
