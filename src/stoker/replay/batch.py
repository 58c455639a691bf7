"""The columns of many transitions: what a replay hands to a learner."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Batch"]


class Batch(NamedTuple):
    """B transitions, one tensor per column, all on one device; row i of each belongs to transition i.

    Attributes:
        observations: dtype of the replay ``[B, *observation_shape]``.
        actions: int64 ``[B]``, as the environment took them.
        rewards: float32 ``[B]``.
        next_observations: dtype of the replay ``[B, *observation_shape]``.
        bootstrap_masks: float32 ``[B]``: 0.0 where the episode terminated, else 1.0 (truncated ones too);
            for a transition over k steps ``gamma**(k-1)``.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: torch.Tensor
    bootstrap_masks: torch.Tensor
