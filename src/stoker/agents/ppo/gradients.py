"""The passes of an update, forward and backward: written out for perceptrons, by autograd for the rest."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

from stoker.agents.networks import as_floats
from stoker.agents.packing import PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.agents.ppo.network import Towers


class Passes(Protocol):
    """A forward pass of a minibatch, then its backward pass."""

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The body's parameters ``[B, ...]`` and values ``[B]``, without autograd's graph."""
        ...

    def backward(self, parameters: torch.Tensor, values: torch.Tensor) -> None:
        """Overwrite the gradients of the body's weights, given the loss's gradients by these outputs.

        Parameters without a gradient, the last ones, may be left out.
        """
        ...


def passes_of(body: nn.Module, weights: PackedWeights) -> Passes:
    """The passes for a body whose weights are packed with gradients."""
    return TowerPasses(body, weights) if isinstance(body, Towers) else AutogradPasses(body, weights)


class TowerPasses:
    """The passes of ``Towers``."""

    def __init__(self, towers: Towers, weights: PackedWeights) -> None:
        self._stack = StackedPasses((towers.policy, towers.value), weights)
        self._shows_features = towers.shows_features

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As in ``Passes``."""
        parameters, values = self._stack.forward(as_floats(inputs).reshape(len(inputs), -1))
        if self._shows_features:
            parameters = torch.cat((parameters, self._stack.features(0)), dim=1)
        return parameters, values.squeeze(1)

    def backward(self, parameters: torch.Tensor, values: torch.Tensor) -> None:
        """As in ``Passes``."""
        self._stack.backward((parameters, values.unsqueeze(1)))


class AutogradPasses:
    """The passes of any module."""

    def __init__(self, body: nn.Module, weights: PackedWeights) -> None:
        self._body, self._weights = body, weights
        self._outputs: tuple[torch.Tensor, ...] = ()

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As in ``Passes``."""
        with torch.enable_grad():
            self._outputs = parameters, values = self._body(inputs)
        return parameters.detach(), values.detach()

    def backward(self, parameters: torch.Tensor, values: torch.Tensor) -> None:
        """As in ``Passes``."""
        self._weights.gradients.zero_()  # autograd adds to them
        if n_left_out := self._outputs[0].shape[1] - parameters.shape[1]:
            parameters = functional.pad(parameters, (0, n_left_out))
        gradients = [
            (output, gradient)
            for output, gradient in zip(self._outputs, (parameters, values), strict=True)
            if output.requires_grad  # not one that only frozen weights give
        ]
        torch.autograd.backward(*cast("Any", zip(*gradients, strict=True)))
        self._outputs = ()
