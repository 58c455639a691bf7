"""n-step transitions: the rewards of several steps, then the value of where they led.

A reward then travels back n steps at each target instead of one, which matters most when the target network
is copied seldom. The actions between are those that were taken: no correction for exploration (Hessel et
al. 2018, "Rainbow", section 3, eq. for n-step targets; Sutton & Barto 2018, section 7.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["NStepWindows", "Transition"]

Transition = tuple[Experience, float]
"""From an observation to the one k steps later, with the sum of the discounted rewards between, and what
``gamma`` times the value of the latter is multiplied with: ``gamma**(k-1)``, or 0 where it was terminal."""


class NStepWindows:
    """One window of the last transitions per actor, so that interleaved actors never mix.

    Args:
        n_step: steps per transition, at least 1; fewer at an episode's end.
        gamma: the discount per step, from 0 to 1.

    Raises:
        ConfigError: A setting is out of its range.
    """

    def __init__(self, n_step: int, gamma: float) -> None:
        if n_step < 1:
            raise ConfigError(f"n_step={n_step!r}: a transition takes at least 1 step")
        if not 0 <= gamma <= 1:
            raise ConfigError(f"gamma={gamma!r}: the discount of a step is from 0 to 1")
        self._n_step = n_step
        self._gamma = gamma
        self._windows: dict[ActorId, deque[Experience]] = {}

    def add(self, experience: Experience) -> Sequence[Transition]:
        """Take one transition in; return those that are now complete, oldest first."""
        window = self._windows.get(experience.actor_id)
        if window is None:
            window = self._windows[experience.actor_id] = deque()
        window.append(experience)
        if experience.status is not EpisodeStatus.CONTINUING:
            return self.give_up(experience.actor_id)
        if len(window) == self._n_step:
            return (self._next(window),)
        # Longer only after a load with another n_step.
        return [self._next(window) for _ in range(len(window) - self._n_step + 1)]

    def give_up(self, actor_id: ActorId) -> Sequence[Transition]:
        """Return what is left of an actor's episode, ending with its last transition, oldest first."""
        window = self._windows.pop(actor_id, deque())
        return [self._next(window) for _ in range(len(window))]

    def state_dict(self) -> dict[str, Any]:
        """The open windows, step by step, in columns: an entry per step, oldest first within a window.

        Observations and actions are numbers, arrays, or dicts and tuples of these, however nested.
        """
        steps = [step for window in self._windows.values() for step in window]
        return {
            "observations": _column([step.observation for step in steps]),
            "actions": _column([step.action for step in steps]),
            "rewards": [float(step.reward) for step in steps],
            "next_observations": _column([step.next_observation for step in steps]),
            "actor_ids": [step.actor_id for step in steps],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict`` described."""
        self._windows.clear()
        steps = zip(
            _values(state["observations"]),
            _values(state["actions"]),
            state["rewards"],
            _values(state["next_observations"]),
            state["actor_ids"],
            strict=True,
        )
        for observation, action, reward, next_observation, actor_id in steps:
            experience = Experience(
                observation,
                action,
                reward,
                next_observation,
                EpisodeStatus.CONTINUING,  # an ended episode has no open window
                actor_id,
            )
            self._windows.setdefault(actor_id, deque()).append(experience)

    def _next(self, window: deque[Experience]) -> Transition:
        """The transition from the window's first observation to its last; the first one leaves it."""
        last = window[-1]
        total, discount = 0.0, 1.0
        for step in window:
            total += discount * float(step.reward)  # a numpy number would be summed in its own precision
            discount *= self._gamma
        first = window.popleft()
        n_more = len(window)
        transition = Experience(
            first.observation, first.action, total, last.next_observation, last.status, first.actor_id
        )
        return transition, last.status.bootstrap_mask * self._gamma**n_more


def _column(values: Sequence[Any]) -> Any:
    """Values in types of a state: nested ones as a column per part, arrays that are alike stacked."""
    first = values[0] if values else None
    if isinstance(first, Mapping):
        keys = list(cast("Mapping[Any, Any]", first))
        return {key: _column([value[key] for value in values]) for key in keys}
    if isinstance(first, tuple):
        return tuple(_column(parts) for parts in zip(*values, strict=True))
    arrays = [np.asarray(value) for value in values]
    if all(array.ndim == 0 and array.dtype.kind in "iu" for array in arrays):
        return [int(array) for array in arrays]
    if len({(array.dtype, array.shape) for array in arrays}) == 1:
        return _tensor(np.stack(arrays))
    return [_tensor(array) for array in arrays]  # stacked, some would change their dtype


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    if array.dtype == np.longdouble:  # which torch lacks
        array = array.astype(np.float64)
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")))


def _values(column: Any) -> Iterable[Any]:
    """The values of which ``_column`` made a column, each in its own memory: a view would keep all."""
    if isinstance(column, Mapping):
        named = cast("Mapping[Any, Any]", column)
        rows = zip(*map(_values, named.values()), strict=True)
        return [dict(zip(named, row, strict=True)) for row in rows]
    if isinstance(column, tuple):
        return list(zip(*map(_values, cast("tuple[Any, ...]", column)), strict=True))
    return [each.cpu().numpy().copy() if isinstance(each, torch.Tensor) else each for each in column]
