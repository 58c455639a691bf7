"""A perceptron's forward pass for a few observations, in numpy.

For a handful of rows torch's own work takes several times as long as the mathematics, and each of its
operations gives up the interpreter lock, which a learner at work then keeps for a while. numpy does neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.dqn.perceptron import Perceptron

__all__ = ["SmallPass"]

_MOST = 1 << 18
"""Multiplications in a layer up to which it pays; beyond, numpy's library would take several threads."""


class SmallPass:
    """What the network computes, on the weights that the network has at the time.

    Args:
        network: on the CPU.
    """

    def __init__(self, network: Perceptron) -> None:
        self._layers = [(_array(weight).T, _array(bias)) for weight, bias in network.weights]
        self._inputs = len(self._layers[0][0])
        self._scale = network.scale
        self._dueling = network.dueling
        self._moments = None
        if network.normalizes:
            self._moments = _array(network.input_mean), _array(network.input_scale)
        self.most_rows = _MOST // max(weight.size for weight, _ in self._layers)
        """Observations that it is meant for at once."""

    def __call__(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        """Values float32 ``[B, n_actions]`` of observations ``[B, *observation_shape]``."""
        values: NDArray[np.float32] = observations.reshape(-1, self._inputs).astype(np.float32, copy=False)
        if self._scale is not None:
            values = values * np.float32(self._scale)
        if self._moments is not None:
            mean, scale = self._moments
            values = ((values - mean) * scale).clip(-10.0, 10.0)
        *hidden, (weight, bias) = self._layers
        for hidden_weight, hidden_bias in hidden:
            values = values @ hidden_weight
            values += hidden_bias
            np.maximum(values, 0.0, out=values)
        values = values @ weight + bias
        if self._dueling:
            advantages = values[:, 1:]
            values = values[:, :1] + advantages - advantages.mean(axis=1, keepdims=True)
        return values


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """The tensor's own memory."""
    return tensor.detach().numpy()
