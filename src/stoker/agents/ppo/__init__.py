"""Proximal policy optimization: the agent, its acting copy and its settings."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.ppo.agent import PPO as PPO
    from stoker.agents.ppo.config import PPOConfig as PPOConfig
    from stoker.agents.ppo.policy import PPOPolicy as PPOPolicy
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
