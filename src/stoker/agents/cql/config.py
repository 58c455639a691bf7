"""The settings of discrete CQL. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from stoker.agents.dqn.config import DQNConfig
from stoker.settings import NonNegative


class DiscreteCQLConfig(DQNConfig, frozen=True, kw_only=True):
    """How a discrete CQL agent learns and explores."""

    alpha: NonNegative = 1.0
    """Weight of the conservative loss beside that of TD errors; 0 is DQN."""

    double: bool = True
    """Double DQN: choose the next action with the network, and value it with the target network."""
