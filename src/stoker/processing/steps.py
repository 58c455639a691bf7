"""From an actor's experiences to the transitions that a replay holds.

    experience --> reward clipped, or scaled --> n-step window --> transitions

With several steps per transition a reward travels back n steps at each target instead of one, which matters
most when the target network is copied seldom. The actions between are those that were taken: there is no
correction for exploration (Hessel et al. 2018, "Rainbow", section 3; Sutton & Barto 2018, section 7.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.processing.rewards import RewardScaler
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["StepProcessor", "Transition"]

Transition = tuple[Experience, float]
"""A transition over k steps with the sum of their discounted rewards, and the factor of ``gamma`` times the
value of where it leads: ``gamma**(k-1)``, or 0 where the episode terminated."""


class StepProcessor:
    """Turns experiences into transitions to store: first scales rewards, then sums them over several steps.

    One object for all actors of an agent; interleaved actors never mix. The same order of experiences gives
    the same transitions. The loop that it serves::

        for experience in experiences:
            for transition, mask in processor.process(experience):
                replay.add(transition, mask)

    Args:
        n_step: steps per transition, at least 1; fewer at an episode's end.
        gamma: the discount per step, from 0 to 1.
        normalize_rewards: whether rewards are divided by the standard deviation of discounted returns.
        clip_rewards: rewards are limited to ``[-clip_rewards, clip_rewards]``, after dividing and before they
            are summed over steps; None: not at all.

    Attributes:
        changes_steps: whether it does anything. If not, each experience is a transition unchanged, and may
            be stored without asking.

    Raises:
        ConfigError: A setting is out of its range.
    """

    def __init__(
        self,
        n_step: int = 1,
        gamma: float = 0.99,
        *,
        normalize_rewards: bool = False,
        clip_rewards: float | None = None,
    ) -> None:
        if n_step < 1:
            raise ConfigError(f"n_step={n_step!r}: give an int of at least 1")
        if not 0 <= gamma <= 1:
            raise ConfigError(f"gamma={gamma!r}: give a discount from 0 to 1")
        self._n_step = n_step
        self._gamma = gamma
        self._windows: dict[ActorId, deque[Experience]] = {}
        self._rewards = RewardScaler(gamma, normalize=normalize_rewards, clip=clip_rewards)
        self.changes_steps = n_step > 1 or self._rewards.changes_rewards

    def process(self, experience: Experience) -> Sequence[Transition]:
        """Take one experience in; return the transitions that are now complete, oldest first.

        An experience that ends an episode, for either reason, completes all of that actor's. Transitions
        carry no policy extras.
        """
        if self._rewards.changes_rewards:
            experience = msgspec.structs.replace(experience, reward=self._rewards.scaled(experience))
        window = self._windows.get(experience.actor_id)
        if window is None:
            window = self._windows[experience.actor_id] = deque()
        window.append(experience)
        if experience.status is not EpisodeStatus.CONTINUING:
            return self._closed(experience.actor_id)
        if len(window) == self._n_step:
            return (self._next(window),)
        # Longer only after a load with another n_step.
        return [self._next(window) for _ in range(len(window) - self._n_step + 1)]

    def give_up(self, actor_id: ActorId) -> Sequence[Transition]:
        """End an actor's unfinished episode; return its remaining transitions, oldest first.

        They lead to its last observation, whose value counts: nothing says that the episode ended there.
        """
        self._rewards.give_up(actor_id)
        return self._closed(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """The open windows, and the statistics of rewards with the returns of running episodes.

        Observations and actions are numbers, arrays, or dicts and tuples of these, however nested.
        """
        return {
            "windows": [
                [actor_id, [[_saved(part) for part in _parts(step)] for step in window]]
                for actor_id, window in self._windows.items()
            ],
            "rewards": self._rewards.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._windows = {
            actor_id: deque(
                # An ended episode has no open window.
                Experience(*map(_restored, step), status=EpisodeStatus.CONTINUING, actor_id=actor_id)
                for step in steps
            )
            for actor_id, steps in state["windows"]
        }
        self._rewards.load_state_dict(state["rewards"])

    def _closed(self, actor_id: ActorId) -> Sequence[Transition]:
        window = self._windows.pop(actor_id, deque())
        return [self._next(window) for _ in range(len(window))]

    def _next(self, window: deque[Experience]) -> Transition:
        """The transition from the window's first observation to its last; the first one leaves it."""
        last = window[-1]
        total, discount = 0.0, 1.0
        for step in window:
            total += discount * float(step.reward)  # a numpy number would be summed in its own precision
            discount *= self._gamma
        first = window.popleft()
        transition = Experience(
            first.observation, first.action, total, last.next_observation, last.status, first.actor_id
        )
        return transition, last.status.bootstrap_mask * self._gamma ** len(window)


def _parts(step: Experience) -> tuple[Any, ...]:
    return step.observation, step.action, step.reward, step.next_observation


def _saved(value: Any) -> Any:
    """A value in the types of a state: arrays as tensors with their own memory."""
    if isinstance(value, Mapping):
        return {key: _saved(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, tuple):
        return tuple(_saved(part) for part in cast("tuple[Any, ...]", value))
    if type(value) in (bool, int, float):  # of numpy, a subclass of float could not be saved
        return value
    array = np.asarray(value)
    if array.dtype == np.longdouble:  # which torch lacks
        array = array.astype(np.float64)
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")))


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _restored(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, tuple):
        return tuple(_restored(part) for part in cast("tuple[Any, ...]", value))
    return value.cpu().numpy().copy() if isinstance(value, torch.Tensor) else value
