"""Settings known to work for an agent on an environment.

A training from a config takes those of the agent and of the training (``stoker.trainer.config_from``); a
program that makes its agent and session itself takes the agent's with ``preset``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, overload

import msgspec

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.registry import config_type

__all__ = ["PRESETS", "Preset", "preset", "training_preset"]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that belong together.

    Attributes:
        agent_settings: all settings of the agent, of its config's type.
        training: settings of the training, by the names of ``TrainConfig``, where its defaults were not used.
    """

    agent_settings: msgspec.Struct
    training: Mapping[str, Any] = MappingProxyType({})


PRESETS: Mapping[tuple[str, str], Preset] = {
    # Spelt out, although some are the defaults: a default may change, a preset stays what was measured.
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
            tau=None,
            double=True,
            n_step=4,
            gamma=0.99,
            # Angles are a tenth of positions: without this, few seeds get there soon.
            normalize_observations=True,
            # Larger networks and batches take longer per update and were not there in fewer steps.
            hidden_sizes=(64, 64),
            batch_size=64,
            buffer_size=100_000,
            learning_starts=500,
            initial_epsilon=1.0,
            final_epsilon=0.04,
            epsilon_decay_steps=4_000,
            max_grad_norm=None,
        ),
        # As many steps as with an update for each, in less time: an update costs more than a step.
        training=MappingProxyType({"opt_interval": 2}),
    ),
    # Those below are what RL Baselines3 Zoo (Raffin 2020) has. A rollout is its n_steps of each of its
    # environments; opt_interval, which divides it, says how often to ask whether it is full.
    ("dqn", "Acrobot-v1"): Preset(
        agent_settings=DQNConfig(
            learning_rate=6.3e-4,
            gamma=0.99,
            batch_size=128,
            buffer_size=50_000,
            learning_starts=0,
            target_update_interval=250,
            hidden_sizes=(256, 256),
            initial_epsilon=1.0,
            final_epsilon=0.1,
            epsilon_decay_steps=12_000,
            max_grad_norm=10.0,
        ),
        training=MappingProxyType({"total_timesteps": 100_000, "opt_interval": 1}),
    ),
    ("ppo", "CartPole-v1"): Preset(
        agent_settings=PPOConfig(
            learning_rate=1e-3,
            learning_rate_schedule="linear",
            clip_range=0.2,
            clip_range_schedule="linear",
            schedule_steps=100_000,
            rollout_steps=8 * 32,
            batch_size=256,
            n_epochs=20,
            gamma=0.98,
            gae_lambda=0.8,
            ent_coef=0.0,
        ),
        training=MappingProxyType({"num_envs": 8, "total_timesteps": 100_000, "opt_interval": 32}),
    ),
    ("ppo", "Acrobot-v1"): Preset(
        agent_settings=PPOConfig(
            rollout_steps=16 * 256,
            n_epochs=4,
            gamma=0.99,
            gae_lambda=0.94,
            ent_coef=0.0,
            # Its velocities are ten times its angles' cosines, and every step costs 1 until the goal.
            normalize_observations=True,
            normalize_rewards=True,
            clip_rewards=10.0,
        ),
        training=MappingProxyType({"num_envs": 16, "total_timesteps": 300_000, "opt_interval": 64}),
    ),
    ("ppo", "Pendulum-v1"): Preset(
        agent_settings=PPOConfig(
            learning_rate=1e-3,
            clip_range=0.2,
            rollout_steps=4 * 1_024,
            n_epochs=10,
            gamma=0.9,
            gae_lambda=0.95,
            ent_coef=0.0,
        ),
        training=MappingProxyType({"num_envs": 4, "total_timesteps": 100_000, "opt_interval": 64}),
    ),
}
"""(agent name, environment name) -> settings."""


@overload
def preset(agent: Literal["dqn"], env: str) -> DQNConfig: ...


@overload
def preset(agent: Literal["ppo"], env: str) -> PPOConfig: ...


@overload
def preset(agent: str, env: str) -> msgspec.Struct: ...


def preset(agent: str, env: str) -> msgspec.Struct:
    """The agent's settings for an environment; its defaults where there is no preset."""
    defaults = config_type(agent)
    found = PRESETS.get((agent, env))
    return defaults() if found is None else found.agent_settings


def training_preset(agent: str, env: str) -> dict[str, Any]:
    """The training's settings that go with ``preset``, by the names of ``TrainConfig``; often none."""
    config_type(agent)
    found = PRESETS.get((agent, env))
    return {} if found is None else dict(found.training)
