"""Masks of actions: an observation says which actions it allows.

Acting and learning replace the logit or the value of each forbidden choice by -inf, so that both know the
same distribution (Huang & Ontañón 2022, "A Closer Look at Invalid Action Masking in Policy Gradient
Algorithms").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.actions import Actions
from stoker.agents.observation_parts import MASK
from stoker.errors import InvalidExperience
from stoker.plain import shown
from stoker.types import EpisodeStatus, Experience, ExperienceBatch

_NAME = f"observation[{MASK!r}]"


class ActionMask:
    """The masks in observations: 1 for each choice that is allowed, 0 for the others, number by number.

    Args:
        columns: its items in a row that an agent keeps of an observation.
        actions: the actions.
    """

    def __init__(self, columns: slice, actions: Actions) -> None:
        self._columns = columns
        self._actions = actions
        self._firsts: NDArray[np.int64] = np.cumsum([0, *actions.counts[:-1]])

    def allowed(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """The choices that each of the rows allows, ``[B, n_choices]``.

        Raises:
            InvalidExperience: A row allows none.
        """
        allowed: NDArray[np.bool_] = rows[:, self._columns] != 0
        if not (fits := self._allow_some(allowed)).all():
            raise InvalidExperience(f"{_NAME} of row {int(fits.argmin())} forbids every action: allow one")
        return allowed

    def check(self, observation: Any) -> None:
        """Raise ``InvalidExperience`` for an observation, checked otherwise, that forbids every action."""
        if not self._allow_some(_masks(observation, 1)).all():
            raise InvalidExperience(f"{_NAME} forbids every action: allow one, or end the episode before")

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience`` for a forbidden action, or where an episode goes on without one."""
        actor_id, action = experience.actor_id, experience.action
        places = self._places(np.asarray(action)[None])
        if not _masks(experience.observation, 1)[0, places[0]].all():
            raise InvalidExperience(
                f"actor {actor_id!r}: action={shown(action)} is forbidden by its {_NAME}: observe the action "
                "that was chosen on this observation, or correct the mask"
            )
        is_over = experience.status is not EpisodeStatus.CONTINUING
        if not (is_over or self._allow_some(_masks(experience.next_observation, 1)).all()):
            raise InvalidExperience(
                f"actor {actor_id!r}: next_{_NAME} forbids every action, but its episode goes on: allow one, "
                "or end the episode"
            )

    def are_valid(self, batch: ExperienceBatch) -> bool:
        """Whether ``check_experience`` passes each of the batch's experiences, checked otherwise."""
        size = len(batch)
        seen, following = _masks(batch.observations, size), _masks(batch.next_observations, size)
        is_fine = self._allow_some(following) | batch.terminated | batch.truncated
        return bool(np.take_along_axis(seen, self._places(batch.actions), axis=1).all() and is_fine.all())

    def _allow_some(self, masks: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each of the masks ``[B, n_choices]`` allows a choice for each number, bool ``[B]``."""
        found: NDArray[np.bool_] = np.logical_or.reduceat(masks != 0, self._firsts, axis=1)
        return np.logical_and.reduce(found, axis=1)

    def _places(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """The choices that actions ``[B, *action_shape]`` are, as places in a mask, ``[B, size]``."""
        return self._actions.indices(actions) + self._firsts


def limited(values: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Values of all choices, ``[B, n_choices]``, with -inf for those that the masks forbid, with 0 or False.

    A mask that forbids everything limits nothing: only the last observation of an episode may have one.
    Nobody acts on it, and its value is multiplied by 0 if the episode terminated.
    """
    are_some = masks.float().amax(dim=1, keepdim=True) != 0
    return values.masked_fill((masks == 0) & are_some, -torch.inf)


def _masks(observations: Any, size: int) -> NDArray[Any]:
    """The masks of an observation, or of columns of them, ``[size, n_choices]``."""
    return np.asarray(observations[MASK]).reshape(size, -1)
