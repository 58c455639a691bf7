"""The loss of PPO (Schulman et al. 2017) for a minibatch of transitions, and its gradients by the outputs."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stoker.agents.ppo.config import PPOConfig

_TINY = 1e-8
_MOST_LOG_RATIO = 20.0
"""Beyond it a ratio is clipped anyway. A wrong log-probability from outside would make it infinite."""


class Samples(NamedTuple):
    """Transitions to learn from; each has one row.

    Attributes:
        inputs: what the network's body sees, ``[B, ...]``.
        actions: as the distribution evaluates them, ``[B, action_size]``.
        log_probs: of the actions when they were chosen, float32 ``[B]``.
        values: of the observations when the actions were chosen, float32 ``[B]``.
        advantages: float32 ``[B]``.
        returns: what values regress to, float32 ``[B]``.
        masks: which choices were allowed, bool ``[B, n_parameters]``; ``[B, 0]``: all.
    """

    inputs: torch.Tensor
    actions: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    masks: torch.Tensor

    def shuffled(self, order: torch.Tensor) -> Samples:
        """Those of these indices, in their order."""
        return Samples(*(tensor.index_select(0, order) for tensor in self))

    def rows(self, start: int, stop: int) -> Samples:
        """A range of them; shares their memory."""
        return Samples(*(tensor[start:stop] for tensor in self))

    def normalized(self, batch_size: int) -> Samples:
        """With the advantages of each minibatch divided by their sample standard deviation, around 0.

        A minibatch of one has none, and its advantage stays as it is; all as in Stable-Baselines3.
        """
        n_whole = len(self.advantages) // batch_size * batch_size
        parts = self.advantages[:n_whole].view(-1, batch_size), self.advantages[n_whole:].view(1, -1)
        return self._replace(
            advantages=torch.cat([_normalized(part).view(-1) for part in parts if part.numel()])
        )

    def policy_gradient(self, log_probs: torch.Tensor, clip_range: float) -> torch.Tensor:
        """The gradient of the policy loss by these log-probabilities ``[B]``."""
        ratios = (log_probs - self.log_probs).clamp_(max=_MOST_LOG_RATIO).exp_()
        gains = self.advantages * ratios
        # A ratio has a gradient where the surrogate follows it; d ratio = ratio * d log_prob.
        clipped = ratios.clamp_(1.0 - clip_range, 1.0 + clip_range).mul_(self.advantages)
        return gains.le(clipped).mul(gains).mul_(-1.0 / len(gains))

    def value_gradient(self, values: torch.Tensor, config: PPOConfig) -> torch.Tensor:
        """The gradient of ``vf_coef`` times the value loss by these values ``[B]``."""
        gradient = self._errors(values, config).mul_(2.0 * config.vf_coef / len(values))
        most = config.value_clip_range
        return gradient if most is None else gradient.mul_((values - self.values).abs_().le(most))

    def losses(
        self,
        log_probs: torch.Tensor,
        entropies: torch.Tensor,
        values: torch.Tensor,
        clip_range: float,
        config: PPOConfig,
    ) -> Losses:
        """The clipped surrogate loss (Schulman et al. 2017, eqs. 7 and 9) for these outputs of the network.

        The value loss is the mean squared error, not half of it, as in Stable-Baselines3. With
        ``value_clip_range`` it is that of the value moved by no more than this. Log-probabilities and values
        are ``[B]``, entropies ``[B]`` or one for all rows; the clip range is the epsilon of eq. 7.
        """
        log_ratios = (log_probs - self.log_probs).clamp(max=_MOST_LOG_RATIO)
        ratios = log_ratios.exp()
        clipped = ratios.clamp(1.0 - clip_range, 1.0 + clip_range)
        surrogates = torch.min(self.advantages * ratios, self.advantages * clipped)
        policy_loss, entropy = -surrogates.mean(), entropies.mean()
        value_loss = self._errors(values, config).square_().mean()
        loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
        clip_fraction = ratios.ne(clipped).sum() / len(ratios)
        return Losses(loss, policy_loss, value_loss, entropy, approximate_kl(log_ratios), clip_fraction)

    def _errors(self, values: torch.Tensor, config: PPOConfig) -> torch.Tensor:
        most = config.value_clip_range
        if most is not None:
            values = self.values + (values - self.values).clamp_(-most, most)
        return values - self.returns


class Losses(NamedTuple):
    """Scalars, without autograd's graph.

    Attributes:
        loss: what is minimized: ``policy_loss + vf_coef * value_loss - ent_coef * entropy``.
        policy_loss: the clipped surrogate objective, negated.
        value_loss: the mean squared error of the values.
        entropy: of the policy, the mean over the rows.
        approx_kl: how far the policy has moved since the actions were chosen, see ``approximate_kl``.
        clip_fraction: the share of actions whose probability has moved beyond the clip range.
    """

    loss: torch.Tensor
    policy_loss: torch.Tensor
    value_loss: torch.Tensor
    entropy: torch.Tensor
    approx_kl: torch.Tensor
    clip_fraction: torch.Tensor


def approximate_kl(log_ratios: torch.Tensor) -> torch.Tensor:
    """The mean of ``(ratio - 1) - log(ratio)`` (Schulman 2020, "Approximating KL Divergence", k3)."""
    log_ratios = log_ratios.clamp(max=_MOST_LOG_RATIO)
    return log_ratios.exp().sub_(1.0).sub_(log_ratios).mean()


def _normalized(advantages: torch.Tensor) -> torch.Tensor:
    """Each row ``[size]`` of them around 0, with a standard deviation of 1."""
    if advantages.shape[1] < 2:
        return advantages
    std, mean = torch.std_mean(advantages, dim=1, keepdim=True)
    return (advantages - mean).div_(std + _TINY)
