"""Forward and backward passes of perceptrons with packed weights, written out.

An update of a small network costs mostly the kernels it starts and autograd's bookkeeping. So perceptrons of
the same hidden sizes, such as a policy and its value or twin critics, are computed together, layer by layer,
in memory that is reused, and their gradient goes straight into the packed gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from stoker.agents.networks import MLP, tanh_
from stoker.agents.packing import PackedWeights

__all__ = ["StackedPasses"]

_SIZES = 4
"""Batch sizes that memory is kept for."""


class _Layer(NamedTuple):
    """A hidden layer of K perceptrons: weights ``[K, outputs, inputs]`` and biases ``[K, 1, outputs]``."""

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, packed: torch.Tensor, parts: Iterable[Sequence[Any]]) -> _Layer:
        """A view of the weight and the bias of each perceptron in packed weights."""
        weights, biases = zip(*parts, strict=True)
        return cls(_stacked(packed, weights), _stacked(packed, biases).unsqueeze(1))


class _Memory(NamedTuple):
    """What is kept of a hidden layer and a batch size."""

    outputs: torch.Tensor  # [K, B, outputs]
    gradient: torch.Tensor  # by the outputs; the next ones are parts of both
    turned: torch.Tensor  # [K, outputs, B]
    features: tuple[torch.Tensor, ...]  # of each perceptron, [B, outputs]
    by_features: tuple[torch.Tensor, ...]


class StackedPasses:
    """The passes of K perceptrons whose hidden layers have the same sizes; their outputs may differ.

    A backward pass is that of the last forward pass with as many rows.

    Args:
        perceptrons: one behind the other in ``weights``, each like the others.
        weights: of the network that they are parts of.
    """

    def __init__(self, perceptrons: Sequence[MLP], weights: PackedWeights) -> None:
        self._made_of = perceptrons, weights
        self._is_tanh = perceptrons[0].activation == "tanh"
        *hidden, self._heads = zip(*(each.weights for each in perceptrons), strict=True)
        self._hidden = [_Layer.of(weights.values, layer) for layer in hidden]
        self._gradients: list[_Layer] = []
        self._by_heads: list[tuple[Any, ...]] = []
        if len(weights.gradients):
            *by_hidden, by_heads = [[(w.grad, b.grad) for w, b in layer] for layer in (*hidden, self._heads)]
            self._gradients = [_Layer.of(weights.gradients, layer) for layer in by_hidden]
            self._by_heads = by_heads
        self._memory: dict[int, list[_Memory]] = {}
        self._inputs: torch.Tensor = weights.values[:0]
        self._by_outputs: Sequence[torch.Tensor] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return StackedPasses, self._made_of

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The output ``[B, outputs]`` of each perceptron, for inputs float32 ``[B, inputs]``.

        Their memory is that of ``[outputs, B]``: few outputs of many rows are computed faster that way.
        """
        self._inputs = values = inputs.expand(len(self._heads), -1, -1)
        features: Sequence[torch.Tensor] = [inputs] * len(self._heads)
        for layer, memory in zip(self._hidden, self._memory_for(len(inputs)), strict=True):
            torch.baddbmm(layer.bias, values, layer.weight.mT, out=memory.outputs)
            values = tanh_(memory.outputs) if self._is_tanh else memory.outputs.relu_()
            features = memory.features
        return [
            torch.addmm(bias.unsqueeze(1), weight, rows.t()).t()
            for (weight, bias), rows in zip(self._heads, features, strict=True)
        ]

    def features(self, index: int) -> torch.Tensor:
        """What the last layer of one of the perceptrons saw in the last forward, ``[B, inputs]``."""
        memories = self._memory_for(self._inputs.shape[1])
        return memories[-1].features[index] if memories else self._inputs[index]

    def backward(self, gradients: Sequence[torch.Tensor]) -> None:
        """Overwrite the gradients of all weights, given the gradient by each output of the last forward."""
        self._by_outputs = gradients
        memories = self._memory_for(self._inputs.shape[1])
        inputs = [self._inputs, *(memory.outputs for memory in memories)]
        features = memories[-1].features if memories else self._inputs
        for (weight, bias), gradient, rows in zip(self._by_heads, gradients, features, strict=True):
            torch.mm(gradient.t(), rows, out=weight)
            torch.sum(gradient, 0, out=bias)
        self._back_from_heads(gradients)
        for index in reversed(range(len(memories))):
            memory, own = memories[index], self._gradients[index]
            self._through_activation(memory.outputs, memory.gradient, out=memory.gradient)
            if inputs[index].shape[2] < own.weight.shape[1]:
                # Few inputs of many rows: the product is six times as fast this way round.
                own.weight.copy_(torch.bmm(inputs[index].mT, memory.gradient).mT)
            else:
                torch.bmm(memory.turned, inputs[index], out=own.weight)
            torch.sum(memory.gradient, 1, keepdim=True, out=own.bias)
            if index:
                torch.bmm(memory.gradient, self._hidden[index].weight, out=memories[index - 1].gradient)

    def input_gradient(self, inputs: slice) -> torch.Tensor:
        """The gradient ``[B, n]`` by some of the inputs through all perceptrons, of the last backward."""
        memories = self._memory_for(self._inputs.shape[1])
        if not memories:
            pairs = zip(self._by_outputs, self._heads, strict=True)
            return torch.stack([gradient.mm(weight[:, inputs]) for gradient, (weight, _) in pairs]).sum(0)
        return torch.bmm(memories[0].gradient, self._hidden[0].weight[:, :, inputs]).sum(0)

    def chosen_input_gradient(self, chosen: torch.Tensor, by_output: float, inputs: slice) -> torch.Tensor:
        """The gradient ``[B, n]`` by some of the inputs, of each row through one perceptron alone.

        That is the gradient of a minimum over the perceptrons, for 1 / K of the work of all K. No gradient of
        a weight changes. Each perceptron has one output.

        Args:
            chosen: the number of the perceptron of each row ``[B]``.
            by_output: the gradient by its output.
            inputs: which of them.
        """
        memories = self._memory_for(len(chosen))
        found = self._inputs.new_empty(len(chosen), len(range(self._inputs.shape[2])[inputs]))
        for number, (head, _) in enumerate(self._heads):
            rows = (chosen == number).nonzero().squeeze(1)
            gradient = (head * by_output).expand(len(rows), -1)
            for index in reversed(range(len(memories))):
                weight, outputs = self._hidden[index].weight[number], memories[index].outputs[number]
                gradient = self._through_activation(outputs.index_select(0, rows), gradient)
                gradient = gradient.mm(weight if index else weight[:, inputs])
            found.index_copy_(0, rows, gradient if memories else gradient[:, inputs])
        return found

    def _back_from_heads(self, gradients: Sequence[torch.Tensor]) -> None:
        memories = self._memory_for(self._inputs.shape[1])
        if memories:
            for (weight, _), gradient, by_features in zip(
                self._heads, gradients, memories[-1].by_features, strict=True
            ):
                torch.mm(gradient, weight, out=by_features)

    def _through_activation(
        self, outputs: torch.Tensor, gradient: torch.Tensor, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The gradient by the values before the activation, of that by a layer's outputs."""
        found = torch.empty_like(outputs) if out is None else out
        if self._is_tanh:
            return torch.ops.aten.tanh_backward.grad_input(gradient, outputs, grad_input=found)
        return torch.ops.aten.threshold_backward.grad_input(gradient, outputs, 0, grad_input=found)

    def _memory_for(self, size: int) -> list[_Memory]:
        memories = self._memory.get(size)
        if memories is None:
            if len(self._memory) == _SIZES:
                self._memory.clear()
            empty, n = self._heads[0][0].new_empty, len(self._heads)
            memories = self._memory[size] = []
            for layer in self._hidden:
                outputs, gradient = (empty((n, size, layer.weight.shape[1])) for _ in range(2))
                memories.append(_Memory(outputs, gradient, gradient.mT, outputs.unbind(), gradient.unbind()))
        return memories


def _stacked(packed: torch.Tensor, parts: Sequence[Any]) -> torch.Tensor:
    """Parts of a packed tensor, of one shape and equally far apart, as one view ``[K, *shape]``."""
    starts = [(part.data_ptr() - packed.data_ptr()) // packed.element_size() for part in parts]
    distance = starts[1] - starts[0] if len(parts) > 1 else 0
    return packed.as_strided((len(parts), *parts[0].shape), (distance, *parts[0].stride()), starts[0])
