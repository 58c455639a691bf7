"""Agents by name, their presets, and ``make_agent``. Importing it does not import torch.

A training from a config takes the settings of the agent and of the training from a preset
(``stoker.trainer.config_from``); a program that makes its agent and session itself takes the agent's with
``preset``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import msgspec

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.protocol import LearningAgent, check_agent
from stoker.errors import ConfigError
from stoker.importing import imported_callable

if TYPE_CHECKING:
    import gymnasium
    import torch

__all__ = ["AGENTS", "PRESETS", "config_type", "is_own", "make_agent", "preset", "training_preset"]


class AgentEntry(NamedTuple):
    """An agent's class and its type of settings, known without importing torch.

    Attributes:
        config_type: the type of its settings; its defaults need no argument.
        agent: its class, as ``"module:name"``; it takes ``(observation_space, action_space, config, seed,
            device)``.
    """

    config_type: type[msgspec.Struct]
    agent: str


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
    "ppo": AgentEntry(PPOConfig, "stoker.agents.ppo.agent:PPO"),
}
"""Name -> agent."""

PRESETS: Mapping[tuple[str, str], Preset] = {
    # Equal defaults are left out here and spelled out in the tests: a default may change, a preset stays
    # what was measured.
    # Chosen for the time until a mean of 475: 20 of 20 seeds got there, half of them within 5,000 steps, the
    # last after 23,000.
    ("dqn", "CartPole-v1"): Preset(
        agent_settings=DQNConfig(
            # Large steps get there within some thousand updates. What keeps them from running away is a
            # target network that stands still for long and does not choose the action that it values: copied
            # every 50 updates, without double targets, values grow to tens of times what can be earned, and
            # 475 is met by luck. A value reaches back n_step steps for each copy.
            learning_rate=2.3e-3,
            # Smaller to the end: else a policy that has long been there may be lost again at any time.
            learning_rate_schedule="linear",
            schedule_steps=100_000,
            target_update_interval=256,
            double=True,
            n_step=4,
            # Angles are a tenth of positions: without this, few seeds get there soon.
            normalize_observations=True,
            # Networks and batches larger than the defaults take longer per update and were not there in fewer
            # steps.
            learning_starts=500,
            final_epsilon=0.04,
            epsilon_decay_steps=4_000,
            max_grad_norm=None,
        ),
        # As many steps as with an update for each, in less time: an update costs more than a step.
        training={"opt_interval": 2},
    ),
    # Those below are what RL Baselines3 Zoo (Raffin 2020) has. A rollout is its n_steps of each of its
    # environments; opt_interval, which divides it, says how often to ask whether it is full.
    ("dqn", "Acrobot-v1"): Preset(
        agent_settings=DQNConfig(
            learning_rate=6.3e-4,
            batch_size=128,
            buffer_size=50_000,
            learning_starts=0,
            target_update_interval=250,
            hidden_sizes=(256, 256),
            final_epsilon=0.1,
            epsilon_decay_steps=12_000,
        ),
        training={"total_timesteps": 100_000, "opt_interval": 1},
    ),
    ("ppo", "CartPole-v1"): Preset(
        agent_settings=PPOConfig(
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            clip_range_schedule="linear",
            schedule_steps=100_000,
            rollout_steps=8 * 32,
            batch_size=256,
            n_epochs=20,
            gamma=0.98,
            gae_lambda=0.8,
        ),
        training={"num_envs": 8, "total_timesteps": 100_000, "opt_interval": 32},
    ),
    ("ppo", "Acrobot-v1"): Preset(
        agent_settings=PPOConfig(
            rollout_steps=16 * 256,
            n_epochs=4,
            gae_lambda=0.94,
            # Its velocities are ten times its angles' cosines, and every step costs 1 until the goal.
            normalize_observations=True,
            normalize_rewards=True,
            clip_rewards=10.0,
        ),
        training={"num_envs": 16, "total_timesteps": 300_000, "opt_interval": 64},
    ),
    ("ppo", "Pendulum-v1"): Preset(
        agent_settings=PPOConfig(learning_rate=1e-3, rollout_steps=4 * 1_024, gamma=0.9),
        training={"num_envs": 4, "total_timesteps": 100_000, "opt_interval": 64},
    ),
}
"""(agent name, environment name) -> settings."""


def config_type(name: str) -> type[msgspec.Struct]:
    """The type of an agent's settings; ``ConfigError`` if no agent has that name."""
    return _entry(name).config_type


def is_own(name: str) -> bool:
    """Whether the name is that of a user's class or function, ``"module:factory"``."""
    return ":" in name


@overload
def preset(agent: Literal["dqn"], env: str) -> DQNConfig: ...


@overload
def preset(agent: Literal["ppo"], env: str) -> PPOConfig: ...


@overload
def preset(agent: str, env: str) -> msgspec.Struct: ...


def preset(agent: str, env: str) -> msgspec.Struct:
    """The agent's settings for an environment; its defaults where there is no preset."""
    return _preset(agent, env).agent_settings


def training_preset(agent: str, env: str) -> dict[str, Any]:
    """The training's settings that go with ``preset``, by the names of ``TrainConfig``; often none."""
    return dict(_preset(agent, env).training)


def _preset(agent: str, env: str) -> Preset:
    return PRESETS.get((agent, env)) or Preset(config_type(agent)(), {})


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
        name: ``dqn``, ``ppo``, or ``"module:factory"``: your own class or function, which is called as
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
        inspect.signature(factory).bind(observation_space, action_space, **settings)
    except TypeError as error:
        raise ConfigError(
            f"agent={name!r} is called as {name.rpartition(':')[2]}(observation_space, action_space, "
            f"{', '.join(f'{key}=...' for key in settings)}), which it does not take: {error}"
        ) from None
    except ValueError:  # a callable written in C has no signature
        pass
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
