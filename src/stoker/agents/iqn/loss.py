"""The quantile regression of IQN: what quantiles are learned from, and their loss with its gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch


class QuantileLoss(NamedTuple):
    """The loss of a batch.

    Attributes:
        loss: to be minimized, ``[]``.
        gradient: of the loss with respect to the quantiles, float32 ``[N, B]``.
        of_rows: each transition's loss, not weighted, float32 ``[B]``.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    of_rows: torch.Tensor


def quantile_huber_loss(
    quantiles: torch.Tensor,
    fractions: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    kappa: float = 1.0,
) -> QuantileLoss:
    """The Huber quantile regression loss (Dabney et al. 2018, eq. 3), its mean over the batch.

    Of a transition it is the sum over its N quantiles of the mean over the N' targets of
    ``|tau - [error < 0]| * huber(error) / kappa``, with ``error = target - quantile``.

    Args:
        quantiles: of the returns of the actions taken, float32 ``[N, B]``, without gradient.
        fractions: tau of each of them, float32 ``[N, B]``.
        targets: samples of the returns to regress to, float32 ``[N', B]``.
        weights: what each transition's loss is multiplied with, float32 ``[B]``, such as the importance of a
            prioritized draw (Schaul et al. 2016, section 3.4); None: one.
        kappa: the error from which on the loss grows linearly.
    """
    errors = targets.unsqueeze(0) - quantiles.unsqueeze(1)  # [N, N', B]
    slopes = errors.clamp(-kappa, kappa)
    # Within kappa e * (e - e/2) = e^2 / 2; beyond it kappa * (|e| - kappa/2).
    halves = torch.sub(errors, slopes, alpha=0.5)
    shares = fractions.unsqueeze(1)
    slopes.mul_(torch.where(errors < 0, 1.0 - shares, shares))
    n_targets, n_rows = targets.shape
    of_rows = (slopes * halves).sum(dim=(0, 1)).div_(n_targets * kappa)
    gradient = slopes.sum(dim=1).mul_(-1.0 / (n_targets * n_rows * kappa))
    if weights is None:
        return QuantileLoss(of_rows.mean(), gradient, of_rows)
    return QuantileLoss(of_rows.dot(weights) / n_rows, gradient.mul_(weights), of_rows)
