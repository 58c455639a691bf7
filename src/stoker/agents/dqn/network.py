"""The Q-networks: from observations to one value per action, with the gradient of the weights.

``PerceptronQ`` writes its gradient out in the fewest kernels: for networks of its size autograd's own work
would take longer than the mathematics. In ``ConvolutionalQ`` the kernels do the work, and autograd the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stoker.agents.dqn.config import DQNConfig
from stoker.agents.encoders import Encoder
from stoker.agents.networks import MLP, ObservationNetwork, as_floats, seeded
from stoker.agents.observations import Observations


class ValueNetwork(ObservationNetwork, ABC):
    """Base of networks that give one value per action: the dueling head.

    A dueling head is one layer, which gives a number for the state, then one for each action; ``joined``
    makes values of them (Wang et al. 2016, eq. 9).
    """

    def __init__(
        self, observations: Observations, n_actions: int, config: DQNConfig, *, is_flat: bool
    ) -> None:
        super().__init__(observations, normalizes=config.normalize_observations, is_flat=is_flat)
        self.n_outputs: int = n_actions + config.dueling
        self.dueling: bool = config.dueling

    @abstractmethod
    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""

    def of_allowed(self, observations: torch.Tensor) -> torch.Tensor:
        """The values, but -inf for the actions that an action mask in the observations forbids."""
        return self.limited(self(observations), observations)

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """The index of the best action of each row, int64 ``[B, 1]``."""
        return self.of_allowed(observations).argmax(dim=1, keepdim=True)

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """``values`` of all actions, float32 ``[B, n_actions]``; -inf for forbidden ones."""
        return {"values": self.of_allowed(observations)}

    @staticmethod
    def joined(streams: Any) -> Any:
        """``Q = V + A - mean A`` of a dueling head's ``[B, 1 + n_actions]``, which begins with V.

        Takes and returns a tensor or an array of numpy.
        """
        advantages = streams[:, 1:]
        return streams[:, :1] + advantages - advantages.mean(axis=1, keepdims=True)

    @staticmethod
    def parted(gradient: torch.Tensor) -> torch.Tensor:
        """The gradient by the streams ``[B, 1 + n_actions]``, given that by what ``joined`` made of them."""
        total = gradient.sum(dim=1, keepdim=True)
        return torch.cat([total, gradient - total / gradient.shape[1]], dim=1)


class QNetwork(ValueNetwork):
    """Base of the networks of DQN."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        return self.activations(observations)[-1]

    @abstractmethod
    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The tensors that ``backward`` needs of a forward pass; the last one holds the values."""

    @abstractmethod
    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Overwrite the ``grad`` of all weights, given the gradient by the values ``[B, n_actions]``."""


class PerceptronQ(QNetwork):
    """Fully connected layers with ReLU between them, without autograd; observations are flattened."""

    def __init__(
        self,
        observations: Observations,
        n_actions: int,
        config: DQNConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__(observations, n_actions, config, is_flat=True)
        self._n_inputs = observations.n_inputs
        self.mlp: MLP = MLP((self._n_inputs, *config.hidden_sizes, self.n_outputs), "relu", generator)
        self._weights = self.mlp.weights  # to search a module for its parts takes longer

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """Its layers; of a dueling head not yet joined."""
        return (self.mlp,)

    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The input of each layer, float32 ``[B, width]``, and last the values."""
        inputs = as_floats(self.prepared(observations))
        found = [inputs if inputs.dim() == 2 else inputs.reshape(-1, self._n_inputs)]
        *hidden, (weight, bias) = self._weights
        for hidden_weight, hidden_bias in hidden:
            found.append(functional.linear(found[-1], hidden_weight, hidden_bias).relu_())
        last = functional.linear(found[-1], weight, bias)
        found.append(self.joined(last) if self.dueling else last)
        return found

    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Overwrite the gradients by the chain rule."""
        if self.dueling:
            gradient = self.parted(gradient)
        for index in reversed(range(len(self._weights))):
            weight, bias = self._weights[index]
            inputs = activations[index]
            torch.mm(gradient.t(), inputs, out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if index:  # through the ReLU: no gradient where it gave zero
                gradient = torch.ops.aten.threshold_backward.default(gradient.mm(weight), inputs, 0)


class ConvolutionalQ(QNetwork):
    """Q-values from images and what is beside them (Mnih et al. 2015), with autograd's gradient.

    A dueling head shares all layers but the last, where Wang et al. (2016) part before the hidden one.
    """

    def __init__(
        self, observations: Observations, n_actions: int, config: DQNConfig, generator: torch.Generator
    ) -> None:
        super().__init__(observations, n_actions, config, is_flat=False)
        self.trunk: Encoder = Encoder(observations, config, "relu", generator, is_orthogonal=False)
        self.head: nn.Linear = seeded(
            nn.Linear(self.trunk.n_features, self.n_outputs, device="meta"), generator
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        values = self.head(self.trunk(self.prepared(observations)))
        return self.joined(values) if self.dueling else values

    def activations(self, observations: torch.Tensor) -> list[torch.Tensor]:
        """The values alone; autograd remembers the rest."""
        with torch.enable_grad():
            return [self(observations)]

    def backward(self, activations: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Let autograd write the gradients."""
        self.zero_grad(set_to_none=False)  # it adds to them, and they stay where they are
        torch.autograd.backward(activations[-1], gradient)


def q_network(
    observations: Observations, n_actions: int, config: DQNConfig, generator: torch.Generator
) -> QNetwork:
    """A new network as ``config.network`` says, which is not ``"auto"``."""
    kind = ConvolutionalQ if config.network == "cnn" else PerceptronQ
    return kind(observations, n_actions, config, generator)
