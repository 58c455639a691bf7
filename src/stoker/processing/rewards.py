"""Rewards as an agent learns from them: divided by the scale of returns, and clipped.

Records of episodes and evaluations keep the environment's own rewards. The statistics depend on the order of
transitions alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stoker.errors import ConfigError
from stoker.types import ActorId, Experience

__all__ = ["RewardScaler"]

_TINY = 1e-8  # added to the variance: rewards that hardly change are not blown up without limit


class RewardScaler:
    """Divides rewards by the standard deviation of discounted returns, then clips them.

    The return of an actor is the discounted sum of its episode's rewards so far; the variance is that of all
    actors' returns together (Engstrom et al. 2020, "Implementation Matters in Deep RL", section 3; like
    Stable-Baselines3's ``VecNormalize``). Rewards are not centered: that would change which policy is best.

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
        self._count = (
            1  # the 0 that a return begins with: else the first ones, nearly equal, would scale alone
        )
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean (Welford 1962)

    @property
    def changes_rewards(self) -> bool:
        """Whether it does anything."""
        return self._normalize or self._clip is not None

    @property
    def scale(self) -> float:
        """What rewards are divided by at present: 1 until there was a return other than 0."""
        return math.sqrt(self._squares / self._count + _TINY) if self._normalize and self._squares else 1.0

    def scaled(self, experience: Experience) -> float:
        """The reward to learn from; with ``normalize`` the transition enters the statistics first."""
        reward = float(experience.reward)
        if self._normalize:
            self._take_in(experience.actor_id, reward)
            if experience.status.is_done:
                self.give_up(experience.actor_id)
            reward /= self.scale
        if self._clip is not None:
            reward = max(-self._clip, min(self._clip, reward))
        return reward

    def give_up(self, actor_id: ActorId) -> None:
        """End the actor's episode."""
        self._returns.pop(actor_id, None)

    def state_dict(self) -> dict[str, Any]:
        """The statistics and the returns of running episodes."""
        return {
            "count": self._count,
            "mean": self._mean,
            "squares": self._squares,
            "actor_ids": list(self._returns),
            "returns": list(self._returns.values()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._count = int(state["count"])
        self._mean = float(state["mean"])
        self._squares = float(state["squares"])
        self._returns = dict(zip(state["actor_ids"], state["returns"], strict=True))

    def _take_in(self, actor_id: ActorId, reward: float) -> None:
        found = self._returns[actor_id] = self._returns.get(actor_id, 0.0) * self._gamma + reward
        self._count += 1
        shift = found - self._mean
        self._mean += shift / self._count
        self._squares += shift * (found - self._mean)
