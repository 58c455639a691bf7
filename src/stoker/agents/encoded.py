"""A perceptron behind an encoder, where observations have images, or on the observations themselves."""

from __future__ import annotations

from typing import cast

import torch

from stoker.agents.config import AgentConfig
from stoker.agents.encoders import Encoder
from stoker.agents.networks import MLP, ObservationNetwork, as_floats
from stoker.agents.observations import Observations
from stoker.agents.passes import StackedPasses


class EncodedPerceptron(ObservationNetwork):
    """From observations to outputs: an encoder if there are images, and a perceptron."""

    def __init__(
        self,
        observations: Observations,
        n_outputs: int,
        config: AgentConfig,
        generator: torch.Generator,
    ) -> None:
        has_images = config.network == "cnn"
        super().__init__(observations, normalizes=config.normalize_observations, is_flat=not has_images)
        self._n_inputs = observations.n_inputs
        self.encoder: Encoder | None = encoder_of(observations, config, generator)
        n_features = self._n_inputs if self.encoder is None else self.encoder.n_features
        self.mlp: MLP = MLP((n_features, *config.hidden_sizes, n_outputs), "relu", generator)

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


def encoder_of(observations: Observations, config: AgentConfig, generator: torch.Generator) -> Encoder | None:
    """The encoder of a network whose settings ask for one; ``config.network`` is not ``"auto"``."""
    if config.network != "cnn":
        return None
    return Encoder(observations, config, "relu", generator, is_orthogonal=False)
