"""RowTable: a row file as columns that grow with it. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.plain import LARGEST_INT
from stoker.runs.following import FollowedFile
from stoker.runs.growing import NumberColumn, ValueColumn
from stoker.runs.rows import MAPPINGS, AnyRow, Columns, MetricsRow, Row
from stoker.types import ActorId, EpisodeStatus

Rows: TypeAlias = slice | NDArray[np.intp]
"""Which rows of a table: a part, or their indices, ascending."""

_MOST_NAMES: Final = 1000
_COUNTERS = ("attempt", "episode", "total_steps", "total_steps_at_eval", "opt_steps")
_STATUSES = Literal[tuple(status.value for status in EpisodeStatus)]
_DECODED: dict[Any, Any] = {
    EpisodeStatus: _STATUSES,
    int: Annotated[int, msgspec.Meta(ge=-LARGEST_INT, le=LARGEST_INT)],
    datetime: Annotated[datetime, msgspec.Meta(tz=True)],
}


class RowTable(FollowedFile, Generic[AnyRow]):
    """The rows of one file as columns.

    Arrays that were taken from it stay as they are, whatever is read later.

    Args:
        path: the file; it need not exist yet.
        row_type: the type of its rows.
        is_bounded: leave out lines of more than 8 MiB, and extras and metrics beyond the first 1,000 names,
            and name them as problems.
        fields: the fields of a row that get columns, for example ``("total_reward",)``, beside the counters
            that say where a row stands; None: all of them. Others are not looked at, which is faster.
    """

    def __init__(
        self,
        path: Path,
        row_type: type[AnyRow],
        *,
        is_bounded: bool = True,
        fields: Collection[str] | None = None,
    ) -> None:
        self._layout = _layout_of(row_type, None if fields is None else frozenset(fields))
        super().__init__(path, self._layout.decoder, is_bounded=is_bounded)
        self.row_type = row_type
        self._most_names = _MOST_NAMES if is_bounded else math.inf
        self._clear()

    def _clear(self) -> None:
        self._left_out = ""
        self._numbers: dict[str, NumberColumn] = {}
        self._values: dict[str, ValueColumn] = {}
        for name, dtype in self._layout.fixed.items():
            if dtype is None:
                self._values[name] = ValueColumn()
            else:
                self._numbers[name] = NumberColumn(dtype)

    def _take(self, rows: list[Any]) -> None:
        for name in self._layout.fixed:
            values = map(attrgetter(name), rows)
            if name in self._values:
                self._values[name].append(values, len(rows))
                continue
            if name == "time":
                values = (time.timestamp() for time in values)
            column = self._numbers[name]
            column.append(np.fromiter(values, column.view().dtype, len(rows)))
        if mapping := self._layout.mapping:
            self._take_named([getattr(row, mapping) for row in rows])

    def _take_named(self, found: list[dict[str, Any]]) -> None:
        """Append what the rows have by name, one dict for each row."""
        n = len(found)
        shapes = dict.fromkeys(map(tuple, found))
        names = dict.fromkeys(chain.from_iterable(shapes))
        texts = self._names_of_texts(found) if self.row_type is MetricsRow else ()
        blocks: NDArray[np.float64] | None = None
        if len(shapes) == 1 and not texts:
            every = chain.from_iterable(values.values() for values in found)
            blocks = np.fromiter(every, np.float64, n * len(names)).reshape(n, len(names))
        for at, name in enumerate(names):
            column = self._column_for(f"{self._layout.mapping}.{name}", name in texts)
            if isinstance(column, ValueColumn):
                column.append((values.get(name) for values in found), n)
            elif column is not None:
                absent = math.nan
                column.append(
                    np.fromiter((values.get(name, absent) for values in found), np.float64, n)
                    if blocks is None
                    else blocks[:, at]
                )
        n_rows = self.n_rows + n
        for name, column in self._numbers.items():
            if len(column) < n_rows and name not in self._layout.fixed:
                column.append_times(n_rows - len(column), math.nan)
        for column in self._values.values():
            if len(column) < n_rows:
                column.append([None] * (n_rows - len(column)), n_rows - len(column))

    def _column_for(self, name: str, is_text: bool) -> NumberColumn | ValueColumn | None:
        """The column of a name, as long as the table; None: there are too many."""
        if (values := self._values.get(name)) is not None:
            return values
        numbers = self._numbers.get(name)
        if is_text:
            column = self._values[name] = ValueColumn()
            self._numbers.pop(name, None)
            known: Iterable[float] = [] if numbers is None else numbers.view().tolist()
            column.append((None if value != value else value for value in known), len(numbers or ()))
            if numbers is None:
                column.append([None] * self.n_rows, self.n_rows)
            return column
        if numbers is None:
            if len(self._numbers) + len(self._values) - len(self._layout.fixed) >= self._most_names:
                self._left_out = self._left_out or name
                return None
            numbers = self._numbers[name] = NumberColumn(np.float64)
            numbers.append_times(self.n_rows, math.nan)
        return numbers

    def _names_of_texts(self, found: list[dict[str, Any]]) -> set[str]:
        if str not in set(map(type, chain.from_iterable(values.values() for values in found))):
            return set()
        return {name for values in found for name, value in values.items() if isinstance(value, str)}

    # What there is --------------------------------------------------------------------------------

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file: why it cannot be read, or the lines that are no rows."""
        if not self._left_out:
            return super().problems
        left_out = f"rows have more than {_MOST_NAMES:,} names; {self._left_out} and others are left out"
        return (*super().problems, left_out)

    @property
    def n_bytes(self) -> int:
        """The memory that the columns take."""
        return sum(column.n_bytes for column in (*self._numbers.values(), *self._values.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of numbers; those of extras or metrics in the order in which they first occurred."""
        return tuple(self._numbers)

    @property
    def value_names(self) -> tuple[str, ...]:
        """The columns of other values: statuses, actors, and metrics that are texts."""
        return tuple(self._values)

    def column(self, name: str) -> NDArray[Any]:
        """The column with that name, ``[n_rows]``; do not write to it.

        Integers are int64, other numbers float64, NaN where absent; ``time`` is POSIX seconds. Columns of
        ``value_names`` are objects, None where absent, and made anew for each call.

        Raises:
            KeyError: There is no such column.
        """
        column = self._numbers.get(name)
        return self._values[name].view() if column is None else column.view()

    def codes(self, name: str) -> tuple[NDArray[np.int32], Sequence[Any]]:
        """A column of ``value_names`` as codes, ``[n_rows]``, and the value that each code stands for."""
        return self._values[name].codes()

    def columns(self, rows: Rows = slice(None)) -> Columns:
        """These rows, in the order of the fields, and ``time`` as POSIX seconds."""
        names = dict.fromkeys((*self._layout.fixed, *self._numbers, *self._values))
        return {name: self.column(name)[rows] for name in names}

    def as_columns(self, rows: Rows = slice(None)) -> Columns:
        """The same with ``time`` as datetimes: the form in which a run gives its rows."""
        columns = self.columns(rows)
        if (seconds := columns.get("time")) is not None:
            times = map(partial(datetime.fromtimestamp, tz=UTC), seconds.tolist())
            columns["time"] = np.fromiter(times, object, len(seconds))
        return columns


class _Layout(NamedTuple):
    """How rows become columns."""

    fixed: dict[str, Any]
    """The columns of fields: the type of their numbers, None for other values."""
    mapping: str
    """The field with a column for each name; empty: it is not looked at."""
    decoder: msgspec.json.Decoder[Any]
    """Its structs are cheap: without enums, and the garbage collector does not look at them."""


@cache
def _layout_of(row_type: type[Row], wanted: frozenset[str] | None) -> _Layout:
    fixed: dict[str, Any] = {}
    mapping = ""
    decoded: list[Any] = []
    for field in msgspec.structs.fields(row_type):
        if wanted is not None and field.name not in wanted and field.name not in _COUNTERS:
            continue
        if field.name in MAPPINGS:
            mapping = field.name
        elif field.type in (EpisodeStatus, ActorId):
            fixed[field.name] = None
        else:
            fixed[field.name] = np.int64 if field.type is int else np.float64
        default = () if field.default is msgspec.NODEFAULT else (field.default,)
        decoded.append((field.name, _DECODED.get(field.type, field.type), *default))
    struct = msgspec.defstruct(row_type.__name__, decoded, gc=False, kw_only=True)
    return _Layout(fixed, mapping, msgspec.json.Decoder(struct))
