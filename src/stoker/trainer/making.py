"""From a config to its agent. Free of torch until the environment is known to be there."""

from __future__ import annotations

from stoker.agents.protocol import LearningAgent
from stoker.agents.registry import make_agent
from stoker.envs import make_gym
from stoker.trainer.config import TrainConfig

__all__ = ["agent_for"]


def agent_for(config: TrainConfig) -> LearningAgent:
    """Make the agent that a config describes, for the spaces of its environment.

    Raises:
        ConfigError: The environment or the agent is unknown, or they do not fit.
    """
    env = make_gym(config.env)
    try:
        return make_agent(
            config.agent,
            env.observation_space,
            env.action_space,
            config.agent_settings,
            config.seed,
            config.device,
        )
    finally:
        env.close()
