"""Forward and backward passes of perceptrons with packed weights, written out.

An update of a small network costs mostly the kernels it starts and autograd's bookkeeping. So perceptrons of
the same hidden sizes (a policy and its value, twin critics) are computed together, layer by layer, in memory
that is reused, and their gradient goes straight into the packed gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from stoker.agents.networks import MLP
from stoker.agents.packing import PackedWeights

__all__ = ["StackedPasses"]

_SIZES = 4
"""Batch sizes that memory is kept for."""


class _Layer(NamedTuple):
    """A hidden layer of K perceptrons: weights ``[K, outputs, inputs]`` and biases ``[K, 1, outputs]``."""

    weight: torch.Tensor
    bias: torch.Tensor


class _Memory(NamedTuple):
    """A hidden layer's outputs and the gradient by them, both ``[K, B, outputs]``."""

    outputs: torch.Tensor
    gradient: torch.Tensor


class StackedPasses:
    """The passes of K perceptrons whose hidden layers have the same sizes; their outputs may differ.

    A forward pass is followed by as many backward passes as needed, before the next one.

    Args:
        perceptrons: one behind the other in ``weights``, each like the others.
        weights: of the network that they are parts of.
    """

    def __init__(self, perceptrons: Sequence[MLP], weights: PackedWeights) -> None:
        self._made_of = perceptrons, weights
        self._is_tanh = perceptrons[0].activation == "tanh"
        layers = list(zip(*(each.weights for each in perceptrons), strict=True))
        *hidden, self._heads = layers
        self._hidden = [
            _Layer(*(_stacked(weights.values, tensors) for tensors in zip(*layer, strict=True)))
            for layer in hidden
        ]
        self._gradients: list[_Layer] = []
        if len(weights.gradients):
            self._gradients = [
                _Layer(
                    *(
                        _stacked(weights.gradients, [each.grad for each in tensors])
                        for tensors in zip(*layer, strict=True)
                    )
                )
                for layer in hidden
            ]
        self._memory: dict[int, list[_Memory]] = {}
        self._inputs: torch.Tensor = weights.values[:0]

    def __reduce__(self) -> tuple[Any, ...]:
        return StackedPasses, self._made_of

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The output ``[B, outputs]`` of each perceptron, for inputs float32 ``[B, inputs]``.

        Their memory is that of ``[outputs, B]``: few outputs of many rows are computed faster that way.
        """
        self._inputs = values = inputs.expand(len(self._heads), -1, -1)
        for layer, memory in zip(self._hidden, self._memory_for(len(inputs)), strict=True):
            torch.baddbmm(layer.bias.unsqueeze(1), values, layer.weight.mT, out=memory.outputs)
            values = memory.outputs.tanh_() if self._is_tanh else memory.outputs.relu_()
        return [
            torch.addmm(bias.unsqueeze(1), weight, features.t()).t()
            for (weight, bias), features in zip(self._heads, values, strict=True)
        ]

    def backward(self, gradients: Sequence[torch.Tensor]) -> None:
        """Overwrite the gradients of all weights, given the gradient by each output of the last forward."""
        memories = self._memory_for(self._inputs.shape[1])
        inputs = [self._inputs, *(memory.outputs for memory in memories)]
        for (weight, bias), gradient, features in zip(self._heads, gradients, inputs[-1], strict=True):
            torch.mm(gradient.t(), features, out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
        self._back_from_heads(gradients)
        for index in reversed(range(len(memories))):
            gradient, own = self._back_through_activation(index), self._gradients[index]
            torch.bmm(gradient.mT, inputs[index], out=own.weight)
            torch.sum(gradient, 1, out=own.bias)
            if index:
                torch.bmm(gradient, self._hidden[index].weight, out=memories[index - 1].gradient)

    def input_gradient(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """The gradient ``[K, B, inputs]`` by the inputs, through each; no gradient of a weight changes."""
        memories = self._memory_for(self._inputs.shape[1])
        if not memories:
            return torch.stack([g @ weight for g, (weight, _) in zip(gradients, self._heads, strict=True)])
        self._back_from_heads(gradients)
        for index in reversed(range(1, len(memories))):
            gradient = self._back_through_activation(index)
            torch.bmm(gradient, self._hidden[index].weight, out=memories[index - 1].gradient)
        return torch.bmm(self._back_through_activation(0), self._hidden[0].weight)

    def _back_from_heads(self, gradients: Sequence[torch.Tensor]) -> None:
        memories = self._memory_for(self._inputs.shape[1])
        if memories:
            for (weight, _), gradient, by_features in zip(
                self._heads, gradients, memories[-1].gradient, strict=True
            ):
                torch.mm(gradient, weight, out=by_features)

    def _back_through_activation(self, index: int) -> torch.Tensor:
        outputs, gradient = self._memory_for(self._inputs.shape[1])[index]
        if self._is_tanh:
            return torch.ops.aten.tanh_backward.grad_input(gradient, outputs, grad_input=gradient)
        return torch.ops.aten.threshold_backward.grad_input(gradient, outputs, 0, grad_input=gradient)

    def _memory_for(self, size: int) -> list[_Memory]:
        memory = self._memory.get(size)
        if memory is None:
            if len(self._memory) == _SIZES:
                self._memory.clear()
            shapes = [(len(self._heads), size, layer.weight.shape[1]) for layer in self._hidden]
            empty = self._heads[0][0].new_empty
            memory = self._memory[size] = [_Memory(empty(shape), empty(shape)) for shape in shapes]
        return memory


def _stacked(packed: torch.Tensor, parts: Sequence[Any]) -> torch.Tensor:
    """Parts of a packed tensor, of one shape and equally far apart, as one view ``[K, *shape]``."""
    starts = [(part.data_ptr() - packed.data_ptr()) // packed.element_size() for part in parts]
    distance = starts[1] - starts[0] if len(parts) > 1 else 0
    return packed.as_strided((len(parts), *parts[0].shape), (distance, *parts[0].stride()), starts[0])
