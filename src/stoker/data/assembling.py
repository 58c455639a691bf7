"""Put the interleaved transitions of a journal together as the episodes of each actor."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.data.episodes import Episode
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEnded, StreamMoved
from stoker.journal.blocks import TransitionBlock, TransitionColumns, mapped, mapped_together
from stoker.types import ActorId, EpisodeStatus

_STATUSES = (EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)

Found = tuple[int, Episode]
"""An episode, and the row of its block at which it is complete."""


class _Running:
    """The part of an actor's running episode that was read so far."""

    __slots__ = ("first", "parts", "seed")

    def __init__(self, seed: int | None = None, first: Any = None) -> None:
        self.seed = seed
        self.first = first
        self.parts: list[TransitionColumns] = []


class Assembler:
    """Takes the blocks of a journal in order, and gives each episode when it is complete.

    Where the next transition of an actor does not begin with what its last one led to, bit by bit, or where
    the journal says that an episode was abandoned, the episode ends as ``CONTINUING``. Only running episodes
    are kept.

    Args:
        actors: whose episodes are wanted; None: all.
    """

    def __init__(self, actors: Collection[ActorId] | None = None) -> None:
        self._wanted = actors
        self._running: dict[ActorId, _Running] = {}
        # The last next observation of each actor, among single transitions and among those of batches.
        self._last: tuple[dict[ActorId, Any], dict[ActorId, Any]] = ({}, {})

    def episodes(self, block: TransitionBlock, first_row: int = 0) -> Iterator[Episode]:
        """The episodes that are complete with this block, in the order of their last transitions.

        Args:
            block: the next one.
            first_row: transitions before this row are left out.
        """
        if block.begins_segment:
            self._last = ({}, {})
        found: list[Found] = []
        rows = _SortedRows(block, first_row)
        for start, stop, is_left_out in rows.pieces():
            actor_id = block.actor_ids[rows.actors[start]]
            at = int(rows.order[start])
            for event in rows.events_before.get(start, ()):
                self._take_event(event, block.is_batched, at, found)
            self._take_rows(rows, start, stop, actor_id, found, is_left_out=is_left_out)
        last = self._last[block.is_batched]
        for actor_id, row in rows.last_rows():
            last[actor_id] = mapped(lambda column, at=row: column[at].copy(), block.columns.next_observations)
        for event in rows.events_after:
            self._take_event(event, block.is_batched, len(rows.order), found)
        found.sort(key=lambda one: one[0])
        for _, episode in found:
            yield episode

    def rest(self) -> Iterator[Episode]:
        """The episodes that were still running."""
        for actor_id in list(self._running):
            if (episode := self._finished(actor_id, EpisodeStatus.CONTINUING)) is not None:
                yield episode

    def _take_event(self, event: Any, is_batched: bool, at: int, found: list[Found]) -> None:
        match event:
            case EpisodeStarted(actor_id, seed, _, observation):
                self._end(actor_id, EpisodeStatus.CONTINUING, at, found)
                first = None if observation is None else mapped(np.asarray, observation)
                if first is not None:
                    self._last[0][actor_id] = first
                if self._is_wanted(actor_id):
                    self._running[actor_id] = _Running(seed, None if is_batched else first)
            case EpisodeEnded() | StreamMoved() | StreamEnded():
                self._end(event.actor_id, EpisodeStatus.CONTINUING, at, found)
            case _:
                pass

    def _is_wanted(self, actor_id: ActorId) -> bool:
        return self._wanted is None or actor_id in self._wanted

    def _end(self, actor_id: ActorId, status: EpisodeStatus, at: int, found: list[Found]) -> None:
        if (episode := self._finished(actor_id, status)) is not None:
            found.append((at, episode))

    def _take_rows(
        self,
        rows: _SortedRows,
        start: int,
        stop: int,
        actor_id: ActorId,
        found: list[Found],
        *,
        is_left_out: bool,
    ) -> None:
        """Add these rows to the episode of their actor; all of one row after another."""
        if not self._is_wanted(actor_id):
            return
        running = self._running.get(actor_id)
        if is_left_out:
            self._running.pop(actor_id, None)  # and its seed: what is wanted begins later
            return
        if running is not None and running.parts:
            before = mapped(lambda column: column[-1], running.parts[-1].next_observations)
            if not _is_same(before, self._observation_of(rows, start, actor_id)):
                self._end(actor_id, EpisodeStatus.CONTINUING, int(rows.order[start]), found)
                running = None
        if running is None:
            running = self._running[actor_id] = _Running()
        is_known = running.first is not None and not rows.block.is_batched  # stored with the episode's start
        if not running.parts and (rows.block.is_new[rows.order[start]] or not is_known):
            running.first = self._observation_of(rows, start, actor_id)
        columns = rows.columns(start, stop)
        code = rows.ends[stop - 1]
        if not code:  # a copy: the rows of all other actors in the block would stay in memory with it
            columns = TransitionColumns(*(mapped(np.copy, column) for column in columns))
            if not running.parts:
                running.first = mapped(np.copy, running.first)
        running.parts.append(columns)
        if code:
            self._end(actor_id, _STATUSES[code], int(rows.order[stop - 1]), found)

    def _observation_of(self, rows: _SortedRows, at: int, actor_id: ActorId) -> Any:
        """The observation of a sorted row."""
        if rows.block.is_new[rows.order[at]]:
            return rows.observation(at)
        if at and rows.actors[at - 1] == rows.actors[at]:
            return mapped(lambda column: column[at - 1], rows.next_observations)
        return self._last[rows.block.is_batched][actor_id]

    def _finished(self, actor_id: ActorId, status: EpisodeStatus) -> Episode | None:
        """The running episode of an actor; None: it has no transition."""
        running = self._running.pop(actor_id, None)
        if running is None or not running.parts:
            return None
        parts = running.parts
        columns = parts[0] if len(parts) == 1 else _joined(parts)
        versions = columns.policy_versions
        return Episode(
            observations=mapped_together(_with_first, running.first, columns.next_observations),
            actions=mapped(np.ascontiguousarray, columns.actions),
            rewards=columns.rewards,
            status=status,
            seed=running.seed,
            actor_id=actor_id,
            policy_versions=None if (versions < 0).all() else versions,
        )


class _SortedRows:
    """The rows of a block by actor, each actor's in order, cut where an episode ends or may end.

    Attributes:
        order: the row of the block at each place.
        actors: the actor at each place, as the block counts them.
        events_before: the events that stand before a row of their actor, by its place.
        events_after: those that stand behind all rows of theirs.
    """

    def __init__(self, block: TransitionBlock, first_row: int) -> None:
        self.block = block
        self.order = np.argsort(block.actors, kind="stable")
        self.actors: list[int] = block.actors[self.order].tolist()
        sort = self._sorted
        self._columns = TransitionColumns(*(mapped(sort, column) for column in block.columns))
        self.next_observations = self._columns.next_observations
        self.ends: list[int] = self._columns.ends.tolist()
        self._new_at = np.cumsum(block.is_new) - 1
        n = len(self.order)
        actors = block.actors[self.order]
        self._bounds = np.searchsorted(actors, np.arange(len(block.actor_ids) + 1))
        self.events_before: dict[int, list[Any]] = {}
        self.events_after: list[Any] = []
        begins = np.zeros(n, np.bool_)
        begins[self._bounds[:-1][self._bounds[:-1] < self._bounds[1:]]] = True
        begins[1:] |= self._columns.ends[:-1] != 0
        self._place_events(begins)
        self._first_row = first_row
        if first_row:
            wanted = self.order >= first_row
            begins[1:] |= wanted[1:] != wanted[:-1]
        self._begin_where_others_follow(begins)
        self._begins = np.flatnonzero(begins)

    def _sorted(self, column: NDArray[Any]) -> NDArray[Any]:
        return column if len(self.block.actor_ids) == 1 else column[self.order]

    def _place_events(self, begins: NDArray[np.bool_]) -> None:
        codes = {actor_id: code for code, actor_id in enumerate(self.block.actor_ids)}
        for row, event in self.block.others:
            code = codes.get(getattr(event, "actor_id", None))  # pyright: ignore[reportArgumentType]
            if code is None:
                self.events_after.append(event)
                continue
            low, high = self._bounds[code : code + 2].tolist()
            place = low + int(np.searchsorted(self.order[low:high], row))
            if place == high:
                self.events_after.append(event)
            else:
                begins[place] = True
                self.events_before.setdefault(place, []).append(event)

    def _begin_where_others_follow(self, begins: NDArray[np.bool_]) -> None:
        """Begin a piece where a row has another observation than the last one of its actor led to."""
        is_new = self.block.is_new[self.order] & ~begins
        places = np.flatnonzero(is_new)
        if not len(places):
            return
        new = self._new_at[self.order[places]]

        def note(after: NDArray[Any], seen: NDArray[Any]) -> None:
            begins[places] |= _differ(after[places - 1], seen[new])

        mapped_together(note, self.next_observations, self.block.observations)

    def observation(self, at: int) -> Any:
        """The stored observation at a place."""
        new = self._new_at[self.order[at]]
        return mapped(lambda column: column[new], self.block.observations)

    def columns(self, start: int, stop: int) -> TransitionColumns:
        """The columns of these places."""
        return TransitionColumns(*(mapped(lambda each: each[start:stop], column) for column in self._columns))

    def pieces(self) -> Iterator[tuple[int, int, bool]]:
        """Where rows that belong together begin and stop, and whether to leave them out."""
        starts = self._begins.tolist()
        left_out = (self.order[self._begins] < self._first_row).tolist()
        stops = [*starts[1:], len(self.order)] if starts else []
        return zip(starts, stops, left_out, strict=True)

    def last_rows(self) -> Iterator[tuple[ActorId, int]]:
        """The last row of each actor in the block."""
        bounds = self._bounds.tolist()
        for actor_id, start, stop in zip(self.block.actor_ids, bounds, bounds[1:], strict=False):
            if start < stop:
                yield actor_id, int(self.order[stop - 1])


def _with_first(first: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((first[None], after))


def _joined(parts: list[TransitionColumns]) -> TransitionColumns:
    def join(*columns: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate(columns)

    return TransitionColumns(*(mapped_together(join, *columns) for columns in zip(*parts, strict=True)))


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are not the same to the bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return np.ones(len(one), np.bool_)
    bits = [np.ascontiguousarray(each).reshape(len(each), -1).view(np.uint8) for each in (one, other)]
    return (bits[0] != bits[1]).any(axis=1)


def _is_same(one: Any, other: Any) -> bool:
    found: list[bool] = []

    def note(mine: NDArray[Any], its: NDArray[Any]) -> None:
        found.append(mine.dtype == its.dtype and mine.tobytes() == its.tobytes())

    mapped_together(note, one, other)
    return all(found)
