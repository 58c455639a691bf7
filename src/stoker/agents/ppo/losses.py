"""The loss of PPO for one minibatch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from stoker.agents.ppo.config import PPOConfig

__all__ = ["Losses", "Samples", "ppo_losses"]

_TINY = 1e-8


class Samples(NamedTuple):
    """Transitions to learn from; each has one row.

    Attributes:
        inputs: what the network's body sees, ``[B, ...]``.
        actions: as the distribution evaluates them, ``[B, action_size]``.
        log_probs: of the actions when they were chosen, float32 ``[B]``.
        values: of the observations when the actions were chosen, float32 ``[B]``.
        advantages: float32 ``[B]``.
        returns: what values regress to, float32 ``[B]``.
    """

    inputs: torch.Tensor
    actions: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def rows(self, indices: torch.Tensor) -> Samples:
        """Those of these indices, in their order."""
        return Samples(*(tensor.index_select(0, indices) for tensor in self))


class Losses(NamedTuple):
    """Scalars; all but ``loss`` without gradient.

    Attributes:
        loss: what is minimized: ``policy_loss + vf_coef * value_loss - ent_coef * entropy``.
        policy_loss: the clipped surrogate objective, negated.
        value_loss: the mean squared error of the values.
        entropy: of the policy, the mean over the rows.
        approx_kl: how far the policy has moved since the actions were chosen, the mean of
            ``(ratio - 1) - log(ratio)`` (Schulman 2020, "Approximating KL Divergence", k3).
        clip_fraction: the share of actions whose probability has moved beyond the clip range.
    """

    loss: torch.Tensor
    policy_loss: torch.Tensor
    value_loss: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor
    clip_fraction: torch.Tensor


def ppo_losses(
    samples: Samples,
    log_probs: torch.Tensor,
    entropies: torch.Tensor,
    values: torch.Tensor,
    clip_range: float,
    config: PPOConfig,
) -> Losses:
    """The clipped surrogate loss (Schulman et al. 2017, eqs. 7 and 9) for the network's present outputs.

    The value loss is the mean squared error, not half of it. With ``value_clip_range`` it is that of the
    value moved by no more than this. Advantages are normalized by the sample standard deviation of the batch;
    a batch of one row has none, and its advantage stays as it is. All as in Stable-Baselines3.
    Log-probabilities, entropies and values are ``[B]``; the clip range is the epsilon of eq. 7.
    """
    advantages = samples.advantages
    if config.normalize_advantages and len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + _TINY)
    log_ratios = log_probs - samples.log_probs
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1.0 - clip_range, 1.0 + clip_range)
    policy_loss = -torch.min(advantages * ratios, advantages * clipped).mean()
    if config.value_clip_range is not None:
        moved = (values - samples.values).clamp(-config.value_clip_range, config.value_clip_range)
        values = samples.values + moved
    value_loss = functional.mse_loss(values, samples.returns)
    entropy = entropies.mean()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    with torch.no_grad():
        approx_kl = (ratios - 1.0 - log_ratios).mean()
        clip_fraction = ((ratios - 1.0).abs() > clip_range).float().mean()
    return Losses(loss, policy_loss.detach(), value_loss.detach(), entropy.detach(), approx_kl, clip_fraction)
