"""Forward and backward passes of perceptrons with packed weights, written out.

An update of a small network costs mostly the kernels it starts and autograd's bookkeeping. So perceptrons of
the same hidden sizes, such as a policy and its value or twin critics, are computed together, layer by layer,
in memory that is reused, and their gradient goes straight into the packed gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch

from stoker.agents.networks import MLP, tanh_
from stoker.agents.packing import PackedWeights

_SIZES = 4
"""Batch sizes that memory is kept for."""


class _Layer(NamedTuple):
    """A hidden layer of K perceptrons: weights ``[K, outputs, inputs]`` and biases ``[K, 1, outputs]``."""

    weight: torch.Tensor
    bias: torch.Tensor
    turned: torch.Tensor  # the weights as [K, inputs, outputs]

    @classmethod
    def of(cls, packed: torch.Tensor, parts: Iterable[Sequence[Any]]) -> _Layer:
        """A view of the weight and the bias of each perceptron in packed weights."""
        weights, biases = zip(*parts, strict=True)
        weight = _stacked(packed, weights)
        return cls(weight, _stacked(packed, biases).unsqueeze(1), weight.mT)


class _Outputs(NamedTuple):
    """The outputs of a hidden layer for a number of rows; each part is a view of the first."""

    all: torch.Tensor  # [K, B, outputs]
    rows: torch.Tensor  # [K * B, outputs]
    columns: tuple[torch.Tensor, ...]  # of each perceptron, [outputs, B]


class _Gradient(NamedTuple):
    """Of a loss by the outputs of a hidden layer, of the first rows; with these outputs."""

    outputs: torch.Tensor  # [K, rows, outputs]
    features: tuple[torch.Tensor, ...]  # of each perceptron, [rows, outputs]
    all: torch.Tensor  # [K, rows, outputs]; the next ones are views of it
    turned: torch.Tensor  # [K, outputs, rows]
    parts: tuple[torch.Tensor, ...]  # of each perceptron, [rows, outputs]


class StackedPasses:
    """The passes of K perceptrons whose hidden layers have the same sizes; their outputs may differ.

    A backward pass is that of the last forward pass, of as many of its first rows as are given.

    Args:
        perceptrons: one behind the other in ``weights``, each like the others.
        weights: of the network that they are parts of.
    """

    def __init__(self, perceptrons: Sequence[MLP], weights: PackedWeights) -> None:
        self._made_of = perceptrons, weights
        self._is_tanh = perceptrons[0].activation == "tanh"
        *hidden, heads = zip(*(each.weights for each in perceptrons), strict=True)
        self._hidden = [_Layer.of(weights.values, layer) for layer in hidden]
        self._heads = [(weight.detach(), bias.detach().unsqueeze(1)) for weight, bias in heads]
        self._gradients: list[_Layer] = []
        self._by_heads: list[tuple[Any, ...]] = []
        if len(weights.gradients):
            *by_hidden, by_heads = [[(w.grad, b.grad) for w, b in layer] for layer in (*hidden, heads)]
            self._gradients = [_Layer.of(weights.gradients, layer) for layer in by_hidden]
            self._by_heads = by_heads
        self._outputs: dict[int, list[_Outputs]] = {}
        self._by_outputs: dict[tuple[int, int], list[_Gradient]] = {}
        self._inputs: torch.Tensor = weights.values[:0]
        self._given: Sequence[torch.Tensor] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return StackedPasses, self._made_of

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The output ``[B, outputs]`` of each perceptron, for inputs float32 ``[B, inputs]``.

        Their memory is that of ``[outputs, B]``: few outputs of many rows are computed faster that way.
        """
        self._inputs = values = inputs.expand(len(self._heads), -1, -1)
        columns: Sequence[torch.Tensor] = ()
        for layer, outputs in zip(self._hidden, self._outputs_for(len(inputs)), strict=True):
            torch.baddbmm(layer.bias, values, layer.turned, out=outputs.all)
            values = tanh_(outputs.all) if self._is_tanh else outputs.all.relu_()
            columns = outputs.columns
        return [
            torch.addmm(bias, weight, rows).t()
            for (weight, bias), rows in zip(self._heads, columns or values.mT, strict=True)
        ]

    def features(self, index: int) -> torch.Tensor:
        """What the last layer of one of the perceptrons saw in the last forward, ``[B, inputs]``."""
        outputs = self._outputs_for(self._inputs.shape[1])
        return outputs[-1].all[index] if outputs else self._inputs[index]

    def backward(self, gradients: Sequence[torch.Tensor]) -> None:
        """Overwrite the gradients of all weights, given the gradient by each output of the first rows."""
        self._given, n_rows = gradients, len(gradients[0])
        found = self._gradients_for(n_rows)
        values = [self._inputs[:, :n_rows], *(layer.outputs for layer in found)]
        features = found[-1].features if found else values[0]
        for (weight, bias), gradient, rows in zip(self._by_heads, gradients, features, strict=True):
            torch.mm(gradient.t(), rows, out=weight)
            torch.sum(gradient, 0, out=bias)
        if found:
            for (weight, _), gradient, part in zip(self._heads, gradients, found[-1].parts, strict=True):
                torch.mm(gradient, weight, out=part)
        for index in reversed(range(len(found))):
            layer, own, inputs = found[index], self._gradients[index], values[index]
            self._through_activation(layer.outputs, layer.all)
            if inputs.shape[2] < own.weight.shape[1]:
                # Few inputs of many rows: the product is six times as fast this way round.
                own.weight.copy_(torch.bmm(inputs.mT, layer.all).mT)
            else:
                torch.bmm(layer.turned, inputs, out=own.weight)
            torch.sum(layer.all, 1, keepdim=True, out=own.bias)
            if index:
                torch.bmm(layer.all, self._hidden[index].weight, out=found[index - 1].all)

    def input_gradient(self, inputs: slice) -> torch.Tensor:
        """The gradient ``[B, n]`` by some of the inputs through all perceptrons, of the last backward."""
        found = self._gradients_for(len(self._given[0]))
        if not found:
            pairs = zip(self._given, self._heads, strict=True)
            return torch.stack([gradient.mm(weight[:, inputs]) for gradient, (weight, _) in pairs]).sum(0)
        return torch.bmm(found[0].all, self._hidden[0].weight[:, :, inputs]).sum(0)

    def chosen_input_gradient(self, chosen: torch.Tensor, by_output: float, inputs: slice) -> torch.Tensor:
        """The gradient ``[B, n]`` by some of the inputs, of each of the last rows through one perceptron.

        That is the gradient of a minimum over the perceptrons, for 1 / K of the work of all K. No gradient of
        a weight changes. Each perceptron has one output.

        Args:
            chosen: the number of the perceptron of each of these rows, int64 ``[B]``.
            by_output: the gradient by its output.
            inputs: which of them.
        """
        # The rows of one perceptron lie together: one product for each, and one kernel for all else.
        numbers, order = chosen.sort(stable=True)
        counts = cast("list[int]", chosen.bincount(minlength=len(self._heads)).tolist())  # pyright: ignore[reportUnknownMemberType]
        size = self._inputs.shape[1]
        places = torch.add(order, numbers, alpha=size).add_(size - len(chosen))
        gradient = torch.cat([weight for weight, _ in self._heads]).mul_(by_output).index_select(0, numbers)
        for index in reversed(range(len(self._hidden))):
            outputs, weight = self._outputs_for(size)[index], self._hidden[index].weight
            self._through_activation(outputs.rows.index_select(0, places), gradient)
            parts = cast("Iterable[torch.Tensor]", gradient.split(counts))  # pyright: ignore[reportUnknownMemberType]
            weights = weight if index else weight[:, :, inputs]
            gradient = torch.cat([part.mm(own) for part, own in zip(parts, weights, strict=True)])
        if not self._hidden:
            gradient = gradient[:, inputs]
        return torch.empty_like(gradient).index_copy_(0, order, gradient)

    def _through_activation(self, outputs: torch.Tensor, gradient: torch.Tensor) -> None:
        """Turn the gradient by a layer's outputs into that by the values before the activation."""
        if self._is_tanh:
            torch.ops.aten.tanh_backward.grad_input(gradient, outputs, grad_input=gradient)
        else:
            torch.ops.aten.threshold_backward.grad_input(gradient, outputs, 0, grad_input=gradient)

    def _outputs_for(self, size: int) -> list[_Outputs]:
        """The memory of the outputs of each hidden layer for as many rows."""
        kept = self._outputs.get(size)
        if kept is None:
            if len(self._outputs) == _SIZES:
                self._outputs.clear()
                self._by_outputs.clear()
            kept = self._outputs[size] = []
            for layer in self._hidden:
                n, width = layer.weight.shape[:2]
                outputs = layer.weight.new_empty((n, size, width))
                kept.append(_Outputs(outputs, outputs.view(-1, width), outputs.mT.unbind()))
        return kept

    def _gradients_for(self, n_rows: int) -> list[_Gradient]:
        """The memory of the gradients by the outputs of the last forward pass, of its first rows."""
        size = self._inputs.shape[1]
        kept = self._by_outputs.get((size, n_rows))
        if kept is None:
            kept = self._by_outputs[size, n_rows] = []
            for layer in self._outputs_for(size):
                outputs = layer.all[:, :n_rows]
                gradient = torch.empty(outputs.shape, dtype=outputs.dtype, device=outputs.device)
                parts = outputs.unbind(), gradient, gradient.mT, gradient.unbind()
                kept.append(_Gradient(outputs, *parts))
        return kept


def _stacked(packed: torch.Tensor, parts: Sequence[Any]) -> torch.Tensor:
    """Parts of a packed tensor, of one shape and equally far apart, as one view ``[K, *shape]``."""
    starts = [(part.data_ptr() - packed.data_ptr()) // packed.element_size() for part in parts]
    distance = starts[1] - starts[0] if len(parts) > 1 else 0
    return packed.as_strided((len(parts), *parts[0].shape), (distance, *parts[0].stride()), starts[0])
