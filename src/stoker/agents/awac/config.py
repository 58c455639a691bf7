"""The settings of AWAC. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from stoker.agents.config import TwinCriticConfig
from stoker.settings import Count, NonNegative


class AWACConfig(TwinCriticConfig, frozen=True, kw_only=True):
    """How an AWAC agent learns."""

    inverse_temperature: NonNegative = 1.0
    """Factor 1 / lambda of the advantage A: an action's weight is exp(A / lambda) over the batch's mean."""

    n_action_samples: Count = 1
    """Actions drawn from the actor for each state; their mean value is the state's."""
