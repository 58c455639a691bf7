"""The result of one step of a vector environment, as columns or one transition at a time.

Guarantee: the memory of columns belongs to the round; neither the environment nor a later round writes into
it. Columns and single transitions have the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

EPISODE_EXTRAS = "stoker.episode_extras"
"""The key in the last ``info`` of a sub-environment's episode under which its ``episode_extras`` may be, in a
tuple: Gymnasium merges the mappings and the numbers of sub-environments, with the type of the first."""


Where: TypeAlias = NDArray[np.intp] | None
"""Indices as an array, which numpy takes faster than a list; None: of all sub-environments."""


class Values:
    """One value of each sub-environment, such as its observation.

    Attributes:
        all: an array ``[N, ...]`` if values are arrays or numbers of one shape; else a list.
    """

    def __init__(self, values: NDArray[Any] | list[Any]) -> None:
        self.all = values

    @cached_property
    def each(self) -> list[Any]:
        """Each by itself; arrays share the memory of ``all``."""
        return list(self.all)

    def of(self, indices: list[int], where: Where = None) -> NDArray[Any] | list[Any]:
        """Those of some sub-environments, in order; ``all`` itself for all of them."""
        values = self.all
        if len(indices) == len(values):
            return values
        if isinstance(values, list):
            return [values[index] for index in indices]
        return values[indices if where is None else where]

    def replaced(self, values: Mapping[int, Any]) -> Values:
        """Others, with these values at their indices."""
        changed = self.all.copy()
        for index, value in values.items():
            changed[index] = value
        return Values(changed)


class Outcome(NamedTuple):
    """The result of one step of the sub-environments that acted.

    Attributes:
        acted: their indices, in order.
        actor_ids: their actors.
        before: the observations that the actions were chosen for, of all sub-environments.
        actions: of all sub-environments.
        rewards: float64 ``[len(acted)]``, as the next two.
        terminated: whether an episode reached a terminal state.
        truncated: whether one was cut off, and is not terminated.
        last: the observations after the step; where an episode ended, its own last one.
        where: ``acted`` as an array; None: all acted.
    """

    acted: list[int]
    actor_ids: tuple[ActorId, ...]
    before: Values
    actions: Values
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    last: Values
    where: Where

    def batch(self) -> ExperienceBatch | None:
        """The transitions as columns; None where observations or actions are no arrays."""
        before, actions, last = (
            values.of(self.acted, self.where) for values in (self.before, self.actions, self.last)
        )
        if isinstance(before, list) or isinstance(actions, list) or isinstance(last, list):
            return None
        return ExperienceBatch(
            before, actions, self.rewards, last, self.terminated, self.truncated, self.actor_ids
        )

    def ended(self) -> list[int]:
        """The rows of ``acted`` whose episode ended, in order."""
        return (self.terminated | self.truncated).nonzero()[0].tolist()


class Round:
    """The result of a reset or a step of all sub-environments.

    Attributes:
        shown: the present observation of each.
        acting: the indices that need an action for the next step, in order.
        actor_ids: their actors; the same tuple in each round in which all act.
        where: ``acting`` as an array; None: all act.
        outcome: the result of the step; None after a reset.
        begun: the index of each that shows the first observation of an episode, and the seed of that episode;
            None where it is unknown.
    """

    def __init__(
        self,
        shown: Values,
        acting: list[int],
        actor_ids: tuple[ActorId, ...],
        where: Where,
        outcome: Outcome | None,
        begun: list[tuple[int, int | None]],
    ) -> None:
        self.shown = shown
        self.acting = acting
        self.actor_ids = actor_ids
        self.where = where
        self.outcome = outcome
        self.begun = begun

    @property
    def observations(self) -> list[Any]:
        """The present observation of each by itself, by index."""
        return self.shown.each

    def spread(self, actions: Sequence[Any]) -> Sequence[Any]:
        """Those of the acting as one for each sub-environment; None or zeros for the others."""
        if len(actions) == len(self.shown.all):
            return actions
        chosen: Any = actions
        if type(chosen) is np.ndarray:
            column: Any = np.zeros((len(self.shown.all), *chosen.shape[1:]), chosen.dtype)
            column[self.where] = chosen
            return column
        spread: list[Any] = [None] * len(self.shown.all)
        for index, action in zip(self.acting, actions, strict=True):
            spread[index] = action
        return spread

    @cached_property
    def transitions(self) -> list[Experience]:
        """One for each index that acted before, in that order; none after a reset."""
        if (done := self.outcome) is None:
            return []
        before, now, last = (values.each for values in (done.before, self.shown, done.last))
        actions: Any = done.actions.all
        if not isinstance(actions, list) and actions.ndim == 1:
            actions = actions.tolist()
        columns = done.rewards.tolist(), done.terminated.tolist(), done.truncated.tolist(), done.actor_ids
        found: list[Experience] = []
        for index, reward, terminated, truncated, actor_id in zip(done.acted, *columns, strict=True):
            status = EpisodeStatus.of(terminated, truncated)
            after = last[index] if status.is_done else now[index]
            found.append(Experience(before[index], actions[index], reward, after, status, actor_id))
        return found


def last_info(info: Mapping[str, Any], index: int, *, is_over: bool) -> dict[str, Any]:
    """The ``info`` of one sub-environment's last step, from that of all of them.

    Args:
        info: arrays by key, and a mask ``_key`` of the sub-environments that have the key, as in Gymnasium.
        index: the sub-environment.
        is_over: whether its episode ended in that step: with ``SAME_STEP``, that ``info`` is in
            ``final_info``.
    """
    final: Any = info.get("final_info") if is_over else None
    part: Mapping[str, Any] = cast("Mapping[str, Any]", final) if isinstance(final, Mapping) else info
    found: dict[str, Any] = {}
    for key, values in part.items():
        mask: Any = part.get(f"_{key}")
        if isinstance(values, np.ndarray) and cast("Any", values).ndim and (mask is None or mask[index]):
            found[key] = cast("Any", values)[index]
    return found
