"""Plays a policy that stoker exported, with numpy alone, from this file and policy.npz.

    policy = NumpyPolicy("policy.npz")
    action = policy.act(observation)  # of one observation; N actions for N observations

policy.npz holds the weights, a program, and what observations and actions are. The program is the operations
that lead from observations to actions, each ``[operation, result, [arguments], {settings}]``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

_Compute = Callable[..., Mapping[str, Any]]


def _conv(image: Any, weight: Any, *, strides: Sequence[int], padding: Sequence[int]) -> Any:
    (down, right), (rows, columns) = strides, padding
    image = np.pad(image, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    views: Any = np.lib.stride_tricks.sliding_window_view(image, weight.shape[2:], (2, 3))  # pyright: ignore
    return np.moveaxis(np.tensordot(views[:, :, ::down, ::right], weight, ((1, 4, 5), (1, 2, 3))), 3, 1)


def _linear(x: Any, weight: Any, bias: Any) -> Any:
    found = np.dot(x, weight)
    found += bias
    return found


def _slice(x: Any, *, axis: int, start: int, stop: int, step: int) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def _reduced(name: str) -> Callable[..., Any]:
    return lambda x, axes, keeps: getattr(np, name)(x, axis=tuple(axes), keepdims=keeps)  # pyright: ignore


def _concat(*parts: Any, axis: int) -> Any:
    return np.concatenate(parts, axis=axis)


def _sigmoid(x: Any) -> Any:
    return (np.tanh(x / 2) + 1) / 2


_ZERO = np.float32(0)


def _relu(x: Any) -> Any:
    return np.maximum(x, _ZERO)


def _argmax(x: Any, axis: int, keeps: bool) -> Any:
    return x.argmax(axis=axis, keepdims=keeps)


def _cast(x: Any, dtype: str) -> Any:
    return x.astype(dtype)


def _reshape(x: Any, shape: Sequence[int]) -> Any:
    return x.reshape(shape)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "relu": _relu, "sigmoid": _sigmoid, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "abs": np.abs, "neg": np.negative, "cos": np.cos, "sin": np.sin, "floor": np.floor, "round": np.round,
    "sign": np.sign, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "pow": np.power, "maximum": np.maximum, "minimum": np.minimum, "equal": np.equal, "less": np.less,
    "greater": np.greater, "not": np.logical_not, "and": np.logical_and, "or": np.logical_or,
    "where": np.where, "matmul": np.matmul, "linear": _linear, "conv": _conv, "sum": _reduced("sum"),
    "mean": _reduced("mean"), "max": _reduced("max"), "min": _reduced("min"), "argmax": _argmax,
    "cast": _cast, "reshape": _reshape, "expand": np.broadcast_to, "transpose": np.transpose,
    "concat": _concat, "slice": _slice, "gather": np.take_along_axis, "take": np.take,
}  # fmt: skip
"""Each operation that a program may use."""


def _size(size: Any, n: int) -> int:
    """A size of a shape for N observations, which is a number, ``"batch"`` or ``"batch*3"``."""
    return n * int(size.partition("*")[2] or 1) if isinstance(size, str) else size


class Program:
    """Runs a program: arrays ``[N, ...]`` in, and the outputs by name, arrays ``[N, ...]``.

    Args:
        inputs: the names of the arguments.
        outputs: the value of each output.
        nodes: the operations, in their order.
        constants: the values that are known, by name.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Mapping[str, str],
        nodes: Sequence[Sequence[Any]],
        constants: Mapping[str, Any],
    ) -> None:
        known = dict(constants)
        steps: list[tuple[Callable[..., Any], str, list[str], list[Any] | None]] = []
        for op, result, arguments, given in nodes:
            function, settings, shape = OPERATIONS[op], dict(given), given.get("shape", [])
            n_open = sum(isinstance(size, str) for size in shape)
            if op == "reshape" and n_open == 1:
                settings, n_open = {"shape": [-1 if isinstance(size, str) else size for size in shape]}, 0
            of_batch = n_open > 0
            if settings and not of_batch:
                function = partial(function, **settings)
            if all(name in known for name in arguments) and not of_batch:
                known[result] = function(*[known[name] for name in arguments])  # once and for all
            else:
                steps.append((function, result, arguments, shape if of_batch else None))
        names = [*inputs, *known, *(result for _, result, _, _ in steps)]
        places = {name: place for place, name in enumerate(names)}
        self._memory: list[Any] = [*known.values(), *[None] * len(steps)]
        self._steps = [
            (function, places[result], [places[name] for name in arguments], shape)
            for function, result, arguments, shape in steps
        ]
        self._outputs = {name: places[value] for name, value in outputs.items()}

    def __call__(self, *arrays: Any) -> dict[str, Any]:
        """The outputs by name."""
        values: list[Any] = [*arrays, *self._memory]
        for function, place, arguments, shape in self._steps:
            if len(arguments) == 1 and shape is None:
                values[place] = function(values[arguments[0]])
            elif shape is None:
                values[place] = function(*[values[each] for each in arguments])
            else:
                sizes = [_size(size, len(arrays[0])) for size in shape]
                values[place] = function(values[arguments[0]], shape=sizes)
        return {name: values[place] for name, place in self._outputs.items()}


class PolicyBase:
    """From observations of an environment to its actions, however they are computed.

    Args:
        compute: maps an array ``[N, *shape]`` for each part of an observation to the outputs by name.
        description: the content of policy.json.
    """

    error: type[Exception] = ValueError

    def __init__(self, compute: _Compute, description: Mapping[str, Any]) -> None:
        self.compute = compute
        self.description = description
        self._parts = [
            (part["name"], part["path"], tuple(part["shape"]), np.dtype(part["dtype"]))
            for part in description["observation"]
        ]
        self._is_plain = [path for _, path, _, _ in self._parts] == [[]]
        self._is_discrete: bool = description["action"]["kind"] == "discrete"

    def act(self, observation: Any) -> Any:
        """The action for one observation, as the environment takes it; N of them for N observations."""
        if self._is_plain:
            _, _, shape, dtype = self._parts[0]
            array = np.asarray(observation)
            if array.shape == shape and array.dtype == dtype:  # the usual case, without further ado
                action = self.compute(array[None])["action"][0]
                return int(action) if self._is_discrete else action
        arrays, is_single = self.split(observation)
        actions = self.compute(*arrays)["action"]
        if not is_single:
            return actions
        return int(actions[0]) if self._is_discrete else actions[0]

    def split(self, observation: Any) -> tuple[list[Any], bool]:
        """The parts of one observation or of N, each ``[N, *shape]``, and whether it is one."""
        arrays: list[Any] = []
        counts: list[int | None] = []
        for name, path, shape, dtype in self._parts:
            value = observation
            for step in path:
                try:
                    value = value[step]
                except (LookupError, TypeError):
                    wanted = _wanted(shape, dtype)
                    raise self.error(f"{name} is missing from the observation: give {wanted}") from None
            array = np.asarray(value)
            n_more = array.ndim - len(shape)
            if n_more not in (0, 1) or array.shape[n_more:] != shape or array.dtype.kind not in "biuf":
                given = f"{array.dtype} {list(array.shape)}"
                raise self.error(f"{name} is {given}: give {_wanted(shape, dtype)}")
            arrays.append((array if n_more else array[None]).astype(dtype, copy=False))
            counts.append(len(array) if n_more else None)
        if len(set(counts)) != 1:
            raise self.error(f"the parts are of {counts} observations: give as many of each")
        return arrays, counts[0] is None


class NumpyPolicy(PolicyBase):
    """The policy in a policy.npz, given by its path or as an open file."""

    def __init__(self, file: Any) -> None:
        super().__init__(*read_policy(file))


def read_policy(file: Any) -> tuple[Program, dict[str, Any]]:
    """The program in a policy.npz, with its weights, and the description of the policy."""
    with np.load(file, allow_pickle=False) as content:
        arrays = dict(content)
    description = json.loads(bytes(arrays.pop("description")))
    return Program(**json.loads(bytes(arrays.pop("program"))), constants=arrays), description


def _wanted(shape: Sequence[int], dtype: Any) -> str:
    one = ", ".join(map(str, shape))
    return f"{dtype} [{one}], or N of them as [N{', ' * bool(one)}{one}]"
