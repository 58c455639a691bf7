"""The settings of PPO. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stoker.agents.config import AgentConfig, Schedule
from stoker.settings import Count, Fraction, NonNegative, Positive

__all__ = ["PPOConfig"]


class PPOConfig(AgentConfig, frozen=True, kw_only=True):
    """How a PPO agent learns.

    Raises:
        ConfigError: A value is out of its range; the message names field, value and range.
    """

    rollout_steps: Count = 2_048
    """Transitions of all actors together that are collected for an update."""

    n_epochs: Count = 10
    """How often an update goes through its rollout."""

    gae_lambda: Fraction = 0.95
    """How far advantages look ahead before they trust a value: from 0, one step, to 1, the whole rollout."""

    clip_range: Positive = 0.2
    """How far an action's probability may move, as a share of what it was, before its gradient is cut off."""

    clip_range_schedule: Schedule = "constant"
    """Whether clip_range stays, or falls linearly to 0 over schedule_steps."""

    value_clip_range: Positive | None = None
    """How far a value may move from what it was before its gradient is cut off; none: any distance."""

    normalize_advantages: bool = True
    """Bring the advantages of each batch to mean 0 and standard deviation 1."""

    ent_coef: NonNegative = 0.0
    """Weight of the entropy: larger keeps the policy random for longer."""

    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""

    max_grad_norm: Positive | None = 0.5
    """Gradients of a larger norm, over all weights, are scaled down to it; none leaves them unchanged."""

    target_kl: Positive | None = None
    """An update ends early once the policy has moved by 1.5 times this divergence; none: it does not."""

    activation: Literal["tanh", "relu"] = "tanh"
    """The function between the layers of an mlp."""

    log_std_init: Annotated[float, Meta(ge=-20, le=20)] = 0.0
    """Logarithm of the standard deviation of continuous actions at first; it is learned, for all states."""

    adam_eps: Positive = 1e-5
    """What Adam adds to the root of the mean square of a gradient."""

    def clip_range_at(self, total_steps: int) -> float:
        """The clip range after that many environment steps, which alone decide it."""
        return self.clip_range * self._share_left(self.clip_range_schedule, total_steps)
