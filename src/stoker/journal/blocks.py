"""Transitions of a journal as columns of thousands of rows, for those who look at all of it.

What a session learns again comes event by event. Here observations are given only where the journal stores
them: the others are what their actor's last transition led to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from stoker.journal.events import OtherEvent
from stoker.types import ActorId


class TransitionColumns(NamedTuple):
    """Values of transitions with a row for each; columns of nested values are dicts and tuples of arrays.

    Attributes:
        actions: ``[N, *action_shape]``.
        rewards: float64 ``[N]``.
        next_observations: ``[N, *observation_shape]``.
        ends: uint8 ``[N]``: 0 where the episode goes on, 1 where it terminated, 2 where it was truncated.
        policy_versions: int64 ``[N]``; -1: unknown.
    """

    actions: Any
    rewards: Any
    next_observations: Any
    ends: Any
    policy_versions: Any


class TransitionBlock(NamedTuple):
    """Transitions that follow one another in a journal, with the events between them.

    Attributes:
        actor_ids: the actors, each once.
        actors: int64 ``[N]``, whose transition each row is, as a place in ``actor_ids``.
        is_new: bool ``[N]``: whether the row's observation is stored.
        observations: a row for each that is new. The others are the last next observation of their actor in
            this segment, among the rows with the same ``is_batched``; or that of an ``EpisodeStarted``.
        columns: the transitions.
        others: the other events, each with the row before which it stands.
        is_batched: whether they were observed in batches.
        first_step: environment steps before the first row.
        begins_segment: whether no observation is known from rows before.
    """

    actor_ids: Sequence[ActorId]
    actors: NDArray[np.int64]
    is_new: NDArray[np.bool_]
    observations: Any
    columns: TransitionColumns
    others: Sequence[tuple[int, OtherEvent]]
    is_batched: bool
    first_step: int
    begins_segment: bool

    @property
    def n_events(self) -> int:
        """How many events of the journal these are."""
        return len(self.actors) + len(self.others)

    def rows(self, stop: int) -> TransitionBlock:
        """The first transitions, up to row ``stop``, and the events before that row."""
        n_new = int(self.is_new[:stop].sum())
        return self._replace(
            actors=self.actors[:stop],
            is_new=self.is_new[:stop],
            observations=mapped(lambda column: column[:n_new], self.observations),
            columns=TransitionColumns(*(mapped(lambda each: each[:stop], part) for part in self.columns)),
            others=[other for other in self.others if other[0] < stop],
        )

    def events(self, n: int) -> TransitionBlock:
        """The first ``n`` events."""
        n_others = 0
        while n_others < len(self.others) and self.others[n_others][0] + n_others < n:
            n_others += 1
        cut = self.rows(n - n_others)
        return cut._replace(others=self.others[:n_others])


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """A nested value with each of its arrays changed; a dict or tuple stays one."""
    return mapped_together(change, value)


def mapped_together(change: Callable[..., Any], *values: Any) -> Any:
    """The same for values that are nested alike: the function takes an array of each."""
    first = values[0]
    if isinstance(first, dict):
        keys = cast("dict[Any, Any]", first)
        return {key: mapped_together(change, *(value[key] for value in values)) for key in keys}
    if isinstance(first, tuple):
        return tuple(mapped_together(change, *parts) for parts in zip(*values, strict=True))
    return change(*values)
