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
            "stoker.agents.ppo.agent": "PPO",
            "stoker.agents.ppo.config": "PPOConfig",
            "stoker.agents.ppo.policy": "PPOPolicy",
        },
    )

__all__ = ["PPO", "PPOConfig", "PPOPolicy"]
