"""The networks of agents with an actor and two critics: an encoder for images, and perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from stoker.agents.config import TwinCriticConfig
from stoker.agents.encoded import EncodedPerceptron, encoder_of
from stoker.agents.encoders import Encoder
from stoker.agents.networks import MLP
from stoker.agents.observations import Observations
from stoker.agents.packing import PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.agents.squashing import ActionScale, limited


class Actor(EncodedPerceptron):
    """From observations to the parameters of an action.

    The first ``size`` outputs are the best action before it is squashed; others, if any, are the logarithms
    of standard deviations.
    """

    def __init__(
        self,
        observations: Observations,
        n_outputs: int,
        scale: ActionScale,
        config: TwinCriticConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__(observations, n_outputs, config, generator)
        self.scale = scale

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """The best action of each row, ``[B, size]``."""
        return self.scale.tensor_to_env(self(observations)[:, : self.scale.size].tanh())

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """``mean`` and, of a random actor, ``std`` ``[B, size]``, of actions before they are squashed."""
        outputs, size = self(observations), self.scale.size
        found = {"mean": outputs[:, :size]}
        return {**found, "std": limited(outputs[:, size:]).exp()} if outputs.shape[1] > size else found


class TwinCritics(nn.Module):
    """Two perceptrons, each from features and actions side by side to their value; they share an encoder."""

    def __init__(
        self,
        observations: Observations,
        action_size: int,
        config: TwinCriticConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder: Encoder | None = encoder_of(observations, config, generator)
        n_features = observations.n_inputs if self.encoder is None else self.encoder.n_features
        sizes = (n_features + action_size, *config.hidden_sizes, 1)
        self.mlps: nn.ModuleList = nn.ModuleList([MLP(sizes, "relu", generator) for _ in range(2)])

    def passes(self, weights: PackedWeights, count: int = 2) -> StackedPasses:
        """The passes of the first ``count`` perceptrons, whose weights are packed."""
        return StackedPasses(cast("Sequence[MLP]", self.mlps[:count]), weights)


class StateValue(nn.Module):
    """A perceptron from observations, or from the features of an encoder, to their value."""

    def __init__(
        self, observations: Observations, config: TwinCriticConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoder: Encoder | None = encoder_of(observations, config, generator)
        n_features = observations.n_inputs if self.encoder is None else self.encoder.n_features
        self.mlp: MLP = MLP((n_features, *config.hidden_sizes, 1), "relu", generator)
