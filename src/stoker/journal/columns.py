"""Read the transitions of a journal as columns.

Single transitions and batches that were packed alike are read together; all others, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

import stoker.journal.codec as codec
from stoker.journal.blocks import TransitionBlock, TransitionColumns, mapped, mapped_together
from stoker.journal.events import BATCH, CONTINUING, EXPERIENCE, EventDecoder, OtherEvent, kind_of
from stoker.journal.packed import column_of, columns_in
from stoker.journal.reading import Journal
from stoker.journal.segments import SegmentReader
from stoker.types import ActorId

_MOST_RECORDS, _MOST_BYTES = 16_384, 16 << 20
"""Records that become one block, at most."""
_TRANSITIONS = (EXPERIENCE, CONTINUING, BATCH)
_MOST_END = 2


def read_blocks(journal: Journal, first: int = 0) -> Iterator[TransitionBlock]:
    """The events that count, from the beginning of the segment that holds event number ``first``, in order.

    Raises:
        JournalBroken: One of them is damaged or missing; raised when all before it have been given.
    """
    yield from journal.through(first, None, _blocks_in)


def count_steps(journal: Journal) -> int | None:
    """The environment steps up to the end of what can be read; None if more is there behind damage."""
    for reader, stop in journal.last_first():
        n_steps = 0
        for _, block in _blocks_in(reader, 0, stop):
            n_steps += len(block.actors)
        if reader.damage is not None:
            return None
        if reader.header is not None:
            return reader.header.total_steps + n_steps
    return None


def _blocks_in(reader: SegmentReader, skip: int, stop: int) -> Iterator[tuple[int, TransitionBlock]]:
    """Blocks of a segment up to its event number ``stop``, each with how many events it has then given."""
    n_events = 0
    for block in _all_blocks_in(reader):
        given = block if n_events + block.n_events <= stop else block.events(stop - n_events)
        n_events += given.n_events
        yield n_events, given
        if n_events >= stop:
            return


def _all_blocks_in(reader: SegmentReader) -> Iterator[TransitionBlock]:
    decoder = _BlockDecoder()
    records: list[bytes] = []
    n_bytes, is_batched = 0, None
    for record in reader.records():
        if decoder.n_steps is None and reader.header is not None:
            decoder.n_steps = reader.header.total_steps
        size = len(record)
        kind = record[1] if size > 1 else -1
        of_batch = kind == BATCH if kind in _TRANSITIONS else None
        is_other = of_batch is not None and is_batched is not None and of_batch is not is_batched
        if is_other or n_bytes >= _MOST_BYTES or len(records) >= _MOST_RECORDS:
            yield from decoder.blocks(records)
            if decoder.problem is not None:
                reader.note_unreadable([*records[decoder.n_read :], record], decoder.problem)
                return
            records, n_bytes, is_batched = [], 0, None
        if of_batch is not None:
            is_batched = of_batch
        records.append(record)
        n_bytes += size
    yield from decoder.blocks(records)
    if decoder.problem is not None:
        reader.note_unreadable(records[decoder.n_read :], decoder.problem)


class _BlockDecoder:
    """Makes blocks of the records of one segment, in their order."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._ids: tuple[ActorId, ...] | None = None  # of the last batch
        self._is_first = True
        self.n_steps: int | None = None
        """Environment steps before the next record."""
        self.problem: Exception | None = None
        """Why record number ``n_read`` of the last call cannot be read, and those behind it were not."""
        self.n_read = 0

    def blocks(self, records: Sequence[bytes]) -> Iterator[TransitionBlock]:
        """The blocks of these records: one, unless a record is damaged, or values do not fit together."""
        self.n_read = 0
        yield from self._blocks(records)

    def _blocks(self, records: Sequence[bytes]) -> Iterator[TransitionBlock]:
        try:
            block = self._block(records) if records else None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            if len(records) == 1:
                self.problem = error
                return
            half = len(records) // 2
            yield from self._blocks(records[:half])
            if self.problem is None:
                yield from self._blocks(records[half:])
            return
        self.n_read += len(records)
        if block is not None:
            self._is_first = False
            self.n_steps = block.first_step + len(block.actors)
            yield block

    def _block(self, records: Sequence[bytes]) -> TransitionBlock:
        kinds = np.fromiter(map(kind_of, records), np.int64, len(records))
        is_single = (kinds == EXPERIENCE) | (kinds == CONTINUING)
        if (is_batch := kinds == BATCH).any():
            batches = [records[place] for place in np.flatnonzero(is_batch).tolist()]
            parts, sizes, self._ids = _batch_parts(batches, self._ids)
        else:
            parts, sizes = _single_parts(records, kinds), None
        n_rows = np.zeros(len(records), np.int64)
        n_rows[is_batch if sizes is not None else is_single] = 1 if sizes is None else sizes
        others = [
            (row, cast("OtherEvent", self._events.event(records[place])))
            for place, row in _others(kinds, n_rows)
        ]
        return TransitionBlock(
            *_merged(parts),
            others=others,
            is_batched=sizes is not None,
            first_step=self.n_steps or 0,
            begins_segment=self._is_first,
        )


def _others(kinds: NDArray[np.int64], n_rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The places of events that are no transitions, and the rows before which they stand."""
    places = np.flatnonzero(~np.isin(kinds, _TRANSITIONS))
    before = np.cumsum(n_rows)[places] if len(places) else places
    return zip(places.tolist(), before.tolist(), strict=True)


class _Part(NamedTuple):
    """Transitions of one layout: ``rows`` are their places in the block, ascending."""

    rows: NDArray[np.int64]
    actors: Any
    is_new: NDArray[np.bool_]
    observations: Any
    columns: TransitionColumns


def _single_parts(records: Sequence[bytes], kinds: NDArray[np.int64]) -> list[_Part]:
    """The parts of transitions that are events by themselves."""
    parts: list[_Part] = []
    row_of = np.cumsum(np.isin(kinds, _TRANSITIONS)) - 1
    for kind in (EXPERIENCE, CONTINUING):
        places = np.flatnonzero(kinds == kind)
        for found, values in _values_of([records[place] for place in places.tolist()]):
            n, is_first = len(found), kind == EXPERIENCE
            observations = values[1] if is_first else None
            action, reward, after, ends, actors, *seldom = values[2:] if is_first else values[1:]
            versions = seldom[1] if len(seldom) > 1 else None
            columns = TransitionColumns(
                action, _checked(reward, n, "f"), after, _ends(ends, n), _versions(versions, n)
            )
            rows = row_of[places[found]]
            parts.append(_Part(rows, _checked(actors, n, "iO"), np.full(n, is_first), observations, columns))
    return parts


def _batch_parts(
    records: Sequence[bytes], ids: tuple[ActorId, ...] | None
) -> tuple[list[_Part], NDArray[np.int64], tuple[ActorId, ...] | None]:
    """The parts of batches, the rows of each batch, and the actor ids of the last one."""
    found = [*_values_of(records)]
    sizes = np.zeros(len(records), np.int64)
    given: dict[int, tuple[ActorId, ...]] = {}
    for places, values in found:
        sizes[places] = values[1]
        if values[2] is not None:
            given |= {int(place): tuple(each) for place, each in zip(places, values[2].tolist(), strict=True)}
    starts = np.cumsum(sizes) - sizes
    ids_of: list[tuple[ActorId, ...]] = []
    for place, size in enumerate(sizes.tolist()):
        ids = given.get(place, ids)
        if ids is None or len(ids) != size:
            raise msgspec.DecodeError(f"a batch of {size} rows that has others")
        ids_of.append(ids)
    parts: list[_Part] = []
    for places, values in found:
        n, size = len(places), len(ids_of[int(places[0])])
        packed, observations, actions, rewards, after, ends, _, versions = values[3:]
        if (sizes[places] != size).any() or not _have_rows((actions, after), (n, size)):
            raise msgspec.DecodeError(f"a batch of {size} rows that has others")
        is_new = np.ones((n, size), np.bool_)
        if packed is not None:
            is_new = np.unpackbits(packed, axis=1, count=size).astype(np.bool_)
        n_new = is_new.sum(axis=1)
        if (n_new != n_new[0]).any() or not _have_rows((observations,), (n, int(n_new[0]))):
            raise msgspec.DecodeError(f"a batch of {size} rows with other observations")
        if versions is not None and versions.ndim == 1:
            versions = np.repeat(versions, size)
        flat = [mapped(_flat, each) for each in (actions, rewards, after, observations)]
        columns = TransitionColumns(
            flat[0],
            _checked(flat[1], n * size, "f"),
            flat[2],
            _ends(None if ends is None else _flat(ends), n * size),
            _versions(None if versions is None else versions.reshape(-1), n * size),
        )
        rows = (starts[places][:, None] + np.arange(size)).reshape(-1)
        actors = [ids_of[int(place)] for place in places]
        parts.append(_Part(rows, actors, is_new.reshape(-1), flat[3], columns))
    return parts, sizes, ids


def _values_of(records: Sequence[bytes]) -> Iterator[tuple[NDArray[np.intp], list[Any]]]:
    """The values of records that have one layout, with the places of these; others come one by one."""
    for places, values in columns_in(records):
        if values is not None:
            yield places, values
            continue
        for place in places:
            restored = [codec.restore(form) for form in codec.unpack(records[int(place)])]
            if restored[0] == BATCH and isinstance(restored[2], list):  # ids may be numbers and texts
                restored[2] = np.array(restored[2], np.object_)
            yield np.array([place]), [None if value is None else column_of([value]) for value in restored]


def _flat(column: NDArray[Any]) -> NDArray[Any]:
    """The rows of batches as rows."""
    return column.reshape(-1, *column.shape[2:])


def _have_rows(columns: Sequence[Any], shape: tuple[int, int]) -> bool:
    found: list[bool] = []
    mapped(lambda column: found.append(column.shape[:2] == shape), columns)
    return all(found)


def _checked(column: Any, n: int, kinds: str) -> Any:
    """A column that has one number for each row, of these kinds of dtype."""
    if not isinstance(column, np.ndarray) or column.shape != (n,) or column.dtype.kind not in kinds:  # pyright: ignore[reportUnknownMemberType]
        raise msgspec.DecodeError("no transition: a value is of another kind")
    return cast("Any", column)


def _ends(column: Any, n: int) -> NDArray[np.uint8]:
    if column is None:
        return np.zeros(n, np.uint8)
    if (_checked(column, n, "iu") > _MOST_END).any() or (column < 0).any():
        raise msgspec.DecodeError("no transition: an unknown status")
    return column.astype(np.uint8)


def _versions(column: Any, n: int) -> NDArray[np.int64]:
    return np.full(n, -1) if column is None else _checked(column, n, "iu").astype(np.int64)


def _merged(
    parts: Sequence[_Part],
) -> tuple[list[ActorId], NDArray[np.int64], NDArray[np.bool_], Any, TransitionColumns]:
    """The columns of a block, in the order of the journal."""
    if not parts:
        nothing = np.empty(0, np.int64)
        columns = TransitionColumns(nothing, nothing, nothing, nothing, nothing)
        return [], nothing, nothing.astype(np.bool_), nothing, columns
    ordered = _ordered([part.rows for part in parts])
    new = [part for part in parts if part.is_new.any()]
    observations = mapped(lambda column: column[:0], parts[0].columns.next_observations)
    if new:
        in_order = _ordered([part.rows[part.is_new] for part in new])
        observations = mapped_together(in_order, *(part.observations for part in new))
    each = zip(*(part.columns for part in parts), strict=True)
    columns = TransitionColumns(*(mapped_together(ordered, *column) for column in each))
    codes: dict[ActorId, int] = {}
    actors = ordered(*(_coded(part.actors, codes) for part in parts))
    return [*codes], actors, ordered(*(part.is_new for part in parts)), observations, columns


def _ordered(places: Sequence[NDArray[np.int64]]) -> Callable[..., NDArray[Any]]:
    """What joins columns whose rows have these places, and puts the rows in the order of the places."""

    def joined(*columns: NDArray[Any]) -> NDArray[Any]:
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    order = np.argsort(joined(*places), kind="stable")
    if (order == np.arange(len(order))).all():
        return joined
    return lambda *columns: joined(*columns)[order]


def _coded(actors: Any, codes: dict[ActorId, int]) -> NDArray[np.int64]:
    """Actor ids as places among those that are known; new ones are added.

    Args:
        actors: ids as an array, or those of each batch.
        codes: the places.
    """
    if isinstance(actors, np.ndarray):
        found, places = np.unique(cast("NDArray[Any]", actors), return_inverse=True)
        known = np.array([codes.setdefault(each, len(codes)) for each in found.tolist()], np.int64)
        return known[places.reshape(-1)]
    of_ids: dict[tuple[ActorId, ...], NDArray[np.int64]] = {}
    batches = cast("list[tuple[ActorId, ...]]", actors)
    for ids in batches:
        if ids not in of_ids:
            of_ids[ids] = np.array([codes.setdefault(each, len(codes)) for each in ids], np.int64)
    if len(of_ids) == 1:
        return np.tile(next(iter(of_ids.values())), len(batches))
    return np.concatenate([of_ids[ids] for ids in batches])
