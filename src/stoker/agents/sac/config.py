"""The settings of SAC. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from stoker.agents.config import TwinCriticConfig
from stoker.settings import Finite, Positive


class SACConfig(TwinCriticConfig, frozen=True, kw_only=True):
    """How a SAC agent learns and explores."""

    temperature: Positive | None = None
    """Reward that a nat of entropy is worth; none: learned, so that the entropy is target_entropy."""

    initial_temperature: Positive = 1.0
    """What a learned temperature begins with."""

    target_entropy: Finite | None = None
    """Entropy in nats, of actions scaled to -1..1; none: minus the number of an action's dimensions."""
