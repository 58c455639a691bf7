"""The settings of TD3. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from stoker.agents.config import TwinCriticConfig
from stoker.settings import Count, NonNegative, Positive


class TD3Config(TwinCriticConfig, frozen=True, kw_only=True):
    """How a TD3 agent learns and explores. Noise is that of actions scaled to -1..1."""

    learning_rate: Positive = 1e-3
    """Step size of Adam."""

    exploration_noise: NonNegative = 0.1
    """Standard deviation of the noise added to explored actions."""

    target_noise: NonNegative = 0.2
    """Standard deviation of the noise added to the actions of targets."""

    target_noise_limit: NonNegative = 0.5
    """The most that this noise changes an action."""

    policy_delay: Count = 2
    """Gradient steps of the critics for each one of the actor and of the target networks."""
