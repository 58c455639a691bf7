"""Parts of networks, with weights from a generator given in, never from torch's global one.

The same seed of the generator gives the same weights. They are made on the CPU; move them afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from stoker.agents.masks import limited
from stoker.agents.observations import Observations
from stoker.agents.packed_rows import PackedRows

Activation = Literal["tanh", "relu"]
"""The function between layers."""

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)
_Rows = NDArray[np.float32]

HIDDEN_GAIN = math.sqrt(2)
"""Of orthogonal weights before an activation."""

_MOST_DEVIATIONS = 10.0
_MOST_PRODUCTS = 1 << 18
"""Multiplications in a layer up to which numpy is faster; beyond, its library would start threads."""

_NUMPY_ACTIVATIONS: dict[str, Callable[..., Any]] = {"tanh": np.tanh, "relu": partial(np.maximum, 0.0)}


class ObservationNetwork(nn.Module):
    """Base of networks that observe, and can normalize what they observe.

    With ``normalizes``, observations are shifted and scaled by ``set_moments``, and limited to ten standard
    deviations, before a layer sees them. Of packed observations this is done to numbers alone: bits, choices
    and images stay as they are.

    Args:
        observations: what it observes.
        normalizes: whether it normalizes.
        is_flat: whether its layers take packed observations as one vector, or as rows that an encoder reads.

    Attributes:
        rows: the layout of packed observations; None: they are arrays of one shape.
    """

    input_mean: torch.Tensor
    input_scale: torch.Tensor

    def __init__(self, observations: Observations, *, normalizes: bool, is_flat: bool) -> None:
        super().__init__()
        self.rows: PackedRows | None = observations.rows
        self.normalizes = normalizes
        self.is_flat = is_flat
        if normalizes:  # buffers, so that each copy of the network has the moments that its weights go with
            shape = observations.shape if self.rows is None else (self.rows.n_floats,)
            self.register_buffer("input_mean", torch.zeros(shape))
            self.register_buffer("input_scale", torch.ones(shape))

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """The perceptrons that its outputs come from, if it has no other layers."""
        return ()

    def prepared(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations as the layers get them: normalized, packed ones as a vector if ``is_flat``."""
        if self.rows is None:
            return self._normalized(observations) if self.normalizes else observations
        floats = self.rows.floats(observations)
        if self.normalizes:
            floats = self._normalized(floats)
        if self.is_flat:
            return self.rows.flat(observations, floats)
        return self.rows.with_floats(observations, floats) if self.normalizes else observations

    def limited(self, values: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
        """Values of all choices with -inf for those that the observations forbid by an action mask."""
        mask = None if self.rows is None else self.rows.mask
        return values if mask is None else limited(values, observations[:, mask])

    def set_moments(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Normalize by this mean and this inverse standard deviation, of flat observations, from now on."""
        if self.rows is not None:
            is_normalized = torch.as_tensor(self.rows.is_normalized)
            mean, scale = mean.where(is_normalized, 0.0), scale.where(is_normalized, 1.0)
        self.input_mean.copy_(mean.view_as(self.input_mean))
        self.input_scale.copy_(scale.view_as(self.input_scale))

    def _normalized(self, numbers: torch.Tensor) -> torch.Tensor:
        deviations = (numbers.float() - self.input_mean).mul_(self.input_scale)
        if self.rows is None:
            return deviations.clamp_(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        # The places of choices are no deviations.
        n_numbers = self.rows.n_numbers
        limited = deviations[:, :n_numbers].clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        return torch.cat([limited, deviations[:, n_numbers:]], dim=1)


class MLP(nn.Module):
    """Fully connected layers with an activation between them; there is none after the last layer.

    Args:
        sizes: the width of the input, of each hidden layer and of the output.
        activation: between the layers.
        generator: a CPU generator that the weights are drawn from.
        output_gain: of the last layer's weights as ``seeded`` takes it; then that of the others is sqrt(2).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation,
        generator: torch.Generator,
        output_gain: float | None = None,
    ) -> None:
        super().__init__()
        hidden_gain = None if output_gain is None else HIDDEN_GAIN
        gains = [hidden_gain] * (len(sizes) - 2) + [output_gain]
        layers = [
            seeded(nn.Linear(inputs, outputs, device="meta"), generator, gain)
            for (inputs, outputs), gain in zip(itertools.pairwise(sizes), gains, strict=True)
        ]
        self.layers: nn.ModuleList = nn.ModuleList(layers)
        self.weights: list[tuple[torch.Tensor, torch.Tensor]] = [
            (layer.weight, layer.bias) for layer in layers
        ]  # without a search for each use
        self.activation: Activation = activation

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, sizes[-1]]`` of float32 ``[B, sizes[0]]``."""
        return self.with_features(values)[0]

    def with_features(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output, and what the last layer computes it from ``[B, sizes[-2]]``."""
        activate = torch.relu_ if self.activation == "relu" else tanh_
        *hidden, (weight, bias) = self.weights
        for hidden_weight, hidden_bias in hidden:
            values = activate(functional.linear(values, hidden_weight, hidden_bias))
        return functional.linear(values, weight, bias), values


class NumpyPass:
    """Forward passes of perceptrons for a few observations, in numpy.

    For a handful of rows torch's own work takes several times as long as the mathematics, and each of its
    operations releases the interpreter lock, which a busy learner then keeps for a while. numpy does neither.
    Changes of the network's weights take effect at once. It is faster for up to ``most_rows`` observations.
    """

    def __init__(self, network: ObservationNetwork) -> None:
        perceptrons = network.perceptrons
        self._layers = [[(_array(w).T, _array(b)) for w, b in each.weights] for each in perceptrons]
        self._activate = _NUMPY_ACTIVATIONS[perceptrons[0].activation]
        self._n_inputs = len(self._layers[0][0][0])
        self._moments = None
        self._packed = network.rows
        if network.normalizes:
            self._moments = _array(network.input_mean).reshape(-1), _array(network.input_scale).reshape(-1)
        self.most_rows: int = _MOST_PRODUCTS // max(w.size for layers in self._layers for w, _ in layers)

    def inputs(self, observations: NDArray[Any]) -> _Rows:
        """The input of the perceptrons for observations ``[B, *observation_shape]``."""
        if self._packed is not None:
            return self._packed.flat_array(observations, self._packed_floats(self._packed, observations))
        rows: _Rows = observations.reshape(-1, self._n_inputs).astype(np.float32, copy=False)
        if self._moments is not None:
            mean, scale = self._moments
            return ((rows - mean) * scale).clip(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        return rows / np.float32(255) if observations.dtype == np.uint8 else rows

    def _packed_floats(self, packed: PackedRows, observations: NDArray[Any]) -> _Rows:
        floats = packed.float_columns(observations)
        if self._moments is None:
            return floats
        mean, scale = self._moments
        deviations: _Rows = (floats - mean) * scale
        numbers = deviations[:, : packed.n_numbers]
        numbers.clip(-_MOST_DEVIATIONS, _MOST_DEVIATIONS, out=numbers)
        return deviations

    def outputs(self, inputs: _Rows, index: int = 0) -> _Rows:
        """The output ``[B, sizes[-1]]`` of one of the perceptrons."""
        return self.with_features(inputs, index)[0]

    def with_features(self, inputs: _Rows, index: int = 0) -> tuple[_Rows, _Rows]:
        """The output, and what the last layer computes it from ``[B, sizes[-2]]``."""
        rows = inputs
        *hidden, (weight, bias) = self._layers[index]
        for hidden_weight, hidden_bias in hidden:
            rows = rows @ hidden_weight
            rows += hidden_bias
            self._activate(rows, out=rows)
        return rows @ weight + bias, rows


def predict(network: nn.Module, observations: NDArray[Any], device: torch.device) -> list[_Rows]:
    """A network's outputs for a batch, by torch, without a gradient; each in host memory."""
    # A thread that never asks for the number of threads computes its first products with one per core,
    # whatever torch was set to, and rounds otherwise than a replay would.
    torch.get_num_threads()
    with torch.inference_mode():
        # Copied to memory that torch aligned: on numpy's, sums may round otherwise from run to run.
        outputs = network(torch.tensor(observations, device=device))
        tensors: Sequence[torch.Tensor] = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        return [tensor.cpu().numpy() for tensor in tensors]


def tanh_(values: torch.Tensor) -> torch.Tensor:
    """The hyperbolic tangent of each value, in its place.

    On a CPU by numpy, if no gradient is wanted: torch's kernel takes six times as long.
    """
    if values.requires_grad or values.device.type != "cpu":
        return values.tanh_()
    array = values.numpy()
    np.tanh(array, out=array)
    return values


def as_floats(observations: torch.Tensor) -> torch.Tensor:
    """Observations as float32; uint8 is scaled from 0..255 to 0..1."""
    return observations.float().div_(255) if observations.dtype is torch.uint8 else observations.float()


def seeded(layer: _Layer, generator: torch.Generator, gain: float | None = None) -> _Layer:
    """Give a layer made on the device ``"meta"`` memory, and weights drawn from a CPU generator.

    A layer made elsewhere would have drawn from the global generator already. With a gain weights are
    orthogonal (Saxe et al. 2014), scaled by it, and biases 0, as policy gradients usually begin (Andrychowicz
    et al. 2021, section 3.2); without, both are uniform within ``1 / sqrt(fan_in)`` of zero, as torch's are.
    """
    for name, parameter in list(layer.named_parameters()):  # to_empty would import sympy, for 0.2 s
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape)))
    with torch.no_grad():
        if gain is not None:
            nn.init.orthogonal_(layer.weight, gain, generator)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType] - all layers here have biases
        else:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for tensor in (layer.weight, layer.bias):
                nn.init.uniform_(tensor, -bound, bound, generator)  # pyright: ignore[reportArgumentType]
    return layer


def _array(tensor: torch.Tensor) -> _Rows:
    """The tensor's own memory."""
    return tensor.detach().numpy()
