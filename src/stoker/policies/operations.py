"""What torch's operations are in the few of a program; see ``stoker.policies.tracing``.

A handler gets an operation's arguments and its result, and returns the name of the value, or names of
several. Shapes are those of the result: what torch calls view, squeeze or flatten is one "reshape" here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch

from stoker.errors import ConfigError


class Recorder(Protocol):
    """Where handlers put the operations of a program."""

    def value_of(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> str:
        """The name of a tensor, cast to a dtype if one is given; an unknown one is a constant."""
        ...

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """The name of a tensor or a number, as that dtype."""
        ...

    def emit(self, op: str, inputs: Sequence[str], **settings: Any) -> str:
        """Add an operation, unless it is there already, and return the name of its result."""
        ...


Handler: TypeAlias = "Callable[[Recorder, tuple[Any, ...], dict[str, Any], Any], str | list[str]]"

_UNARY = (
    "relu",
    "tanh",
    "sigmoid",
    "exp",
    "log",
    "sqrt",
    "abs",
    "neg",
    "cos",
    "sin",
    "floor",
    "round",
    "sign",
)
_ARITHMETIC = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow", "maximum": "maximum",
    "minimum": "minimum",
}  # fmt: skip
_COMPARISONS = {"eq": "equal", "lt": "less", "gt": "greater", "ne": "equal", "le": "greater", "ge": "less"}
_NEGATED = ("ne", "le", "ge")
_SAME = ("clone", "detach", "alias", "lift_fresh", "contiguous", "dropout")
_RESHAPED = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten")
_REDUCED = {"sum": "sum", "mean": "mean", "amax": "max", "amin": "min"}


def _given(args: tuple[Any, ...], first: int, *defaults: Any) -> list[Any]:
    """The arguments from the one numbered ``first`` on; torch leaves trailing ones out that are defaults."""
    given = list(args[first : first + len(defaults)])
    return [*given, *defaults[len(given) :]]


def _unary(op: str) -> Handler:
    return lambda to, args, kwargs, result: to.emit(op, [to.value_of(args[0], result.dtype)])


def _arithmetic(op: str) -> Handler:
    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        left, right = (to.operand(each, result.dtype) for each in args[:2])
        if (factor := kwargs.get("alpha", 1)) != 1:
            right = to.emit("mul", [right, to.operand(factor, result.dtype)])
        if (rounding := kwargs.get("rounding_mode")) is not None:
            raise ConfigError(f"div with rounding_mode={rounding!r} cannot be exported")
        return to.emit(op, [left, right])

    return handle


def _comparison(op: str, *, is_negated: bool) -> Handler:
    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        dtype = torch.result_type(*args[:2])
        found = to.emit(op, [to.operand(each, dtype) for each in args[:2]])
        return to.emit("not", [found]) if is_negated else found

    return handle


def _reduced(op: str) -> Handler:
    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        axes, keeps = _given(args, 1, None, 0)
        n_axes = args[0].dim()
        axes = [axes] if isinstance(axes, int) else (axes or list(range(n_axes)))
        value = to.value_of(args[0], result.dtype)
        return to.emit(op, [value], axes=sorted(axis % n_axes for axis in axes), keeps=bool(keeps))

    return handle


def _all(op: str) -> Handler:
    """Whether all, or any, of some values are true: ONNX reduces no bools."""

    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        axis, keeps = _given(args, 1, None, 0)
        axes = list(range(args[0].dim())) if axis is None else [axis % args[0].dim()]
        truths = to.emit("cast", [to.value_of(args[0], torch.bool)], dtype="float32")
        return to.emit("cast", [to.emit(op, [truths], axes=axes, keeps=bool(keeps))], dtype="bool")

    return handle


def _same(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    return to.value_of(args[0], result.dtype)


def _reshape(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    value = to.value_of(args[0])
    return value if result.shape == args[0].shape else to.emit("reshape", [value], shape=list(result.shape))


def _expand(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    return to.emit("expand", [to.value_of(args[0])], shape=list(result.shape))


def _filled(value: Any) -> Handler:
    """A tensor like another one, full of a number."""

    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        number = to.operand(args[1] if value is None else value, result.dtype)
        return to.emit("expand", [number], shape=list(result.shape))

    return handle


def _transposed(to: Recorder, value: str, axes: list[int]) -> str:
    return to.emit("transpose", [value], axes=axes)


def _permute(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    return _transposed(to, to.value_of(args[0]), [axis % args[0].dim() for axis in args[1]])


def _transpose(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    axes = list(range(args[0].dim()))
    one, other = args[1:] or (0, len(axes) - 1)  # ``t`` names none
    axes[one], axes[other] = axes[other], axes[one]
    return _transposed(to, to.value_of(args[0]), axes)


def _sliced(to: Recorder, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    return to.emit("slice", [value], axis=axis, start=start, stop=stop, step=step)


def _slice(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    tensor, (axis, start, stop, step) = args[0], _given(args, 1, 0, None, None, 1)
    value = to.value_of(tensor)
    if result.shape == tensor.shape:
        return value
    start, stop, step = slice(start, stop, step).indices(tensor.shape[axis])
    return _sliced(to, value, axis % tensor.dim(), start, stop, step)


def _select(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    tensor, axis, index = args
    part, at = to.value_of(tensor), index % tensor.shape[axis]
    if tensor.shape[axis] > 1:
        part = _sliced(to, part, axis % tensor.dim(), at, at + 1)
    return to.emit("reshape", [part], shape=list(result.shape))


def _split(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[str]:
    tensor, [axis] = args[0], _given(args, 2, 0)
    axis, start = axis % tensor.dim(), 0
    found: list[str] = []
    for part in result:
        stop = start + part.shape[axis]
        found.append(_sliced(to, to.value_of(tensor), axis, start, stop))
        start = stop
    return found


def _unbind(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[str]:
    [axis] = _given(args, 1, 0)
    return [_select(to, (args[0], axis, index), {}, part) for index, part in enumerate(result)]


def _concat(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    axis = _given(args, 1, 0)[0] % result.dim()
    return to.emit("concat", [to.value_of(each, result.dtype) for each in args[0]], axis=axis)


def _stack(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    axis = _given(args, 1, 0)[0] % result.dim()
    shape = [*result.shape[:axis], 1, *result.shape[axis + 1 :]]
    parts = [to.emit("reshape", [to.value_of(each)], shape=shape) for each in args[0]]
    return to.emit("concat", parts, axis=axis)


def _clip(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    value = to.value_of(args[0], result.dtype)
    least, most = _given(args, 1, None, None)
    if least is not None:
        value = to.emit("maximum", [value, to.operand(least, result.dtype)])
    return value if most is None else to.emit("minimum", [value, to.operand(most, result.dtype)])


def _matmul(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    return to.emit("matmul", [to.value_of(each) for each in args[:2]])


def _addmm(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    if kwargs:
        raise ConfigError(f"addmm with {kwargs} cannot be exported")
    bias, left, right = args
    return to.emit("linear", [to.value_of(left), to.value_of(right), to.value_of(bias)])


def _baddbmm(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    if kwargs:
        raise ConfigError(f"baddbmm with {kwargs} cannot be exported")
    return to.emit("add", [_matmul(to, args[1:], {}, result), to.value_of(args[0])])


def _convolution(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    tensor, weight, bias, strides, padding, dilation, is_transposed, _, groups = args
    if tensor.dim() != 4 or is_transposed or groups != 1 or set(dilation) != {1}:
        raise ConfigError("only plain convolutions of images can be exported, without groups or dilation")
    value = to.emit(
        "conv", [to.value_of(tensor), to.value_of(weight)], strides=list(strides), padding=list(padding)
    )
    if bias is None:
        return value
    column = to.emit("reshape", [to.value_of(bias)], shape=[len(bias), 1, 1])
    return to.emit("add", [value, column])


def _softmax(*, is_log: bool) -> Handler:
    def handle(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
        axes = {"axes": [args[1] % result.dim()], "keeps": True}
        value = to.value_of(args[0], result.dtype)
        shifted = to.emit("sub", [value, to.emit("max", [value], **axes)])
        powers = to.emit("exp", [shifted])
        total = to.emit("sum", [powers], **axes)
        return (
            to.emit("sub", [shifted, to.emit("log", [total])]) if is_log else to.emit("div", [powers, total])
        )

    return handle


def _layer_norm(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[str]:
    tensor, shape, weight, bias, eps = args
    axes = {"axes": list(range(tensor.dim() - len(shape), tensor.dim())), "keeps": True}
    value = to.value_of(tensor)
    mean = to.emit("mean", [value], **axes)
    centered = to.emit("sub", [value, mean])
    variance = to.emit("mean", [to.emit("mul", [centered, centered])], **axes)
    spread = to.emit("sqrt", [to.emit("add", [variance, to.operand(eps, tensor.dtype)])])
    found = to.emit("div", [centered, spread])
    if weight is not None:
        found = to.emit("mul", [found, to.value_of(weight)])
    if bias is not None:
        found = to.emit("add", [found, to.value_of(bias)])
    return [found, mean, to.emit("div", [to.operand(1.0, tensor.dtype), spread])]


def _where(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    choices = [to.operand(each, result.dtype) for each in args[1:]]
    return to.emit("where", [to.value_of(args[0], torch.bool), *choices])


def _masked_fill(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    return _where(to, (args[1], args[2], args[0]), kwargs, result)


def _argmax(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    axis, keeps = _given(args, 1, None, 0)
    if axis is None:
        raise ConfigError("argmax over all numbers cannot be exported: name an axis")
    return to.emit("argmax", [to.value_of(args[0])], axis=axis % args[0].dim(), keeps=bool(keeps))


def _max(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str | list[str]:
    if isinstance(result, torch.Tensor):
        return _reduced("max")(to, args[:1], {}, result)
    axis, keeps = _given(args, 1, 0, 0)
    axis %= args[0].dim()
    value = to.value_of(args[0])
    return [
        to.emit("max", [value], axes=[axis], keeps=bool(keeps)),
        to.emit("argmax", [value], axis=axis, keeps=bool(keeps)),
    ]


def _gather(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    tensor, axis, index = args[:3]
    return to.emit("gather", [to.value_of(tensor), to.value_of(index, torch.int64)], axis=axis % tensor.dim())


def _take(to: Recorder, tensor: Any, axis: int, index: Any) -> str:
    return to.emit("take", [to.value_of(tensor), to.value_of(index, torch.int64)], axis=axis % tensor.dim())


def _index(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    given = [(axis, index) for axis, index in enumerate(args[1]) if index is not None]
    if len(given) != 1 or given[0][1].dtype == torch.bool:
        raise ConfigError(
            "indexing by a mask, or by several tensors, cannot be exported: use where or gather"
        )
    return _take(to, args[0], *given[0])


def _silu(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    value = to.value_of(args[0])
    return to.emit("mul", [value, to.emit("sigmoid", [value])])


def _leaky_relu(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    [slope] = _given(args, 1, 0.01)
    value = to.value_of(args[0])
    scaled = to.emit("mul", [value, to.operand(slope, result.dtype)])
    return to.emit("where", [to.emit("greater", [value, to.operand(0.0, result.dtype)]), value, scaled])


def _elu(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    if kwargs or set(args[1:]) - {1}:
        raise ConfigError("elu with another alpha or scale than 1 cannot be exported")
    value, zero = to.value_of(args[0]), to.operand(0.0, result.dtype)
    power = to.emit("exp", [to.emit("minimum", [value, zero])])
    below = to.emit("sub", [power, to.operand(1.0, result.dtype)])
    return to.emit("where", [to.emit("greater", [value, zero]), value, below])


def _softplus(to: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> str:
    if kwargs or set(args[1:]) - {1, 20}:
        raise ConfigError("softplus with another beta or threshold cannot be exported")
    value, one = to.value_of(args[0]), to.operand(1.0, result.dtype)
    power = to.emit("exp", [to.emit("neg", [to.emit("abs", [value])])])
    positive = to.emit("relu", [value])
    return to.emit("add", [positive, to.emit("log", [to.emit("add", [one, power])])])


HANDLERS: dict[str, Handler] = {
    **{name: _unary(name) for name in _UNARY},
    **{name: _arithmetic(op) for name, op in _ARITHMETIC.items()},
    **{name: _comparison(op, is_negated=name in _NEGATED) for name, op in _COMPARISONS.items()},
    **{name: _reduced(op) for name, op in _REDUCED.items()},
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_RESHAPED, _reshape),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **dict.fromkeys(("mm", "bmm"), _matmul),
    **dict.fromkeys(("clamp", "hardtanh"), _clip),
    "_log_softmax": _softmax(is_log=True),
    "_softmax": _softmax(is_log=False),
    "_to_copy": _same,
    "addmm": _addmm,
    "all": _all("min"),
    "any": _all("max"),
    "argmax": _argmax,
    "baddbmm": _baddbmm,
    "bitwise_and": lambda to, args, kwargs, result: to.emit("and", [to.operand(x, torch.bool) for x in args]),
    "bitwise_or": lambda to, args, kwargs, result: to.emit("or", [to.operand(x, torch.bool) for x in args]),
    "bitwise_not": lambda to, args, kwargs, result: to.emit("not", [to.operand(args[0], torch.bool)]),
    "cat": _concat,
    "clamp_min": _clip,
    "clamp_max": lambda to, args, kwargs, result: _clip(to, (args[0], None, args[1]), kwargs, result),
    "convolution": _convolution,
    "elu": _elu,
    "embedding": lambda to, args, kwargs, result: _take(to, args[0], 0, args[1]),
    "expand": _expand,
    "full_like": _filled(None),
    "gather": _gather,
    "index": _index,
    "index_select": lambda to, args, kwargs, result: _take(to, *args),
    "leaky_relu": _leaky_relu,
    "logical_and": lambda to, args, kwargs, result: to.emit("and", [to.operand(x, torch.bool) for x in args]),
    "logical_not": lambda to, args, kwargs, result: to.emit("not", [to.operand(args[0], torch.bool)]),
    "logical_or": lambda to, args, kwargs, result: to.emit("or", [to.operand(x, torch.bool) for x in args]),
    "masked_fill": _masked_fill,
    "max": _max,
    "native_layer_norm": _layer_norm,
    "ones_like": _filled(1),
    "permute": _permute,
    "reciprocal": lambda to, args, kwargs, result: to.emit(
        "div", [to.operand(1.0, result.dtype), to.value_of(args[0], result.dtype)]
    ),
    "rsub": lambda to, args, kwargs, result: _arithmetic("sub")(to, (args[1], args[0]), kwargs, result),
    "select": _select,
    "silu": _silu,
    "slice": _slice,
    "softplus": _softplus,
    "square": lambda to, args, kwargs, result: to.emit("mul", [to.value_of(args[0], result.dtype)] * 2),
    "stack": _stack,
    "t": _transpose,
    "transpose": _transpose,
    "unbind": _unbind,
    "where": _where,
    "zeros_like": _filled(0),
}
"""torch's operations by name; those in place are the same without the last underscore."""
