"""What DQN regresses to: the one-step temporal-difference target and the Huber loss against it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from stoker.replay.batch import Batch

__all__ = ["td_loss", "td_targets"]

QFunction = Callable[[torch.Tensor], torch.Tensor]
"""Observations ``[B, *observation_shape]`` -> values float32 ``[B, n_actions]``."""


def td_targets(
    online: QFunction, target: QFunction, batch: Batch, gamma: float, *, double: bool
) -> torch.Tensor:
    """What each transition says its action is worth: ``r + gamma * mask * Q_target(s', a')``.

    ``a'`` is the best next action by the target network (Mnih et al. 2015, Algorithm 1) or, when double,
    by the online network (van Hasselt et al. 2016, eq. 4). Only termination masks: a truncated episode
    would have gone on.

    Returns:
        float32 ``[B]``, without gradient.
    """
    with torch.no_grad():
        next_values = target(batch.next_observations)
        if double:
            next_actions = online(batch.next_observations).argmax(dim=1, keepdim=True)
            best = next_values.gather(1, next_actions).squeeze(1)
        else:
            best = next_values.amax(dim=1)
        return batch.rewards + gamma * batch.bootstrap_masks * best


def td_loss(
    online: QFunction, batch: Batch, action_indices: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The Huber loss (delta 1, mean over the batch) of the taken actions' values, and these values.

    Args:
        online: the network that learns.
        batch: the transitions.
        action_indices: the actions taken, counted from zero, int64 ``[B]``.
        targets: what to regress to, float32 ``[B]``.

    Returns:
        The loss ``[]`` with gradient, and the values float32 ``[B]``.
    """
    values = online(batch.observations).gather(1, action_indices.unsqueeze(1)).squeeze(1)
    return functional.smooth_l1_loss(values, targets), values
