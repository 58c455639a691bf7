"""Cut rows of transitions, which come in blocks of columns, into episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import gymnasium
import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.data.episodes import Episode
from stoker.data.leaves import nested
from stoker.types import ActorId, EpisodeStatus

Array = NDArray[Any]


class Rows(msgspec.Struct, frozen=True, eq=False):
    """Consecutive transitions as columns.

    Attributes:
        observations: one array for each leaf of the space, ``[N, *shape]``.
        actions: likewise.
        rewards: ``[N]``.
        next_observations: as ``observations``; None: each row's is the observation of the next.
        terminated: bool ``[N]``.
        truncated: bool ``[N]``.
        episodes: an integer ``[N]`` that changes from one episode to the next; None: the two flags tell.
        policy_versions: int64 ``[N]``, or None.
        seeds: int64 ``[N]``, -1: unknown; or None.
        actors: integers ``[N]``, places in the list of actors; or None.
    """

    observations: list[Array]
    actions: list[Array]
    rewards: Array
    next_observations: list[Array] | None
    terminated: Array
    truncated: Array
    episodes: Array | None = None
    policy_versions: Array | None = None
    seeds: Array | None = None
    actors: Array | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(*(_part(getattr(self, name), rows) for name in self.__struct_fields__))


def _part(column: Any, rows: slice) -> Any:
    if isinstance(column, list):
        return [each[rows] for each in cast("list[Array]", column)]
    return None if column is None else column[rows]


class Cutter:
    """Cuts rows into episodes.

    An episode ends at a row that is terminated or truncated, and where the next row does not continue it:
    its number is another, or its observation is not this row's next one, bit by bit. Such an episode has the
    status ``CONTINUING``.

    Without next observations, a terminated episode ends with its last observation once more, which nothing
    bootstraps from; the last transition of any other is dropped, as in ``d4rl.qlearning_dataset``.

    Args:
        observation_space: of the data set.
        action_space: likewise.
        actors: the actor ids that ``Rows.actors`` counts in.
        ends: the status of the last row of an episode by its number, where there are no flags.

    Attributes:
        n_dropped: the transitions that were dropped.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        actors: list[ActorId],
        ends: EpisodeStatus = EpisodeStatus.CONTINUING,
    ) -> None:
        self._spaces = observation_space, action_space
        self._actors = actors
        self._ends = ends
        self.n_dropped: int = 0

    def episodes(self, blocks: Iterable[Rows]) -> Iterator[Episode]:
        """The episodes, in order; the longest one and a block are in memory."""
        pending: list[Rows] = []
        for block in blocks:
            if not len(block):
                continue
            if pending and not _continues(pending[-1][-1:], block[:1]):
                yield from self._finished(pending)
                pending = []
            start = 0
            for end in (np.flatnonzero(_ends_in(block)) + 1).tolist():
                yield from self._finished([*pending, block[start:end]])
                pending, start = [], end
            if start < len(block):
                pending.append(block[start:])
        if pending:
            yield from self._finished(pending)

    def _finished(self, parts: list[Rows]) -> Iterator[Episode]:
        rows = parts[0] if len(parts) == 1 else _joined(parts)
        status = EpisodeStatus.of(bool(rows.terminated[-1]), bool(rows.truncated[-1]))
        if status is EpisodeStatus.CONTINUING:
            status = self._ends
        observations = rows.observations
        if rows.next_observations is not None:
            observations = [
                np.concatenate((each, after[-1:]))
                for each, after in zip(observations, rows.next_observations, strict=True)
            ]
        elif status is EpisodeStatus.TERMINATED:
            observations = [np.concatenate((each, each[-1:])) for each in observations]
        else:
            self.n_dropped += 1
            rows = rows[:-1]
            if not len(rows):
                return
        versions, seeds, actors = rows.policy_versions, rows.seeds, rows.actors
        seed = -1 if seeds is None else int(seeds[0])
        yield Episode(
            observations=nested(self._spaces[0], iter(observations)),
            actions=nested(self._spaces[1], iter(rows.actions)),
            rewards=rows.rewards.astype(np.float64, copy=False),
            status=status,
            seed=seed if seed >= 0 else None,
            actor_id=self._actors[0 if actors is None else int(actors[0])],
            policy_versions=None if versions is None or (versions < 0).all() else versions,
        )


def _ends_in(rows: Rows) -> NDArray[np.bool_]:
    """Which rows are the last of an episode, as far as this block tells."""
    ends = rows.terminated | rows.truncated
    if rows.episodes is not None:
        ends[:-1] |= rows.episodes[1:] != rows.episodes[:-1]
    for each, after in zip(rows.observations, rows.next_observations or (), strict=False):
        ends[:-1] |= (_bits(after[:-1]) != _bits(each[1:])).any(1)
    return ends


def _continues(last: Rows, first: Rows) -> bool:
    if last.episodes is not None and first.episodes is not None and last.episodes[0] != first.episodes[0]:
        return False
    after = last.next_observations or ()
    return all(
        one.tobytes() == other.tobytes() for one, other in zip(after, first.observations, strict=False)
    )


def _bits(array: Array) -> Array:
    """Rows of unsigned integers that are equal where the bits are: NaN equals itself."""
    return (
        np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:])).view(f"u{array.itemsize}")
    )


def _joined(parts: list[Rows]) -> Rows:
    columns: list[Any] = []
    for name in Rows.__struct_fields__:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], list):
            columns.append([np.concatenate(each) for each in zip(*values, strict=True)])
        else:
            columns.append(None if values[0] is None else np.concatenate(values))
    return Rows(*columns)
