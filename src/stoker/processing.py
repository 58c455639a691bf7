"""Process experiences for an agent: normalize observations, scale rewards and build n-step transitions.

    experience --> reward clipped, or scaled --> n-step window --> transitions

With several steps per transition a reward travels back n steps at each target instead of one, which matters
most when the target network is copied seldom. The actions between are those that were taken: there is no
correction for exploration (Hessel et al. 2018, "Rainbow", section 3; Sutton & Barto 2018, section 7.1).
All statistics depend on the order of transitions alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.stats.aggregators import Std
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

_MOMENTS_BATCH = 100
_TINY = 1e-8  # added to variances, so that a nearly constant value is not scaled up without limit

Transition = tuple[Experience, float]
"""A transition over k steps with the sum of their discounted rewards, and the factor of ``gamma`` times the
value of where it leads: ``gamma**(k-1)``, or 0 where the episode terminated."""


class RunningMoments:
    """Mean and variance of a stream of vectors, merged batch by batch (Chan, Golub & LeVeque 1979).

    An agent learns slowly from observations whose parts differ much in scale (an angle of 0.1 beside a
    position of 2), unless they are brought to mean 0 and variance 1.

    Args:
        size: the length of a vector.
    """

    def __init__(self, size: int) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(size)
        self._squares: NDArray[np.float64] = np.zeros(size)  # sums of squared deviations from the mean
        self._pending: list[Any] = []

    def add(self, observation: Any) -> bool:
        """Add one observation; return whether it completed a batch, which changes the statistics."""
        # A copy, because an environment may write into its array later. Flat, as a loaded row is.
        self._pending.append(np.array(observation).reshape(-1))
        if len(self._pending) < _MOMENTS_BATCH:
            return False
        rows = self._rows()
        self._pending.clear()
        n_new, n_old = len(rows), self._count
        mean = rows.mean(axis=0)
        shift = mean - self._mean
        self._count = n_old + n_new
        self._mean = self._mean + shift * (n_new / self._count)
        deviations = ((rows - mean) ** 2).sum(axis=0)
        self._squares = self._squares + deviations + shift**2 * (n_old * n_new / self._count)
        return True

    def mean(self) -> torch.Tensor:
        """float32 ``[size]``; zeros before the first batch."""
        return torch.as_tensor(self._mean.astype(np.float32))

    def scale(self) -> torch.Tensor:
        """One over the standard deviation, float32 ``[size]``; ones before the first batch."""
        if self._count == 0:
            return torch.ones(len(self._mean))
        return torch.as_tensor((1 / np.sqrt(self._squares / self._count + _TINY)).astype(np.float32))

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the observations of the open batch."""
        return {
            "count": self._count,
            "mean": torch.as_tensor(self._mean.copy()),
            "squares": torch.as_tensor(self._squares.copy()),
            "pending": torch.as_tensor(
                self._rows()
            ).clone(),  # an empty array may have the address of another
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._count = int(state["count"])
        self._mean = state["mean"].cpu().numpy().copy()
        self._squares = state["squares"].cpu().numpy().copy()
        self._pending = list(state["pending"].cpu().numpy().copy())

    def _rows(self) -> NDArray[np.float64]:
        return np.array(self._pending, dtype=np.float64).reshape(-1, len(self._mean))


class RewardScaler:
    """Divides rewards by the standard deviation of discounted returns, then clips them.

    The return of an actor is the discounted sum of its episode's rewards so far; the variance is that of all
    actors' returns together (Engstrom et al. 2020, "Implementation Matters in Deep RL", section 3; like
    Stable-Baselines3's ``VecNormalize``). Rewards are not centered: that would change which policy is best.
    Records of episodes and evaluations keep the environment's own rewards.

    Args:
        gamma: the discount per step.
        normalize: whether to divide; without it rewards are only clipped.
        clip: rewards are limited to ``[-clip, clip]``, after dividing; None: not at all.

    Raises:
        ConfigError: ``clip`` is not above 0.
    """

    def __init__(self, gamma: float, *, normalize: bool = False, clip: float | None = None) -> None:
        if clip is not None and not clip > 0:
            raise ConfigError(f"clip={clip!r}: rewards are clipped to [-clip, clip]; give a number above 0")
        self._gamma = gamma
        self._normalize = normalize
        self._clip = clip
        self._returns: dict[ActorId, float] = {}  # of the running episodes
        # It begins with one return of 0: the first returns alone, nearly equal, would be divided by nearly 0.
        self._spread = Std(count=1)

    @property
    def changes_rewards(self) -> bool:
        """Whether it does anything."""
        return self._normalize or self._clip is not None

    @property
    def scale(self) -> float:
        """The divisor of rewards: 1 until there was a return other than 0."""
        spread = self._spread
        return math.sqrt(spread.squares / spread.count + _TINY) if self._normalize and spread.squares else 1.0

    def scaled(self, experience: Experience) -> float:
        """The reward to learn from; with ``normalize`` the transition enters the statistics first."""
        reward = float(experience.reward)
        if self._normalize:
            actor_id = experience.actor_id
            total = self._returns[actor_id] = self._returns.get(actor_id, 0.0) * self._gamma + reward
            self._spread.update(total)
            if experience.status.is_done:
                self.give_up(actor_id)
            reward /= self.scale
        if self._clip is not None:
            reward = max(-self._clip, min(self._clip, reward))
        return reward

    def scaled_batch(self, batch: ExperienceBatch) -> NDArray[np.float64]:
        """The rewards of a batch, ``[N]``, each as ``scaled`` gives it."""
        if self._normalize:
            return np.array([self.scaled(experience) for experience in batch.experiences()])
        return batch.rewards if self._clip is None else batch.rewards.clip(-self._clip, self._clip)

    def give_up(self, actor_id: ActorId) -> None:
        """End the actor's episode."""
        self._returns.pop(actor_id, None)

    def state_dict(self) -> dict[str, Any]:
        """The statistics and the returns of running episodes."""
        return {
            **self._spread.state_dict(),
            "actor_ids": list(self._returns),
            "returns": list(self._returns.values()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._spread.load_state_dict(state)
        self._returns = dict(zip(state["actor_ids"], state["returns"], strict=True))


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
        changes_steps: whether it changes anything. If not, each experience is a transition already, and may
            be stored without a call of ``process``.

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
        self.changes_steps: bool = n_step > 1 or self._rewards.changes_rewards

    def process(self, experience: Experience) -> Sequence[Transition]:
        """Process one experience; return the transitions that are now complete, oldest first.

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

    def give_up_all(self) -> Sequence[Transition]:
        """End the unfinished episodes of all actors, as ``give_up`` does each."""
        return [transition for actor_id in list(self._windows) for transition in self.give_up(actor_id)]

    def state_dict(self) -> dict[str, Any]:
        """The open windows, and the statistics of rewards with the returns of running episodes.

        Observations and actions are numbers, arrays, or dicts and tuples of these, however nested.
        """
        return {
            "windows": [
                [actor_id, [_saved_step(step) for step in window]]
                for actor_id, window in self._windows.items()
            ],
            "rewards": self._rewards.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._windows = {
            actor_id: deque(
                # An ended episode has no open window.
                Experience(
                    *(_with_leaves(_restored, part) for part in step),
                    status=EpisodeStatus.CONTINUING,
                    actor_id=actor_id,
                )
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


def _saved_step(step: Experience) -> list[Any]:
    parts = (step.observation, step.action, step.reward, step.next_observation)
    return [_with_leaves(_saved, part) for part in parts]


def _with_leaves(change: Callable[[Any], Any], value: Any) -> Any:
    """The value, however nested in dicts and tuples, with each leaf changed."""
    if isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value)
        return {key: _with_leaves(change, part) for key, part in parts.items()}
    if isinstance(value, tuple):
        return tuple(_with_leaves(change, part) for part in cast("tuple[Any, ...]", value))
    return change(value)


def _saved(leaf: Any) -> Any:
    """A leaf in the types of a state: arrays as tensors with their own memory."""
    if type(leaf) in (bool, int, float):  # of numpy, a subclass of float could not be saved
        return leaf
    array = np.asarray(leaf)
    if array.dtype == np.longdouble:  # which torch lacks
        array = array.astype(np.float64)
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("=")))


def _restored(leaf: Any) -> Any:
    return leaf.cpu().numpy().copy() if isinstance(leaf, torch.Tensor) else leaf
