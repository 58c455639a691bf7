"""The settings of IQN. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from stoker.agents.dqn.config import DQNConfig
from stoker.errors import ConfigError
from stoker.settings import Count


class IQNConfig(DQNConfig, frozen=True, kw_only=True):
    """How an IQN agent learns and explores."""

    n_quantiles: Count = 8
    """Quantiles of the return that are learned of each transition: N of Dabney et al. (2018)."""

    n_target_quantiles: Count = 8
    """Quantiles of the next return that each of them is learned from: N' of the paper."""

    n_acting_quantiles: Count = 32
    """Quantiles whose mean is an action's value, in acting and in targets: K of the paper."""

    n_cosines: Count = 64
    """Cosines that a quantile's fraction is embedded in."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.huber_delta is None:
            raise ConfigError("huber_delta=None: squared errors give no quantiles; give kappa, for example 1")
        if not self.hidden_sizes:
            raise ConfigError("hidden_sizes=(): give at least one layer, whose outputs quantiles modulate")
