"""One run of the index: what was seen of it, and its rows, read in pieces. Its reading methods block."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import anyio

from stoker.dashboard.finding import link_out_of
from stoker.dashboard.looking import Look, Looker
from stoker.dashboard.summaries import Summary
from stoker.protocol import ProtocolError
from stoker.runs.history import RunHistory

T = TypeVar("T")

PIECE_BYTES: Final = 4 << 20
"""How much of a file is read at a time: other requests for the run come between two pieces."""
_FIRST_BYTES = 1 << 20
"""The same of the first piece, for which somebody waits."""


class Reading(NamedTuple):
    """A run as far as it has been read.

    Attributes:
        run_id: its id.
        history: its rows; while the rest is read, the last rows of each file.
        share_read: how much of its files has been read, 0 to 1.
        stamp: changes when ``history`` is another object.
    """

    run_id: str
    history: RunHistory
    share_read: float
    stamp: str

    @property
    def cursor(self) -> str:
        """Changes when anything of the run has, or more of it has been read."""
        share = "" if self.share_read >= 1 else f".{self.share_read:.4f}"
        return f"{self.stamp}.{self.history.cursor}{share}"


class RunEntry:
    """A run of the index.

    Attributes:
        id: its id.
        directory: its directory, from which no link may lead out of the runs directory.
        look: what was last seen of it; None: nothing yet.
        version: the version of the list in which its summary changed last.
        facts_version: the same of more than its news.
        history: its rows; None: they are not in memory.
        share_read: how much of its files has been read, 0 to 1.
        lock: who holds it may read the run.
        is_reading: whether the rest is being read in the background.
    """

    __slots__ = (
        "_looker", "_looking", "_root", "_stamp", "_tail", "_was_whole", "directory", "facts_version",
        "history", "id", "is_reading", "lock", "look", "share_read", "version",
    )  # fmt: skip

    def __init__(self, run_id: str, root: Path, directory: Path) -> None:
        self.id = run_id
        self.directory = directory
        self.look: Look | None = None
        self._root = root
        self._looker, self._looking = Looker(run_id, root, directory), threading.Lock()
        self.version = self.facts_version = 0
        self.history: RunHistory | None = None
        self.share_read = 0.0
        self.lock = anyio.Lock()
        self.is_reading = False
        self._tail: RunHistory | None = None  # the last rows of each file, until all have been read
        self._was_whole = False
        self._stamp = ""

    def look_again(self, *, is_thorough: bool) -> tuple[Look | None, Look]:
        """Look at its files, one thread at a time. Blocks.

        Returns:
            What was seen before, and now.
        """
        with self._looking:
            before, self.look = self.look, self._looker.look(self.look, is_thorough=is_thorough)
            return before, self.look

    @property
    def summary(self) -> Summary | None:
        """The line about it in the list; None: it was not looked at yet."""
        return None if self.look is None else self.look.summary

    @property
    def is_whole(self) -> bool:
        """Whether all that there was at the last look has been read."""
        return self.share_read >= 1

    def read(self, compute: Callable[[Reading], T], is_whole: bool) -> tuple[T] | None:
        """Read what is new, or a piece of it, and compute something of the run. Blocks.

        Args:
            compute: what to compute.
            is_whole: compute nothing before all is read.

        Returns:
            What was computed; None: nothing yet.

        Raises:
            ProtocolError: A file of the run is a link out of the directory; or what ``compute`` raises.
        """
        if (name := link_out_of(self._root, self.directory)) is not None:
            raise ProtocolError(
                "not-found", f"{name} of this run is a symbolic link out of the runs directory"
            )
        if not self.is_reading or self._tail is None or is_whole:
            self.read_piece()
        history = self.history or RunHistory(self.directory)
        if self.is_whole:
            self._tail, self._was_whole = None, True
        elif is_whole:
            return None
        elif not self._was_whole and self._tail is None:
            self._tail = history.tail()
        if self._tail is not None:
            return (compute(Reading(self.id, self._tail, self.share_read, f"{self._stamp}t")),)
        return (compute(Reading(self.id, history, self.share_read, self._stamp)),)

    def read_piece(self) -> None:
        """Read the next piece of each file. Blocks."""
        n_bytes = PIECE_BYTES
        if self.history is None:
            self.history, self._stamp = RunHistory(self.directory), secrets.token_hex(3)
            n_bytes = min(n_bytes, _FIRST_BYTES)
        history = self.history
        before = [table.share_read for table in history.tables]
        has_changed = history.refresh(n_bytes)
        is_stuck = not has_changed and before == [table.share_read for table in history.tables]
        self.share_read = 1.0 if is_stuck else history.share_read  # of a file that cannot be read, it is all

    def forget(self) -> None:
        """Free the memory of its rows; they are read again on demand."""
        self.history = self._tail = None
        self.share_read, self._was_whole = 0.0, False
