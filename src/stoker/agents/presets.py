"""Settings known to work for an agent on an environment.

Some are the agent's, some are the training's: how often it learns decides, too, what a learning rate does. A
training from a config takes both (``stoker.trainer.config_from``); whoever makes agent and session by hand
takes the agent's with ``preset``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.registry import config_type

__all__ = ["PRESETS", "Preset", "preset", "training_preset"]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured together.

    Attributes:
        agent_settings: all settings of the agent.
        training: settings of the training, by the names of ``TrainConfig``, where its defaults were not used.
    """

    agent_settings: DQNConfig
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
}
"""(agent name, environment name) -> settings."""


def preset(agent: str, env: str) -> DQNConfig:
    """The agent's settings for an environment; its defaults where there is no preset.

    Raises:
        ConfigError: No agent has that name.
    """
    defaults = config_type(agent)
    found = PRESETS.get((agent, env))
    return defaults() if found is None else found.agent_settings


def training_preset(agent: str, env: str) -> Mapping[str, Any]:
    """The training's settings that go with ``preset``, by the names of ``TrainConfig``; often none.

    Raises:
        ConfigError: No agent has that name.
    """
    config_type(agent)
    found = PRESETS.get((agent, env))
    return MappingProxyType({}) if found is None else found.training
