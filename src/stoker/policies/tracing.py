"""From a module of torch to a program: a list of plain operations on arrays, the same for any batch.

The module is called on two batches of different sizes while its operations are recorded. A size that differs
between the two is the batch's; everything else is fixed. Operations in place become new values, what depends
on weights alone is computed once, and what no output needs is left out.

torch.export does the same for any operation, takes seconds, and its graph has hundreds of kinds of nodes.
Policies need few: ``stoker.policies.numpy_policy`` plays them, ``stoker.policies.onnx_graph`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stoker.errors import ConfigError
from stoker.policies.operations import HANDLERS

BATCH = "batch"
"""Stands for the number of observations in a shape; ``"batch*3"`` for three times that."""
_SIZES = (2, 3)
"""The sizes of the two batches."""


class Node(NamedTuple):
    """One operation: its kind, the name of its result, those of its arguments, and settings that JSON has."""

    op: str
    output: str
    inputs: list[str]
    settings: dict[str, Any]


class Program(NamedTuple):
    """Operations in their order.

    Attributes:
        inputs: the names of the arguments.
        outputs: the value of each output, by the output's name.
        nodes: the operations.
        constants: weights and other fixed arrays, by name.
    """

    inputs: list[str]
    outputs: dict[str, str]
    nodes: list[Node]
    constants: dict[str, NDArray[Any]]


def traced(
    module: nn.Module,
    call: Callable[..., Mapping[str, torch.Tensor]],
    inputs: Mapping[str, torch.Tensor],
) -> Program:
    """Record what ``call`` computes of observations.

    Args:
        module: its parameters and buffers give their names to constants.
        call: outputs by name, of a tensor ``[B, ...]`` for each of the inputs.
        inputs: an example of each, ``[...]``, by name.

    Raises:
        ConfigError: It uses an operation that a program lacks, or depends on numbers that it reads.
    """
    one, other = (_recorded(module, call, inputs, size) for size in _SIZES)
    if len(one.nodes) != len(other.nodes) or one.constants.keys() != other.constants.keys():
        raise ConfigError(f"{_name(module)} computes otherwise for {_SIZES[0]} and {_SIZES[1]} observations")
    for name, array in one.constants.items():
        if not np.array_equal(array, other.constants[name], equal_nan=True):
            raise ConfigError(
                f"{_name(module)} makes a tensor of the batch's size from nothing: expand another one"
            )
    nodes = [
        Node(first.op, first.output, first.inputs, _merged(first.settings, second.settings))
        for first, second in zip(one.nodes, other.nodes, strict=True)
    ]
    return _pruned(one._replace(nodes=nodes))


def _merged(one: Any, other: Any) -> Any:
    """Settings of both batches, with ``BATCH`` where they have their sizes."""
    if isinstance(one, dict):
        pairs, others = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return {name: _merged(value, others[name]) for name, value in pairs.items()}
    if isinstance(one, list):
        parts = zip(cast("list[Any]", one), cast("list[Any]", other), strict=True)
        return [_merged(first, second) for first, second in parts]
    if one == other:
        return one
    if isinstance(one, int) and one % _SIZES[0] == 0 and one // _SIZES[0] * _SIZES[1] == other:
        factor = one // _SIZES[0]
        return BATCH if factor == 1 else f"{BATCH}*{factor}"
    raise ConfigError(f"a size that is {one} for {_SIZES[0]} observations and {other} for {_SIZES[1]}")


def _pruned(program: Program) -> Program:
    """Without what no output needs."""
    needed = set(program.outputs.values())
    kept: list[Node] = []
    for node in reversed(program.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: array for name, array in program.constants.items() if name in needed}
    return program._replace(nodes=kept[::-1], constants=constants)


def _name(module: nn.Module) -> str:
    return f"the policy module, a {type(module).__name__},"


def _recorded(
    module: nn.Module,
    call: Callable[..., Mapping[str, torch.Tensor]],
    inputs: Mapping[str, torch.Tensor],
    size: int,
) -> Program:
    recorder = _Recorder(module)
    examples = {name: torch.stack([example] * size) for name, example in inputs.items()}
    for name, example in examples.items():
        recorder.introduce(name, example)
    # With gradients, or parts of stoker's networks would leave torch for numpy.
    with torch.enable_grad(), recorder:
        found = dict(call(*examples.values()))
    outputs = {name: recorder.value_of(tensor) for name, tensor in found.items()}
    return Program(list(inputs), outputs, recorder.nodes, recorder.constants)


_Key = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]


class _Recorder(TorchDispatchMode):
    """Records each operation as nodes while it is active.

    A value is known by the memory that it lies in: torch hands one tensor on as several objects.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._module = module
        self._weights = {
            _key(tensor): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        }
        self._names: dict[_Key, str] = {}
        self._fixed: set[str] = set()  # names of what does not depend on the inputs
        self._stale: set[_Key] = set()  # views of memory that was written since
        self._known: dict[str, str] = {}  # an operation and its arguments -> its result
        self._numbers: dict[tuple[Any, torch.dtype], torch.Tensor] = {}
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets their memory

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The guard against torch's compiler would import it, which takes seconds."""
        return False

    def introduce(self, name: str, tensor: torch.Tensor) -> None:
        """Know a tensor by a name from now on."""
        self._kept.append(tensor)
        self._names[_key(tensor)] = name
        self._stale.discard(_key(tensor))

    def value_of(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> str:
        """The name of a tensor, cast to a dtype if one is given; an unknown one is a constant."""
        key = _key(tensor)
        if key in self._stale:
            raise ConfigError(f"{_name(self._module)} uses a tensor again that it has written into")
        if key not in self._names:
            name = self._weights.get(key) or f"constant_{len(self.constants)}"
            self.constants[name] = np.array(tensor.detach().numpy(), order="C")
            self._fixed.add(name)
            self.introduce(name, tensor)
        name = self._names[key]
        return name if dtype in (None, tensor.dtype) else self.emit("cast", [name], dtype=_dtype(dtype))

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """The name of a tensor or a number, as that dtype."""
        if isinstance(value, torch.Tensor):
            return self.value_of(value, dtype)
        number = self._numbers.setdefault((value, dtype), torch.tensor(value, dtype=dtype))
        return self.value_of(number)

    def emit(self, op: str, inputs: Sequence[str], **settings: Any) -> str:
        """Add an operation, unless it is there already, and return the name of its result."""
        key = repr((op, inputs, settings))
        if key not in self._known:
            self._known[key] = f"value_{len(self.nodes)}"
            self.nodes.append(Node(op, self._known[key], list(inputs), settings))
        return self._known[key]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result: Any = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        given = _tensors((args, kwargs))
        if func._schema.is_mutable and self._is_fixed(given[0]):  # noqa: SLF001 - torch has no other name
            self._forget(given[0], name, is_constant=all(map(self._is_fixed, given)))
        if name == "expand" or not all(map(self._is_fixed, given)):  # weights may be spread over the batch
            self._record(name, args, kwargs, result)
        return result

    def _is_fixed(self, tensor: torch.Tensor) -> bool:
        name = self._names.get(_key(tensor))
        return name is None or name in self._fixed

    def _record(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        is_in_place = name.endswith("_") and not name.startswith("_")
        handle = HANDLERS.get(name.rstrip("_") if is_in_place else name)
        if handle is None or "out" in kwargs:
            raise ConfigError(
                f"{_name(self._module)} uses the operation {name!r} of torch, which cannot be exported to "
                "onnx or numpy: use --format pt2, or write it with others"
            )
        found = handle(self, args, kwargs, result)
        results: list[Any] = [result] if isinstance(result, torch.Tensor) else list(result)
        if is_in_place:
            self._spoil(results[0])
        for value, tensor in zip([found] if isinstance(found, str) else found, results, strict=True):
            self.introduce(value, tensor)

    def _forget(self, written: torch.Tensor, operation: str, *, is_constant: bool) -> None:
        """A constant that is written while it is made is another one afterwards."""
        memory = _memory(written)
        if not is_constant or any(key[0] == memory for key in self._weights):
            raise ConfigError(
                f"{_name(self._module)} writes into a fixed tensor ({operation}): let it make a new one"
            )
        for key in [key for key in self._names if key[0] == memory]:
            del self._names[key]

    def _spoil(self, written: torch.Tensor) -> None:
        """Other views of memory that is written do not hold what they held."""
        memory = _memory(written)
        self._stale.update(key for key in self._names if key[0] == memory and key != _key(written))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = cast("Any", value).values() if isinstance(value, dict) else value
    return (
        [each for part in parts for each in _tensors(part)] if isinstance(value, dict | list | tuple) else []
    )


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _key(tensor: torch.Tensor) -> _Key:
    return _memory(tensor), int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _dtype(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
