"""Batches: the columns of many transitions, as a replay hands them to a learner."""

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
    """A ``Batch`` that was drawn by priority: its columns, and two more.

    Attributes:
        indices: int64 ``[B]``, for ``PrioritizedReplay.update_priorities``: how many transitions had been
            added before each. An index names one transition for ever, not a row of the ring.
        weights: float32 ``[B]``, in (0, 1]: the factor of each one's loss, which corrects the bias of drawing
            some more often.
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
        """The columns of a ``Batch``: the same tensors."""
        return Batch(*self[:5])
