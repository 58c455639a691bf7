"""One recorded episode, whatever format it comes from or goes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.journal.blocks import mapped
from stoker.nested import has_tuple
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch


class Episode(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Consecutive transitions of one episode, at least one. Compared by identity.

    Attributes:
        observations: ``[N + 1, *observation_shape]``, the last one after the last action; for Dict and Tuple
            spaces a dict or tuple of such, nested as the space is.
        actions: ``[N, *action_shape]``, nested likewise.
        rewards: float64 ``[N]``.
        status: after the last transition; ``CONTINUING``: the recording broke off there.
        seed: of the environment's reset; None: unknown.
        actor_id: the stream of episodes that it belongs to.
        policy_versions: int64 ``[N]``, of the policy that chose each action, or -1; None: all are unknown.
    """

    observations: Any
    actions: Any
    rewards: NDArray[np.float64]
    status: EpisodeStatus
    seed: int | None = None
    actor_id: ActorId = 0
    policy_versions: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def total_reward(self) -> float:
        """The undiscounted sum of the rewards."""
        return float(self.rewards.sum())

    def experiences(self) -> Iterator[Experience]:
        """The transitions, in order; their arrays share the episode's memory."""
        n = len(self)
        versions = [-1] * n if self.policy_versions is None else self.policy_versions.tolist()
        rewards = self.rewards.tolist()
        is_number = getattr(self.actions, "ndim", 0) == 1
        actions = self.actions.tolist() if is_number else self.actions
        observation = mapped(lambda part: part[0], self.observations)
        for step in range(n):
            after = mapped(lambda part, at=step + 1: part[at], self.observations)
            yield Experience(
                observation,
                actions[step] if is_number else mapped(lambda part, at=step: part[at], actions),
                rewards[step],
                after,
                self.status if step == n - 1 else EpisodeStatus.CONTINUING,
                self.actor_id,
                None,
                versions[step] if versions[step] >= 0 else None,
            )
            observation = after

    def batch(self) -> ExperienceBatch:
        """The transitions as columns, which share the episode's memory.

        Policy versions are in it if all of them are known.

        Raises:
            ConfigError: The observations or actions are of a Tuple space, which batches cannot hold.
        """
        if has_tuple(self.observations) or has_tuple(self.actions):
            raise ConfigError(
                "a batch cannot hold values of a Tuple space: use experiences(), or make it a Dict"
            )
        n, versions = len(self), self.policy_versions
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        terminated[-1], truncated[-1] = self.status.is_terminal, self.status.is_truncated
        return ExperienceBatch(
            mapped(lambda part: part[:-1], self.observations),
            self.actions,
            self.rewards,
            mapped(lambda part: part[1:], self.observations),
            terminated,
            truncated,
            (self.actor_id,) * n,
            None,
            None if versions is None or (versions < 0).any() else versions,
        )
