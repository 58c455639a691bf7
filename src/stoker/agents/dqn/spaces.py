"""The spaces that DQN takes: a Box of numbers to observe, a Discrete set of actions."""

from __future__ import annotations

from typing import Any

import gymnasium

from stoker.agents.spaces import AgentSpaces, DiscreteActions, is_float_box
from stoker.errors import ConfigError

__all__ = ["DQNSpaces"]


class DQNSpaces(AgentSpaces):
    """A Box of numbers to observe and a Discrete set of actions, of any ``start``.

    Attributes:
        n_actions: how many actions there are.
        first_action: the lowest of them, the space's ``start``.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds are taken.
    """

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        if not isinstance(action_space, gymnasium.spaces.Discrete):
            way_out = (
                "use PPO for a Box of floats (stoker.PPO, --agent ppo)"
                if is_float_box(action_space)
                else "wrap the environment so that each combination of values is one action"
            )
            raise ConfigError(
                f"DQN cannot act in {action_space}: it takes a Discrete action space, of any number of "
                f"actions and any start; {way_out}"
            )
        actions = DiscreteActions(action_space)
        super().__init__("DQN", observation_space, actions)
        self.n_actions, self.first_action = actions.n, actions.first
