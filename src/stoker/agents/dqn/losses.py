"""DQN's temporal-difference targets, and the Huber loss against them with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from stoker.replay.batch import Batch

__all__ = ["TDLoss", "td_loss", "td_targets"]

QFunction = Callable[[torch.Tensor], torch.Tensor]
"""Observations ``[B, *observation_shape]`` -> values float32 ``[B, n_actions]``."""


def td_targets(
    online: QFunction, target: QFunction, batch: Batch, gamma: float, *, double: bool
) -> torch.Tensor:
    """The target of each transition: ``r + gamma * mask * Q_target(s', a')``, float32 ``[B]``.

    ``a'`` is the best next action by the target network (Mnih et al. 2015, Algorithm 1) or, when double,
    by the online network (van Hasselt et al. 2016, eq. 4). Only termination masks: a truncated episode
    would have gone on.
    """
    with torch.no_grad():
        next_values = target(batch.next_observations)
        if double:
            next_actions = online(batch.next_observations).argmax(dim=1, keepdim=True)
            best = next_values.gather(1, next_actions).squeeze(1)
        else:
            best = next_values.amax(dim=1)
        return torch.addcmul(batch.rewards, batch.bootstrap_masks, best, value=gamma)


class TDLoss(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: to be minimized, ``[]``.
        gradient: of the loss with respect to the values, float32 ``[B, n_actions]``.
        errors: of the taken actions' values, float32 ``[B]``: value minus target.
        q_mean: the mean of the taken actions' values, ``[]``.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    errors: torch.Tensor
    q_mean: torch.Tensor


def td_loss(
    values: torch.Tensor,
    action_indices: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> TDLoss:
    """The Huber loss (delta 1, mean over the batch) of the taken actions' values.

    Args:
        values: of all actions, float32 ``[B, n_actions]``, without gradient.
        action_indices: the actions taken, counted from zero, int64 ``[B]``.
        targets: what to regress to, float32 ``[B]``.
        weights: what each transition's loss is multiplied with, float32 ``[B]``, such as the importance of a
            prioritized draw (Schaul et al. 2016, section 3.4); None: one.
    """
    indices = action_indices.unsqueeze(1)
    taken = values.gather(1, indices).squeeze(1)
    errors = taken - targets
    slopes = errors.clamp(-1.0, 1.0)
    # Within delta e * (e - e/2) = e^2 / 2; beyond it 1 * (|e| - 1/2).
    halves = torch.sub(errors, slopes, alpha=0.5)
    if weights is not None:
        slopes *= weights
    n_rows = values.shape[0]
    loss = slopes.dot(halves) / n_rows
    gradient = torch.zeros_like(values).scatter_(1, indices, slopes.div_(n_rows).unsqueeze(1))
    return TDLoss(loss, gradient, errors, taken.mean())
