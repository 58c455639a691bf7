"""The settings of IQL. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stoker.agents.config import TwinCriticConfig
from stoker.settings import NonNegative, Positive


class IQLConfig(TwinCriticConfig, frozen=True, kw_only=True):
    """How an IQL agent learns. The defaults are those of the paper for locomotion."""

    expectile: Annotated[float, Meta(gt=0, lt=1)] = 0.7
    """Expectile of its actions' values that a state is worth: 0.5 is their mean, near 1 their maximum."""

    inverse_temperature: NonNegative = 3.0
    """Factor beta of the advantage A: the actor imitates an action by the weight exp(beta A)."""

    max_weight: Positive = 100.0
    """Largest weight of an action."""
