"""What a DQN agent is made of, as its settings choose: the kind of network and the kind of replay."""

from __future__ import annotations

import torch

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.convolution import NatureCNN
from stoker.agents.dqn.network import QNetwork
from stoker.agents.dqn.perceptron import Perceptron
from stoker.agents.dqn.spaces import DQNSpaces
from stoker.replay.prioritized import PrioritizedReplay
from stoker.replay.uniform import UniformReplay

__all__ = ["make_network", "make_replay"]


def make_network(config: DQNConfig, spaces: DQNSpaces, generator: torch.Generator) -> QNetwork:
    """A network for these spaces, on the CPU, with weights drawn from the generator.

    Raises:
        ConfigError: The network that was chosen cannot see such observations.
    """
    shape, dtype, n_actions = spaces.observation_shape, spaces.observation_dtype, spaces.n_actions
    normalizes, dueling = config.normalize_observations, config.dueling
    if config.network == "nature_cnn":
        return NatureCNN(shape, dtype, n_actions, generator, normalizes=normalizes, dueling=dueling)
    return Perceptron(
        shape, dtype, n_actions, config.hidden_sizes, generator, normalizes=normalizes, dueling=dueling
    )


def make_replay(
    config: DQNConfig, spaces: DQNSpaces, device: torch.device, seed: int
) -> UniformReplay | PrioritizedReplay:
    """An empty replay for transitions of these spaces.

    Raises:
        ConfigError: Transitions cannot be kept like that.
    """
    shape, dtype = spaces.observation_shape, spaces.observation_dtype
    if config.prioritized:
        return PrioritizedReplay(
            config.buffer_size,
            shape,
            dtype,
            device,
            seed,
            alpha=config.priority_alpha,
            beta=config.priority_beta,
            final_beta=config.priority_final_beta,
            beta_steps=config.priority_beta_steps,
            epsilon=config.priority_epsilon,
            memory_map=config.memory_map,
        )
    return UniformReplay(config.buffer_size, shape, dtype, device, seed, memory_map=config.memory_map)
