"""Settings known to work for an agent on an environment."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.registry import config_type

__all__ = ["PRESETS", "preset"]

PRESETS: Mapping[tuple[str, str], DQNConfig] = {
    # Spelt out, although most are the defaults: a default may change, a preset stays what was measured.
    ("dqn", "CartPole-v1"): DQNConfig(
        learning_rate=3e-4,
        gamma=0.99,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1_000,
        target_update_interval=500,
        tau=None,
        hidden_sizes=(64, 64),
        initial_epsilon=1.0,
        final_epsilon=0.01,
        epsilon_decay_steps=10_000,
        # Two settings that the reference does not have. With its own alone, Stable-Baselines3 as well as this
        # agent reaches 475 by luck within 60,000 steps: a value reaches back one step for each copy of the
        # target network, of which there are 120; and angles are a tenth of positions.
        n_step=5,
        normalize_observations=True,
        double=False,
        max_grad_norm=None,
    ),
}
"""(agent name, environment name) -> settings."""


def preset(agent: str, env: str) -> DQNConfig:
    """The settings for an agent on an environment; the agent's defaults where there is no preset.

    Raises:
        ConfigError: No agent has that name.
    """
    defaults = config_type(agent)
    return PRESETS.get((agent, env)) or defaults()
