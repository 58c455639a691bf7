"""The two perceptrons' forward passes for a few observations, in numpy.

For a handful of rows torch's own work takes several times as long as the mathematics, and each of its
operations gives up the interpreter lock, which a learner at work then keeps for a while. numpy does neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.networks import MLP
from stoker.agents.ppo.network import ActorCritic, Towers

__all__ = ["SmallPass", "small_pass"]

_MOST = 1 << 18
"""Multiplications in a layer up to which it pays; beyond, numpy's library would take several threads."""

_Rows = NDArray[np.float32]


class SmallPass:
    """What a network computes that has towers, on the weights that it has at the time.

    Args:
        network: on the CPU.
        towers: its body.
    """

    def __init__(self, network: ActorCritic, towers: Towers) -> None:
        self._policy = _layers(towers.policy)
        self._value = _layers(towers.value)
        self._activate: Callable[..., Any] = np.tanh if towers.policy.activation == "tanh" else _relu
        self._moments = None
        if network.normalizes:
            self._moments = _array(network.input_mean).reshape(-1), _array(network.input_scale).reshape(-1)
        widest = max(weight.size for weight, _ in [*self._policy, *self._value])
        self.most_rows = _MOST // widest
        """Observations that it is meant for at once."""

    def inputs(self, observations: NDArray[Any]) -> _Rows:
        """What both towers see of observations ``[B, *observation_shape]``."""
        rows: _Rows = observations.reshape(len(observations), -1).astype(np.float32, copy=False)
        if self._moments is not None:
            mean, scale = self._moments
            return ((rows - mean) * scale).clip(-10.0, 10.0)
        return rows / np.float32(255) if observations.dtype == np.uint8 else rows

    def parameters(self, inputs: _Rows) -> _Rows:
        """The parameters of the distributions, ``[B, n_parameters]``."""
        return self._through(self._policy, inputs)

    def values(self, inputs: _Rows) -> _Rows:
        """The values, ``[B]``."""
        return self._through(self._value, inputs)[:, 0]

    def _through(self, layers: list[tuple[_Rows, _Rows]], rows: _Rows) -> _Rows:
        *hidden, (weight, bias) = layers
        for hidden_weight, hidden_bias in hidden:
            rows = rows @ hidden_weight
            rows += hidden_bias
            self._activate(rows, out=rows)
        return rows @ weight + bias


def small_pass(network: ActorCritic, device: torch.device) -> SmallPass | None:
    """The pass for a few rows, for a network that has one."""
    if device.type == "cpu" and isinstance(network.body, Towers):
        return SmallPass(network, network.body)
    return None


def _layers(perceptron: MLP) -> list[tuple[_Rows, _Rows]]:
    return [(_array(weight).T, _array(bias)) for weight, bias in perceptron.weights]


def _relu(rows: _Rows, out: _Rows) -> _Rows:
    return np.maximum(rows, 0.0, out=out)


def _array(tensor: torch.Tensor) -> _Rows:
    """The tensor's own memory."""
    return tensor.detach().numpy()
