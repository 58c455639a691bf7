"""Deep Q-learning: the agent, its acting copy and its settings."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.dqn.agent import DQN as DQN
    from stoker.agents.dqn.config import DQNConfig as DQNConfig
    from stoker.agents.dqn.policy import DQNPolicy as DQNPolicy
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
