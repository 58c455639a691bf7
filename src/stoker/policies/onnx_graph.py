"""A program as an ONNX model: each operation is one or two of ONNX's, of version 18 of its operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from stoker.importing import required
from stoker.policies.tracing import BATCH, Node, Program

onnx = required("onnx", "onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

_OPSET = 18
_IR_VERSION = 9
"""Of the file format: what onnxruntime reads since 1.16, of 2023."""

_PLAIN = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "abs": "Abs", "neg": "Neg", "cos": "Cos", "sin": "Sin", "floor": "Floor", "round": "Round",
    "sign": "Sign", "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow",
    "maximum": "Max", "minimum": "Min", "equal": "Equal", "less": "Less", "greater": "Greater",
    "not": "Not", "and": "And", "or": "Or", "where": "Where", "matmul": "MatMul", "linear": "Gemm",
    "argmax": "ArgMax", "concat": "Concat", "gather": "GatherElements", "take": "Gather",
    "transpose": "Transpose",
}  # fmt: skip
"""Operations of the same arguments."""
_ATTRIBUTES = {"axes": "perm", "keeps": "keepdims"}
"""ONNX's names of their settings, where they differ."""
_REDUCED = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}


def onnx_model(
    program: Program,
    inputs: Mapping[str, tuple[str, Sequence[int]]],
    outputs: Mapping[str, tuple[str, Sequence[int]]],
    metadata: Mapping[str, str],
) -> bytes:
    """The model as bytes.

    Args:
        program: what it computes.
        inputs: dtype and shape, without the batch, of each input.
        outputs: dtype and shape, without the batch, of each output.
        metadata: texts by name, which readers of the model find in it.

    Raises:
        ValueError: The model is not valid; nothing that ``traced`` returns gives that.
    """
    writer = _Writer(program)
    for node in program.nodes:
        writer.write(node)
    for name, value in program.outputs.items():
        writer.add("Identity", [value], name)
    graph = helper.make_graph(
        writer.nodes,
        "policy",
        [_described(name, *form) for name, form in inputs.items()],
        [_described(name, *form) for name, form in outputs.items()],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        producer_name="stoker",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _described(name: str, dtype: str, shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, _type(dtype), [BATCH, *shape])


def _type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class _Writer:
    """The nodes and constants of a graph."""

    def __init__(self, program: Program) -> None:
        self.nodes: list[Any] = []
        self.constants = [numpy_helper.from_array(array, name) for name, array in program.constants.items()]
        self._input = program.inputs[0]
        self._n_made = 0

    def write(self, node: Node) -> None:
        """Add the nodes of one operation."""
        if node.op in _PLAIN:
            attributes = {_ATTRIBUTES.get(name, name): value for name, value in node.settings.items()}
            self.add(_PLAIN[node.op], node.inputs, node.output, **attributes)
        elif node.op in _REDUCED:
            axes = self.constant(node.settings["axes"])
            self.add(
                _REDUCED[node.op], [*node.inputs, axes], node.output, keepdims=int(node.settings["keeps"])
            )
        else:
            _OTHERS[node.op](self, node, **node.settings)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add one of ONNX's own operations."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, numbers: Sequence[int]) -> str:
        """The name of whole numbers."""
        name = self.new_name()
        self.constants.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return name

    def new_name(self) -> str:
        """A name that no value has."""
        self._n_made += 1
        return f"made_{self._n_made}"

    def shape(self, sizes: Sequence[Any]) -> str:
        """The name of a shape; the size of the batch is read from the first input."""
        n = self.add("Shape", [self._input], self.new_name(), start=0, end=1)
        parts: list[str] = []
        for size in sizes:
            if isinstance(size, str):
                factor = self.constant([int(size.partition("*")[2] or 1)])
                parts.append(self.add("Mul", [n, factor], self.new_name()))
            else:
                parts.append(self.constant([size]))
        return self.add("Concat", parts, self.new_name(), axis=0)


def _reshape(to: _Writer, node: Node, shape: Sequence[Any]) -> None:
    fixed = [-1 if isinstance(size, str) else size for size in shape]
    sizes = to.constant(fixed) if fixed.count(-1) <= 1 else to.shape(shape)
    to.add("Reshape", [*node.inputs, sizes], node.output)


def _expand(to: _Writer, node: Node, shape: Sequence[Any]) -> None:
    to.add("Expand", [*node.inputs, to.shape(shape)], node.output)


def _cast(to: _Writer, node: Node, dtype: str) -> None:
    to.add("Cast", node.inputs, node.output, to=_type(dtype))


def _slice(to: _Writer, node: Node, axis: int, start: int, stop: int, step: int) -> None:
    places = [to.constant([number]) for number in (start, stop, axis, step)]
    to.add("Slice", [*node.inputs, *places], node.output)


def _conv(to: _Writer, node: Node, strides: Sequence[int], padding: Sequence[int]) -> None:
    to.add("Conv", node.inputs, node.output, strides=strides, pads=[*padding, *padding])


_Other: TypeAlias = Callable[..., None]
_OTHERS: dict[str, _Other] = {
    "cast": _cast,
    "conv": _conv,
    "expand": _expand,
    "reshape": _reshape,
    "slice": _slice,
}
