"""Deep Q-learning: the agent, its acting copy and its settings."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.dqn.agent import DQN
    from stoker.agents.dqn.config import DQNConfig
    from stoker.agents.dqn.policy import DQNPolicy
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.agents.dqn.agent": "DQN",
            "stoker.agents.dqn.config": "DQNConfig",
            "stoker.agents.dqn.policy": "DQNPolicy",
        },
    )

__all__ = ["DQN", "DQNConfig", "DQNPolicy"]
