"""The networks of agents with an actor and two critics: an encoder for images, and perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from stoker.agents.config import TwinCriticConfig
from stoker.agents.encoders import Encoder
from stoker.agents.networks import MLP, ObservationNetwork, as_floats
from stoker.agents.observations import Observations
from stoker.agents.packing import PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.agents.squashing import ActionScale, limited

__all__ = ["Actor", "Features", "StateValue", "TwinCritics"]


class Actor(ObservationNetwork):
    """From observations to the parameters of an action: an encoder if there are images, and a perceptron.

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
        has_images = config.network == "cnn"
        super().__init__(observations, normalizes=config.normalize_observations, is_flat=not has_images)
        self.scale = scale
        self._n_inputs = observations.n_inputs
        self.encoder = _encoder(observations, config, generator)
        n_features = self._n_inputs if self.encoder is None else self.encoder.n_features
        self.mlp = MLP((n_features, *config.hidden_sizes, n_outputs), "relu", generator)

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """Its layers, if it has no encoder."""
        return (self.mlp,) if self.encoder is None else ()

    def inputs(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations ``[B, ...]`` as encoders take them, or without images float32 ``[B, n_inputs]``."""
        prepared = self.prepared(observations)
        return prepared if self.encoder is not None else as_floats(prepared).reshape(-1, self._n_inputs)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Outputs float32 ``[B, n_outputs]`` of observations ``[B, *observation_shape]``."""
        inputs = self.inputs(observations)
        return self.mlp(inputs if self.encoder is None else self.encoder(inputs))

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
        self.encoder = _encoder(observations, config, generator)
        n_features = observations.n_inputs if self.encoder is None else self.encoder.n_features
        sizes = (n_features + action_size, *config.hidden_sizes, 1)
        self.mlps = nn.ModuleList([MLP(sizes, "relu", generator) for _ in range(2)])

    def passes(self, weights: PackedWeights, count: int = 2) -> StackedPasses:
        """The passes of the first ``count`` perceptrons, whose weights are packed."""
        return StackedPasses(cast("Sequence[MLP]", self.mlps[:count]), weights)


class StateValue(nn.Module):
    """A perceptron from observations, or from the features of an encoder, to their value."""

    def __init__(
        self, observations: Observations, config: TwinCriticConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoder = _encoder(observations, config, generator)
        n_features = observations.n_inputs if self.encoder is None else self.encoder.n_features
        self.mlp = MLP((n_features, *config.hidden_sizes, 1), "relu", generator)


class Features:
    """What a network's perceptrons take: the features of its encoder, by autograd, or the inputs themselves.

    Args:
        encoder: of the network; its gradients are packed.
    """

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        self._tracked: torch.Tensor | None = None

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features ``[B, n_features]`` without a gradient."""
        return inputs if self._encoder is None else self._encoder(inputs)

    def tracked(self, inputs: torch.Tensor) -> torch.Tensor:
        """The same, and what ``backward`` needs is remembered."""
        if self._encoder is None:
            return inputs
        with torch.enable_grad():
            self._tracked = self._encoder(inputs)
        return cast("torch.Tensor", self._tracked).detach()

    def backward(self, passes: StackedPasses) -> None:
        """Write the encoder's gradients, after a backward pass of the perceptrons on the tracked features."""
        if self._encoder is None or self._tracked is None:
            return
        for parameter in self._encoder.parameters():
            cast("torch.Tensor", parameter.grad).zero_()  # autograd adds to them
        torch.autograd.backward(self._tracked, passes.input_gradient(slice(self._tracked.shape[1])))
        self._tracked = None


def _encoder(
    observations: Observations, config: TwinCriticConfig, generator: torch.Generator
) -> Encoder | None:
    if config.network != "cnn":
        return None
    return Encoder(observations, config, "relu", generator, is_orthogonal=False)
