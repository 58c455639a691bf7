"""Agents by name, their presets, and ``make_agent``. Importing it does not import torch.

A training from a config takes the settings of the agent and of the training from a preset
(``stoker.trainer.config_from``); a program that makes its agent and session itself takes the agent's with
``preset``.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import msgspec

from stoker.agents.awac.config import AWACConfig
from stoker.agents.bc.config import BCConfig
from stoker.agents.cql.config import DiscreteCQLConfig
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.iql.config import IQLConfig
from stoker.agents.iqn.config import IQNConfig
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.protocol import LearningAgent, check_agent
from stoker.agents.sac.config import SACConfig
from stoker.agents.td3.config import TD3Config
from stoker.errors import ConfigError
from stoker.importing import imported_callable, signature_of
from stoker.settings import read_toml, settings_from

if TYPE_CHECKING:
    import gymnasium
    import torch

    from stoker.agents.actions import Actions


class AgentEntry(NamedTuple):
    """An agent's class and its type of settings, known without importing torch.

    Attributes:
        config_type: the type of its settings; its defaults need no argument.
        agent: its class, as ``"module:name"``; it takes ``(observation_space, action_space, config, seed,
            device)``.
        offline_only: whether it learns from a data set alone: what it would play itself teaches it nothing.
    """

    config_type: type[msgspec.Struct]
    agent: str
    offline_only: bool = False


class Preset(NamedTuple):
    """Settings known to work for an agent on an environment.

    Attributes:
        agent_settings: all settings of the agent, of its config's type.
        training: settings of the training, by the names of ``TrainConfig``, where its defaults were not used.
    """

    agent_settings: msgspec.Struct
    training: Mapping[str, Any]


AGENTS: Mapping[str, AgentEntry] = {
    "dqn": AgentEntry(DQNConfig, "stoker.agents.dqn.agent:DQN"),
    "iqn": AgentEntry(IQNConfig, "stoker.agents.iqn.agent:IQN"),
    "ppo": AgentEntry(PPOConfig, "stoker.agents.ppo.agent:PPO"),
    "sac": AgentEntry(SACConfig, "stoker.agents.sac.agent:SAC"),
    "td3": AgentEntry(TD3Config, "stoker.agents.td3.agent:TD3"),
    "iql": AgentEntry(IQLConfig, "stoker.agents.iql.agent:IQL"),
    "awac": AgentEntry(AWACConfig, "stoker.agents.awac.agent:AWAC"),
    "bc": AgentEntry(BCConfig, "stoker.agents.bc.agent:BC", offline_only=True),
    "cql": AgentEntry(DiscreteCQLConfig, "stoker.agents.cql.agent:DiscreteCQL"),
}
"""Name -> agent."""


@functools.cache
def presets() -> Mapping[tuple[str, str], Preset]:
    """All presets, by the names of agent and environment; read from their file once.

    A name of environments may be a pattern, such as ``ALE/*-v5``.
    """
    found: dict[tuple[str, str], Preset] = {}
    for values in read_toml(Path(__file__).with_name("presets.toml"))["preset"]:
        name = agent, _ = values.pop("agent"), values.pop("env")
        kind = AGENTS[agent].config_type
        own = {key: values.pop(key) for key in kind.__struct_fields__ if key in values}
        found[name] = Preset(settings_from(own, kind, f"the preset {name}"), values)
    return found


def config_type(name: str) -> type[msgspec.Struct]:
    """The type of an agent's settings; ``ConfigError`` if no agent has that name."""
    return _entry(name).config_type


def action_kinds(name: str) -> Sequence[type[Actions]]:
    """The kinds of action spaces that an agent acts in; imports the agent."""
    kind: Any = imported_callable(_entry(name).agent, "agent")
    return kind.action_kinds


def agent_for_actions(action_space: gymnasium.Space[Any]) -> str:
    """The agent where none is named: ``dqn`` for Discrete, ``sac`` for a Box with bounds, else ``ppo``."""
    from gymnasium.spaces import Box, Discrete  # the settings of agents are read without it

    if isinstance(action_space, Discrete):
        return "dqn"
    return "sac" if isinstance(action_space, Box) and action_space.is_bounded() else "ppo"


def is_own(name: str) -> bool:
    """Whether the name is that of a user's class or function, ``"module:factory"``."""
    return ":" in name


@overload
def preset(agent: Literal["dqn"], env: str) -> DQNConfig: ...


@overload
def preset(agent: Literal["iqn"], env: str) -> IQNConfig: ...


@overload
def preset(agent: Literal["ppo"], env: str) -> PPOConfig: ...


@overload
def preset(agent: Literal["sac"], env: str) -> SACConfig: ...


@overload
def preset(agent: Literal["td3"], env: str) -> TD3Config: ...


@overload
def preset(agent: Literal["iql"], env: str) -> IQLConfig: ...


@overload
def preset(agent: Literal["awac"], env: str) -> AWACConfig: ...


@overload
def preset(agent: Literal["bc"], env: str) -> BCConfig: ...


@overload
def preset(agent: Literal["cql"], env: str) -> DiscreteCQLConfig: ...


@overload
def preset(agent: str, env: str) -> msgspec.Struct: ...


def preset(agent: str, env: str) -> msgspec.Struct:
    """The agent's settings for an environment; its defaults where there is no preset."""
    return _preset(agent, env).agent_settings


def training_preset(agent: str, env: str) -> dict[str, Any]:
    """The training's settings that go with ``preset``, by the names of ``TrainConfig``; often none."""
    return dict(_preset(agent, env).training)


def agents_with_preset(env: str) -> list[str]:
    """The names of the agents that have a preset for an environment."""
    return [agent for agent in AGENTS if _found(agent, env) is not None]


def _preset(agent: str, env: str) -> Preset:
    return _found(agent, env) or Preset(config_type(agent)(), {})


def _found(agent: str, env: str) -> Preset | None:
    """The preset of the environment's own name, or else the first one whose pattern fits it."""
    env_id = env.rpartition(":")[2]  # of the short form "module:id", too
    of_agent = {ids: preset for (of, ids), preset in presets().items() if of == agent}
    fitting = (preset for ids, preset in of_agent.items() if fnmatchcase(env_id, ids))
    return of_agent.get(env_id) or next(fitting, None)


def make_agent(
    name: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    config: msgspec.Struct | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> LearningAgent:
    """Make an agent by its name; without a config it has its defaults.

    Args:
        name: one of ``AGENTS``, or ``"module:factory"``: your own class or function, which is called as
            ``factory(observation_space, action_space, seed=seed, device=device, **config)``.
        observation_space: of the environment.
        action_space: of the environment.
        config: the agent's config; for your own agent a mapping.
        seed: of its weights and of its exploration.
        device: where it learns.

    Raises:
        ConfigError: No agent has that name, or it refuses the config, the spaces, the seed or the device.
    """
    if is_own(name):
        return _make_own(name, observation_space, action_space, config, seed, device)
    entry = _entry(name)
    if config is None:
        config = entry.config_type()
    elif not isinstance(config, entry.config_type):
        raise ConfigError(
            f"agent {name!r} takes a {entry.config_type.__name__}, got a {type(config).__name__}"
        )
    agent = imported_callable(entry.agent, "agent")
    return agent(observation_space, action_space, config, seed, device)


def _make_own(
    name: str, observation_space: Any, action_space: Any, config: Any, seed: int, device: Any
) -> LearningAgent:
    factory = imported_callable(name, "agent")
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"agent {name!r} takes a mapping of settings, got a {type(config).__name__}")
    settings = {"seed": seed, "device": device, **cast("Mapping[str, Any]", config or {})}
    try:
        signature_of(factory).bind(observation_space, action_space, **settings)
    except TypeError as error:
        raise ConfigError(
            f"agent={name!r} is called as {name.rpartition(':')[2]}(observation_space, action_space, "
            f"{', '.join(f'{key}=...' for key in settings)}), which it does not take: {error}"
        ) from None
    agent = factory(observation_space, action_space, **settings)
    check_agent(agent, f"agent={name!r}: ")
    return agent


def _entry(name: str) -> AgentEntry:
    entry = AGENTS.get(name)
    if entry is None:
        close = difflib.get_close_matches(name.lower(), AGENTS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; name your own as 'module:factory'"
        raise ConfigError(f"unknown agent {name!r}: known are {', '.join(sorted(AGENTS))}{hint}")
    return entry
