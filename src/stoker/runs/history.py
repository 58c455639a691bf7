"""RunHistory: everything that a run's files say, kept up to date by reading what is new. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stoker.errors import RunBroken, RunDirectoryError
from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.following import EventList
from stoker.runs.growing import NumberColumn
from stoker.runs.layout import CONFIG, METADATA
from stoker.runs.metadata import Attempt, RunMetadata, read_json, read_metadata
from stoker.runs.rows import (
    ROW_FILES,
    AnyRow,
    Bound,
    EvalEpisodeRow,
    MetricsRow,
    TrainEpisodeRow,
    bounds_of,
)
from stoker.runs.tables import Rows, RowTable
from stoker.writer import files

AnyTable = RowTable[Any]


class Cursor(NamedTuple):
    """How much of a run has been read.

    Rows behind those of an earlier cursor with the same generation are new; with another one, all are.
    """

    generation: int
    train: int
    evaluation: int
    metrics: int
    revision: int
    """Rises when anything else has changed: metadata, config, events or problems."""

    def __str__(self) -> str:
        return ".".join(map(str, self))


class RunHistory:
    """One run directory, read incrementally, also while it is written. Not for several threads at once.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metadata: RunMetadata | None = None
        """None: it was not read yet, or ``problem`` says why it cannot be."""
        self.problem: str | None = None
        """Why the metadata cannot be read."""
        self.config: Any = None
        """The content of ``config.json``; None: there is none that can be read."""
        self.n_configs: int = 0
        """How often the config was read."""
        self.train: RowTable[TrainEpisodeRow] = RowTable(
            directory / ROW_FILES[TrainEpisodeRow], TrainEpisodeRow
        )
        self.evaluation: RowTable[EvalEpisodeRow] = RowTable(
            directory / ROW_FILES[EvalEpisodeRow], EvalEpisodeRow
        )
        self.metrics: RowTable[MetricsRow] = RowTable(directory / ROW_FILES[MetricsRow], MetricsRow)
        self._events = EventList(directory / EVENTS)
        self._seen: dict[str, tuple[int, ...] | None] = {}
        self._revision = 0
        self._n_histories = 0
        self._effective: dict[int, _EffectiveRows] = {}
        self._attempts: tuple[Attempt, ...] = ()

    @property
    def tables(self) -> tuple[AnyTable, AnyTable, AnyTable]:
        """Training, evaluation, metrics."""
        return self.train, self.evaluation, self.metrics

    @property
    def events(self) -> Sequence[EventRow]:
        """What happened, in the order in which it was recorded."""
        return self._events.rows

    def refresh(self, most_bytes: float = math.inf) -> bool:
        """Read what is new in each file, of rows about that many bytes for each file. Blocks.

        Returns:
            Whether ``cursor`` is another one now.
        """
        before = self.cursor
        self._revision += self._refresh_documents() + self._events.refresh(most_bytes)
        problems = [table.problems for table in self.tables]
        for table in self.tables:
            table.refresh(most_bytes)
        self._revision += problems != [table.problems for table in self.tables]
        return before != self.cursor

    def tail(self, n: int = 2000) -> RunHistory:
        """The run with only the last n rows of each file, for a first look at a long run. Blocks.

        It can be refreshed and then holds some rows more, of which it forgets old ones. Its cursor is that of
        no run that was read whole.
        """
        found = RunHistory(self.directory)
        found._refresh_documents()
        for table in (*found.tables, found._events):
            table.read_tail(n)
        found._n_histories = _TAILS
        return found

    def _refresh_documents(self) -> bool:
        """Read the metadata and the config again if they have changed."""
        has_changed = False
        if self._has_changed(METADATA):
            has_changed = True
            try:
                self.metadata, self.problem = read_metadata(self.directory), None
            except RunDirectoryError as error:
                self.metadata, self.problem = None, str(error)
            attempts = self._attempts if self.metadata is None else self.metadata.attempts
            if attempts != self._attempts:
                self._n_histories += 1
                self._attempts, self._effective = attempts, {}
        if self._has_changed(CONFIG):
            has_changed = True
            self.n_configs += 1
            try:
                self.config = read_json(self.directory / CONFIG, Any)
            except RunDirectoryError:  # a session without the command line need not write one
                self.config = None
        return has_changed

    def _has_changed(self, name: str) -> bool:
        try:
            found = files.stat_of(self.directory / name)
        except RunDirectoryError:
            found = None  # reading says why
        seen = None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
        has_changed = name not in self._seen or self._seen[name] != seen
        self._seen[name] = seen
        return has_changed

    @property
    def cursor(self) -> Cursor:
        """Changes exactly if something has changed that was read."""
        generation = self._n_histories + sum(table.generation for table in (*self.tables, self._events))
        train, evaluation, metrics = (table.n_rows for table in self.tables)
        return Cursor(generation, train, evaluation, metrics, self._revision)

    @property
    def share_read(self) -> float:
        """How much of the row files has been read, from 0 to 1: of the one of which the least was."""
        return min(table.share_read for table in self.tables)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the files, each with the name of its file."""
        found = [(table.path.name, table.problems) for table in (*self.tables, self._events)]
        metadata = () if self.problem is None else (self.problem,)
        return (*metadata, *(f"{name}: {problem}" for name, problems in found for problem in problems))

    @property
    def n_bytes(self) -> int:
        """The memory that the rows take, about."""
        return sum(table.n_bytes for table in self.tables) + _EVENT_BYTES * self._events.n_rows

    def effective(self, table: AnyTable) -> Rows:
        """The rows of a table that count: without those of an abandoned future.

        New rows cost what they are; all are looked at again only when an attempt appears.
        """
        if len(self._attempts) < 2:
            return slice(None)
        known = self._effective.setdefault(id(table), _EffectiveRows())
        return known.update(table, self._attempts)


_TAILS = -(1 << 40)
_EVENT_BYTES = 1000
"""About what an event takes."""


class _EffectiveRows:
    """The indices of the rows of a table that count in the history of some attempts."""

    def __init__(self) -> None:
        self._generation = -1
        self._n_seen = 0
        self._indices = NumberColumn(np.intp)

    def update(self, table: AnyTable, attempts: Sequence[Attempt]) -> Rows:
        if self._generation != table.generation:
            self._generation, self._n_seen, self._indices = table.generation, 0, NumberColumn(np.intp)
        new = np.flatnonzero(_which_count(table, attempts, self._n_seen))
        self._indices.append(new + self._n_seen)
        self._n_seen = table.n_rows
        return slice(None) if len(self._indices) == table.n_rows else self._indices.view()


def _which_count(table: AnyTable, attempts: Sequence[Attempt], first: int = 0) -> NDArray[np.bool_]:
    """Which rows from the first one on count in the history of these attempts, bool ``[n_rows - first]``."""
    bounds, lowest = bounds_of(attempts)
    numbers = table.column("attempt")[first:]
    known = np.array(sorted(bounds), np.int64)
    at = np.searchsorted(known, numbers)
    is_known = known[np.minimum(at, len(known) - 1)] == numbers
    each = np.array([*(bounds[number] for number in known.tolist()), lowest], np.float64)
    bound: Any = Bound._make(each[np.where(is_known, at, len(known))].T)
    rows = SimpleNamespace(**{name: table.column(name)[first:] for name in table.names})
    return table.row_type.is_before(rows, bound)


def read_table(
    directory: Path,
    row_type: type[AnyRow],
    *,
    all_attempts: bool = False,
    fields: Collection[str] | None = None,
    is_strict: bool = True,
) -> tuple[RowTable[AnyRow], Rows]:
    """Read a file of a run whole, and which of its rows count. Blocks.

    Args:
        directory: of the run.
        row_type: which of its files.
        all_attempts: whether rows of an abandoned future count, too.
        fields: as for ``RowTable``; None: all.
        is_strict: whether a damaged row is an error, not only one of the table's problems.

    Raises:
        RunBroken: A row or the metadata is damaged; the message names it.
    """
    table = RowTable(directory / ROW_FILES[row_type], row_type, is_bounded=not is_strict, fields=fields)
    table.refresh()
    if is_strict and table.problems:
        raise RunBroken(table.path, "; ".join(table.problems))
    attempts = read_metadata(directory).attempts
    return table, slice(None) if all_attempts else _EffectiveRows().update(table, attempts)
