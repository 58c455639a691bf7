"""The last episodes at a glance, for dashboards and progress lines.

A ``StatsTracker`` keeps one window over all actors and one per actor. Rewards and lengths are rolling means,
so that a read costs no pass over the window; only the largest and the smallest reward do.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from stoker.stats.rolling import RollingMean

__all__ = ["EpisodeWindow", "WindowStats"]


class WindowStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last episodes in numbers; NaN while there are none.

    Attributes:
        n_episodes: episodes ever seen, also those that have left the window.
        mean_reward: mean total reward of the episodes in the window.
        max_reward: the largest total reward in the window.
        min_reward: the smallest total reward in the window.
        mean_length: mean number of transitions of the episodes in the window.
    """

    n_episodes: int
    mean_reward: float
    max_reward: float
    min_reward: float
    mean_length: float


class EpisodeWindow:
    """Keeps the last ``size`` total rewards and lengths. Updates are amortised O(1), ``stats`` O(size).

    Args:
        size: how many episodes, at least 1.

    Raises:
        ConfigError: The size is not an int above 0.
    """

    __slots__ = ("_lengths", "_n_episodes", "_rewards")

    def __init__(self, size: int) -> None:
        self._n_episodes = 0
        self._rewards = RollingMean(size)
        self._lengths = RollingMean(size)

    @property
    def n_episodes(self) -> int:
        """Episodes ever seen."""
        return self._n_episodes

    def update(self, total_reward: float | None, length: float | None) -> None:
        """Count one episode; a value that is None stays out of the means."""
        self._n_episodes += 1
        if total_reward is not None:
            self._rewards.update(total_reward)
        if length is not None:
            self._lengths.update(length)

    def stats(self) -> WindowStats:
        """The numbers as they stand."""
        rewards = self._rewards.recent()
        return WindowStats(
            n_episodes=self._n_episodes,
            mean_reward=self._rewards.value(),
            max_reward=max(rewards, default=math.nan),
            min_reward=min(rewards, default=math.nan),
            mean_length=self._lengths.value(),
        )

    def state_dict(self) -> dict[str, Any]:
        """The count and the values in the window, in plain types."""
        return {
            "n_episodes": self._n_episodes,
            "rewards": self._rewards.state_dict(),
            "lengths": self._lengths.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described; of a window of another size, the newest that fit."""
        self._n_episodes = int(state["n_episodes"])
        self._rewards.load_state_dict(state["rewards"])
        self._lengths.load_state_dict(state["lengths"])
