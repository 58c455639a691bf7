"""The networks of IQN: from observations and fractions to quantiles of the return of each action.

Each is an encoder, which gives features, and a ``QuantileHead``. As with DQN, the perceptron writes its
gradient out, and the convolutions leave theirs to autograd.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from stoker.agents.dqn.network import ValueNetwork
from stoker.agents.encoders import Encoder
from stoker.agents.iqn.config import IQNConfig
from stoker.agents.iqn.head import HeadPass, QuantileHead
from stoker.agents.networks import MLP, as_floats
from stoker.agents.observations import Observations


class QuantilePass(NamedTuple):
    """A forward pass of N fractions for each of B observations.

    Attributes:
        encoded: the tensors that the encoder's backward pass needs; the last one holds the features.
        head: that of the head.
        quantiles: of the return of each action, float32 ``[N, B, n_actions]``.
    """

    encoded: Sequence[torch.Tensor]
    head: HeadPass
    quantiles: torch.Tensor


class QuantileNetwork(ValueNetwork):
    """Base of both: the passes of the head, and a dueling head's.

    Args:
        observations: what it observes.
        n_actions: of the space.
        config: the settings.
        n_features: of the encoder.
        hidden_sizes: of the layers behind the product of features and embedding.
        generator: a CPU generator that the weights are drawn from.
        is_flat: see ``ObservationNetwork``.
    """

    def __init__(
        self,
        observations: Observations,
        n_actions: int,
        config: IQNConfig,
        n_features: int,
        hidden_sizes: Sequence[int],
        generator: torch.Generator,
        *,
        is_flat: bool,
    ) -> None:
        super().__init__(observations, n_actions, config, is_flat=is_flat)
        self.head: QuantileHead = QuantileHead(
            n_features, hidden_sizes, self.n_outputs, config.n_cosines, config.n_acting_quantiles, generator
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations: the mean over quantiles at K midpoints.

        The paper draws K fractions at random for each decision (section 3); midpoints estimate the same mean
        with less error, without a random number, and one embedding serves all observations.
        """
        return self.values_of(self.encoded(observations)[-1])

    def values_of(self, features: torch.Tensor) -> torch.Tensor:
        """The values of observations with these features."""
        means = self.head.mean(features)
        return self.joined(means) if self.dueling else means

    def run(self, observations: torch.Tensor, fractions: torch.Tensor) -> QuantilePass:
        """The pass for fractions ``[N, B]`` of observations ``[B, *observation_shape]``."""
        encoded = self.encoded(observations)
        head = self.head.run(encoded[-1].detach(), fractions)
        return QuantilePass(encoded, head, self.quantiles_of(head, fractions))

    def quantiles_of(self, head: HeadPass, fractions: torch.Tensor) -> torch.Tensor:
        """The outputs of a head's pass as quantiles ``[N, B, n_actions]``."""
        quantiles = self.joined(head.outputs) if self.dueling else head.outputs
        return quantiles.view(*fractions.shape, -1)

    def backward(self, made: QuantilePass, gradient: torch.Tensor) -> None:
        """Overwrite the ``grad`` of all weights, given that by the quantiles ``[N, B, n_actions]``."""
        rows = gradient.view(-1, gradient.shape[2])
        by_features = self.head.backward(made.head, self.parted(rows) if self.dueling else rows)
        self.encoder_backward(made.encoded, by_features)

    @abstractmethod
    def encoded(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The tensors that ``encoder_backward`` needs; the last one holds the features ``[B, F]``."""

    @abstractmethod
    def encoder_backward(self, encoded: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Overwrite the gradients of the encoder's weights, given that by its features."""


class PerceptronQuantiles(QuantileNetwork):
    """Fully connected layers with ReLU between them, without autograd; observations are flattened.

    The last of several hidden layers comes behind the product, as the one of 512 does in the paper.
    """

    def __init__(
        self,
        observations: Observations,
        n_actions: int,
        config: IQNConfig,
        generator: torch.Generator,
    ) -> None:
        sizes = config.hidden_sizes
        n_in_front = max(len(sizes) - 1, 1)
        in_front, behind = sizes[:n_in_front], sizes[n_in_front:]
        super().__init__(observations, n_actions, config, in_front[-1], behind, generator, is_flat=True)
        self._n_inputs = observations.n_inputs
        self.encoder: MLP = MLP((self._n_inputs, *in_front), "relu", generator)

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """The encoder, whose outputs are activated; the embedding; the layers behind the product."""
        return self.encoder, self.head.embedding, self.head.layers

    def encoded(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The input of each layer, float32 ``[B, width]``, and last the features."""
        inputs = as_floats(self.prepared(observations))
        found = [inputs if inputs.dim() == 2 else inputs.reshape(-1, self._n_inputs)]
        for weight, bias in self.encoder.weights:
            found.append(functional.linear(found[-1], weight, bias).relu_())
        return found

    def encoder_backward(self, encoded: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Overwrite the gradients by the chain rule."""
        for index in reversed(range(len(self.encoder.weights))):
            weight, bias = self.encoder.weights[index]
            gradient = torch.ops.aten.threshold_backward.default(gradient, encoded[index + 1], 0)
            torch.mm(gradient.t(), encoded[index], out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if index:
                gradient = gradient.mm(weight)


class ConvolutionalQuantiles(QuantileNetwork):
    """Quantiles from images and what is beside them, with autograd's gradient of the encoder.

    The product is behind all layers of the encoder. In the paper it is in front of the layer of 512 units,
    which is computed again for each quantile then.
    """

    def __init__(
        self, observations: Observations, n_actions: int, config: IQNConfig, generator: torch.Generator
    ) -> None:
        encoder = Encoder(observations, config, "relu", generator, is_orthogonal=False)
        super().__init__(observations, n_actions, config, encoder.n_features, (), generator, is_flat=False)
        self.encoder = encoder

    def encoded(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The features alone; autograd remembers the rest."""
        with torch.enable_grad():
            return [self.encoder(self.prepared(observations))]

    def encoder_backward(self, encoded: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Let autograd write the gradients."""
        for parameter in self.encoder.parameters():  # it adds to them, and they stay where they are
            if parameter.grad is not None:
                parameter.grad.zero_()
        torch.autograd.backward(encoded[-1], gradient)
