"""The agents that are known by name, and how to make one. Free of torch until one is made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.ppo.config import PPOConfig
from stoker.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium
    import torch

    from stoker.agents.dqn.agent import DQN
    from stoker.agents.ppo.agent import PPO
    from stoker.agents.protocol import LearningAgent

__all__ = ["AGENTS", "AgentEntry", "config_type", "make_agent"]


class AgentEntry(NamedTuple):
    """What there is to know about an agent without importing it.

    Attributes:
        config_type: the type of its settings; its defaults need no argument.
        load: imports the agent and returns what makes one: ``(observation_space, action_space, config, seed,
            device)``.
    """

    config_type: type[msgspec.Struct]
    load: Callable[[], Callable[..., LearningAgent]]


def _load_dqn() -> type[DQN]:
    from stoker.agents.dqn.agent import DQN

    return DQN


def _load_ppo() -> type[PPO]:
    from stoker.agents.ppo.agent import PPO

    return PPO


AGENTS: Mapping[str, AgentEntry] = {
    "dqn": AgentEntry(DQNConfig, _load_dqn),
    "ppo": AgentEntry(PPOConfig, _load_ppo),
}
"""Name -> agent."""


def config_type(name: str) -> type[msgspec.Struct]:
    """The type of an agent's settings.

    Raises:
        ConfigError: No agent has that name.
    """
    return _entry(name).config_type


def make_agent(
    name: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    config: msgspec.Struct | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> LearningAgent:
    """Make an agent by its name; without a config it has its defaults.

    Raises:
        ConfigError: No agent has that name, the config is another agent's, or the agent refuses the
            spaces, the seed or the device.
    """
    entry = _entry(name)
    if config is None:
        config = entry.config_type()
    elif not isinstance(config, entry.config_type):
        raise ConfigError(
            f"agent {name!r} takes a {entry.config_type.__name__}, got a {type(config).__name__}"
        )
    return entry.load()(observation_space, action_space, config, seed, device)


def _entry(name: str) -> AgentEntry:
    entry = AGENTS.get(name)
    if entry is None:
        close = difflib.get_close_matches(name.lower(), AGENTS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown agent {name!r}: known are {', '.join(sorted(AGENTS))}{hint}")
    return entry
