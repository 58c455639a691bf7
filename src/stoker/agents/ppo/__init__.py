"""Proximal policy optimization: the agent, its acting copy and its settings."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.ppo.agent import PPO
    from stoker.agents.ppo.config import PPOConfig
    from stoker.agents.ppo.policy import PPOPolicy
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "PPO": "stoker.agents.ppo.agent",
            "PPOConfig": "stoker.agents.ppo.config",
            "PPOPolicy": "stoker.agents.ppo.policy",
        },
    )

__all__ = ["PPO", "PPOConfig", "PPOPolicy"]
