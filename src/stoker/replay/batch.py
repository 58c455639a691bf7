"""The columns of many transitions: what a replay hands to a learner."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

__all__ = ["Batch", "PrioritizedBatch"]


class Batch(NamedTuple):
    """B transitions, one tensor per column, all on one device; row i of each belongs to transition i.

    Attributes:
        observations: dtype of the replay ``[B, *observation_shape]``; of a nested observation space a dict
            or tuple of such tensors, nested as the space is.
        actions: int64 ``[B]``, as the environment took them; of an action space other than Discrete
            ``[B, *action_shape]`` of its dtype.
        rewards: float32 ``[B]``.
        next_observations: as ``observations``.
        bootstrap_masks: float32 ``[B]``: 0.0 where the episode terminated, else 1.0 (truncated ones too);
            for a transition over k steps ``gamma**(k-1)``.
    """

    observations: Any
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: Any
    bootstrap_masks: torch.Tensor


class PrioritizedBatch(NamedTuple):
    """A ``Batch`` that was drawn by priority, with what the learner owes to that.

    Attributes:
        observations: as in a ``Batch``.
        actions: as in a ``Batch``.
        rewards: as in a ``Batch``.
        next_observations: as in a ``Batch``.
        bootstrap_masks: as in a ``Batch``.
        indices: int64 ``[B]``, what ``PrioritizedReplay.update_priorities`` knows the transitions by: how
            many had been added before each. It names one transition for ever, not a row of the ring.
        weights: float32 ``[B]``, in (0, 1]: what each one's loss is multiplied with, so that drawing some
            more often does not shift where learning ends.
    """

    observations: Any
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: Any
    bootstrap_masks: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor

    @property
    def transitions(self) -> Batch:
        """The columns that a ``Batch`` has: the same tensors."""
        return Batch(*self[:5])
