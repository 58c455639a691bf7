"""The columns of a batch as a journal stores them: without what the batches before it in the segment say.

Neither actor ids that are those of the batch before, nor an observation that is the last next observation of
its actor: in the batch before or, where an actor has several rows, in this one. Observations are compared by
their bytes, so it does not matter what came in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

import stoker.journal.codec as codec
from stoker.journal.codec import Form
from stoker.types import ActorId, ExperienceBatch

N_FORMS = 10
"""The forms of a batch; the first of them is its number of rows."""

_TERMINATED, _TRUNCATED = 1, 2
_ARRAY: type[Any] = np.ndarray

Ids = tuple[ActorId, ...]


class LastBatch:
    """The batch before the next one in a segment; its arrays must not be written to."""

    def __init__(self) -> None:
        self.batch: ExperienceBatch | None = None
        self._pair: tuple[Ids, Ids] | None = None
        self._sources: NDArray[np.int64] | None = None

    def goes_on_in(self, batch: ExperienceBatch) -> bool:
        """Whether each row of a batch begins where the same row of the last one ended: nearly always."""
        last = self.batch
        if last is None or batch.actor_ids is not last.actor_ids:
            return False
        now, before = batch.observations, last.next_observations
        return (
            type(now) is type(before) is type(batch.next_observations) is _ARRAY
            and now.dtype == before.dtype == batch.next_observations.dtype
            and now.shape == before.shape == batch.next_observations.shape
            and now.tobytes() == before.tobytes()
            and len({*batch.actor_ids}) == len(batch)
        )

    def known(self, ids: Ids, after: Any) -> tuple[Any, NDArray[np.bool_] | None] | None:
        """The last next observation of each actor, and whether there is one; None for all: there is.

        Args:
            ids: of the rows of the next batch.
            after: its next observations.

        Returns:
            Columns as ``after``, perhaps with memory of the batch before; None if they are not arrays, or not
            like those of the batch before.
        """
        before_ids: Ids = () if self.batch is None else self.batch.actor_ids
        before = _mapped(_no_rows, after) if self.batch is None else self.batch.next_observations
        layout = _layout(after)
        if layout is None or _layout(before) != layout:
            return None
        if self._pair is None or self._pair[0] is not before_ids or self._pair[1] is not ids:
            self._pair, self._sources = (before_ids, ids), _sources(before_ids, ids)
        sources = self._sources
        if sources is None:
            return before, None
        return _mapped(partial(_picked, sources), before, after), sources >= 0


def encode_batch(batch: ExperienceBatch, last: LastBatch) -> list[Form]:
    """The forms of a batch, which becomes the last one.

    Raises:
        ConfigError: It holds a value that a journal cannot, named by its column.
    """
    ids, observations, after = batch.actor_ids, batch.observations, batch.next_observations
    is_new = None
    if last.goes_on_in(batch):
        is_new, observations = np.zeros(len(ids), np.bool_), observations[:0]
    elif _layout(observations) == _layout(after) and (known := last.known(ids, after)) is not None:
        is_new = np.zeros(len(ids), np.bool_) if known[1] is None else ~known[1]
        _mapped(partial(_note_unequal, is_new), observations, known[0])
        observations = _mapped(partial(_picked, is_new), observations)
    ends = None
    if b"\1" in batch.terminated.tobytes() or b"\1" in batch.truncated.tobytes():
        ends = batch.terminated * np.uint8(_TERMINATED) + batch.truncated * np.uint8(_TRUNCATED)
    columns = {
        "actor_ids": None if last.batch is not None and last.batch.actor_ids == ids else _ids_form(ids),
        "is_new": None if is_new is None else np.packbits(is_new),
        "observations": observations,
        "actions": batch.actions,
        "rewards": batch.rewards,
        "next_observations": after,
        "ends": ends,
        "policy_extras": batch.policy_extras,
        "policy_versions": _versions_form(batch.policy_versions),
    }
    forms = [len(ids), *(codec.form(column, name) for name, column in columns.items())]
    last.batch = batch
    return forms


def decode_batch(forms: Sequence[Form], last: LastBatch) -> ExperienceBatch:
    """The batch of these forms, which becomes the last one; its arrays have memory of their own.

    Raises:
        msgspec.DecodeError: They are of no batch.
    """
    size, given_ids, packed, observations, *rest = map(codec.restore, forms)
    actions, rewards, after, ends, extras, versions = rest
    before_ids = None if last.batch is None else last.batch.actor_ids
    if isinstance(given_ids, np.ndarray):
        given_ids = given_ids.tolist()
    ids = before_ids if given_ids is None else tuple(given_ids)
    if type(versions) is int:
        versions = np.full(size, versions, np.int64)
    seldom = [column for column in (ends, extras, versions) if column is not None]
    columns = [actions, rewards, after, *seldom]
    if ids is None or len(ids) != size or not all(_has_rows(column, size) for column in columns):
        raise msgspec.DecodeError(f"a batch of {size} rows that has others")
    if packed is not None:
        if (known := last.known(ids, after)) is None:
            raise msgspec.DecodeError("a batch whose observations are not known from the one before")
        is_new = np.unpackbits(packed, count=size).astype(np.bool_)
        observations = _mapped(partial(_filled, is_new), known[0], observations)
    elif not _has_rows(observations, size):
        raise msgspec.DecodeError(f"a batch of {size} rows with other observations")
    ends = np.zeros(size, np.uint8) if ends is None else ends
    last.batch = ExperienceBatch(
        observations, actions, rewards, after, ends == _TERMINATED, ends == _TRUNCATED, ids, extras, versions
    )
    return last.batch


def _ids_form(ids: Ids) -> Any:
    """Actor ids as an array of few bytes, if they are numbers; else as a list."""
    numbers: Any = ids
    if {*map(type, ids)} != {int} or min(numbers) < 0:
        return list(ids)
    return np.array(numbers, np.min_scalar_type(max(numbers)))


def _versions_form(versions: NDArray[np.int64] | None) -> Any:
    """Policy versions as one number if all are the same: nearly always."""
    if versions is None:
        return None
    data = versions.tobytes()  # quicker than to compare the numbers
    return int(versions[0]) if data == data[: versions.itemsize] * len(versions) else versions


def _sources(before: Ids, ids: Ids) -> NDArray[np.int64] | None:
    """For each row, the row with its actor's last next observation, among those before and then these.

    -1: there is none. None for all: the same row of the batch before.
    """
    rows = dict(zip(before, range(len(before)), strict=True))
    if before == ids and len(rows) == len(ids):
        return None
    if len({*ids}) == len(ids):
        return np.array([*map(rows.get, ids, repeat(-1))], np.int64)
    found = np.empty(len(ids), np.int64)
    for row, actor_id in enumerate(ids):
        found[row] = rows.get(actor_id, -1)
        rows[actor_id] = len(before) + row
    return found


def _mapped(function: Callable[..., Any], column: Any, *others: Any) -> Any:
    """The function of the arrays of columns, which may be dicts of columns with the same keys."""
    if isinstance(column, dict):
        parts = cast("dict[Any, Any]", column)
        return {key: _mapped(function, parts[key], *(other[key] for other in others)) for key in parts}
    return function(column, *others)


def _layout(column: Any) -> Any:
    """What rows must have in common to be compared; None for what is no column of arrays."""
    if isinstance(column, dict):
        parts = {key: _layout(part) for key, part in cast("dict[Any, Any]", column).items()}
        return parts if parts and None not in parts.values() else None
    return (column.dtype, column.shape[1:]) if type(column) is _ARRAY else None


def _has_rows(column: Any, size: int) -> bool:
    """Whether a column is arrays of this many rows."""
    if isinstance(column, dict):
        return all(_has_rows(part, size) for part in cast("dict[Any, Any]", column).values())
    return type(column) is _ARRAY and column.shape[:1] == (size,)


def _picked(rows: NDArray[Any], *columns: NDArray[Any]) -> NDArray[Any]:
    """These rows of columns that follow one another."""
    column: NDArray[Any] = columns[0] if len(columns) == 1 else np.concatenate(columns)
    return column[rows]


def _no_rows(rows: Any) -> Any:
    return rows[:0] if type(rows) is _ARRAY else None


def _note_unequal(is_new: NDArray[np.bool_], now: NDArray[Any], before: NDArray[Any]) -> None:
    """Note the rows that are not the same to the bit."""
    if len(now):
        is_new |= (_bytes_of(now) != _bytes_of(before)).any(axis=1)


def _bytes_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each row, ``[N, bytes]``."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)


def _filled(is_new: NDArray[np.bool_], rows: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    filled = rows.copy()
    filled[is_new] = new
    return filled
