"""What learns: the protocols that a session works with, and the agents that come with stoker.

Names are imported at their first use, so that configs can be read without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.dqn.agent import DQN
    from stoker.agents.dqn.config import DQNConfig
    from stoker.agents.dqn.policy import DQNPolicy
    from stoker.agents.ppo.agent import PPO
    from stoker.agents.ppo.config import PPOConfig
    from stoker.agents.ppo.policy import PPOPolicy
    from stoker.agents.presets import preset, training_preset
    from stoker.agents.protocol import (
        ChecksInput,
        HasReplay,
        LearningAgent,
        Policy,
        PortablePolicy,
        ReplayState,
    )
    from stoker.agents.registry import AGENTS, config_type, make_agent
    from stoker.agents.spaces import AgentSpaces, BoxActions, DiscreteActions
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.agents.dqn.agent": "DQN",
            "stoker.agents.dqn.config": "DQNConfig",
            "stoker.agents.dqn.policy": "DQNPolicy",
            "stoker.agents.ppo.agent": "PPO",
            "stoker.agents.ppo.config": "PPOConfig",
            "stoker.agents.ppo.policy": "PPOPolicy",
            "stoker.agents.presets": "preset training_preset",
            "stoker.agents.protocol": "ChecksInput HasReplay LearningAgent Policy PortablePolicy ReplayState",
            "stoker.agents.registry": "AGENTS config_type make_agent",
            "stoker.agents.spaces": "AgentSpaces BoxActions DiscreteActions",
        },
    )

__all__ = [
    "AGENTS",
    "DQN",
    "PPO",
    "AgentSpaces",
    "BoxActions",
    "ChecksInput",
    "DQNConfig",
    "DQNPolicy",
    "DiscreteActions",
    "HasReplay",
    "LearningAgent",
    "PPOConfig",
    "PPOPolicy",
    "Policy",
    "PortablePolicy",
    "ReplayState",
    "config_type",
    "make_agent",
    "preset",
    "training_preset",
]
