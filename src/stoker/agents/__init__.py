"""Agents: the protocols that a session works with, and the agents that come with stoker.

Names are imported at their first use, so that configs can be read without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.agents.actions import (
        BoxActions as BoxActions,
        DiscreteActions as DiscreteActions,
        MultiDiscreteActions as MultiDiscreteActions,
    )
    from stoker.agents.awac.agent import AWAC as AWAC
    from stoker.agents.awac.config import AWACConfig as AWACConfig
    from stoker.agents.bc.agent import BC as BC
    from stoker.agents.bc.config import BCConfig as BCConfig
    from stoker.agents.bc.policy import BCPolicy as BCPolicy
    from stoker.agents.cql.agent import DiscreteCQL as DiscreteCQL
    from stoker.agents.cql.config import DiscreteCQLConfig as DiscreteCQLConfig
    from stoker.agents.dqn.agent import DQN as DQN
    from stoker.agents.dqn.config import DQNConfig as DQNConfig
    from stoker.agents.dqn.policy import DQNPolicy as DQNPolicy
    from stoker.agents.iql.agent import IQL as IQL
    from stoker.agents.iql.config import IQLConfig as IQLConfig
    from stoker.agents.iqn.agent import IQN as IQN
    from stoker.agents.iqn.config import IQNConfig as IQNConfig
    from stoker.agents.iqn.policy import IQNPolicy as IQNPolicy
    from stoker.agents.ppo.agent import PPO as PPO
    from stoker.agents.ppo.config import PPOConfig as PPOConfig
    from stoker.agents.ppo.policy import PPOPolicy as PPOPolicy
    from stoker.agents.protocol import (
        ActsForActors as ActsForActors,
        ChecksBatches as ChecksBatches,
        ChecksInput as ChecksInput,
        HasReplay as HasReplay,
        HasSpaces as HasSpaces,
        LearningAgent as LearningAgent,
        LearnsSeldom as LearnsSeldom,
        ObservesBatches as ObservesBatches,
        Policy as Policy,
        PortablePolicy as PortablePolicy,
        PriorData as PriorData,
        Stateful as Stateful,
        UsesPriorData as UsesPriorData,
    )
    from stoker.agents.registry import (
        AGENTS as AGENTS,
        config_type as config_type,
        make_agent as make_agent,
        preset as preset,
        training_preset as training_preset,
    )
    from stoker.agents.sac.agent import SAC as SAC
    from stoker.agents.sac.config import SACConfig as SACConfig
    from stoker.agents.sac.policy import SACPolicy as SACPolicy
    from stoker.agents.spaces import AgentSpaces as AgentSpaces
    from stoker.agents.td3.agent import TD3 as TD3
    from stoker.agents.td3.config import TD3Config as TD3Config
    from stoker.agents.td3.policy import TD3Policy as TD3Policy
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
