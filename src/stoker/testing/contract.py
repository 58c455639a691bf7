"""The parts of every contract suite: named checks, and the error that names a broken promise.

A suite is a list of checks, and each check is a plain function: call it, hand it to any test framework, or
run all of them with ``run_checks``. The checks are independent of each other and of their order.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

__all__ = [
    "Check",
    "Contract",
    "ContractViolation",
    "brief",
    "difference",
    "expect_error",
    "expect_same",
    "run_checks",
    "through_file",
]

_Function = TypeVar("_Function", bound=Callable[..., None])


class ContractViolation(AssertionError):
    """A part does not keep a promise.

    Attributes:
        check: the name of the check that found it; "" outside a check.
        promise: the promise.
        seen: what the part did.
        expected: what would have kept the promise.
    """

    def __init__(self, promise: str, seen: str, expected: str) -> None:
        self.check = ""
        self.promise = promise
        self.seen = seen
        self.expected = expected
        super().__init__(promise, seen, expected)

    def __str__(self) -> str:
        name = f"{self.check}: " if self.check else ""
        return f"{name}{self.promise}\n  seen:     {self.seen}\n  expected: {self.expected}"


class Check(NamedTuple):
    """One promise of a contract.

    Attributes:
        name: for example ``a_resume_is_bit_exact``.
        run: raises ``ContractViolation`` if the part breaks the promise.
    """

    name: str
    run: Callable[[], None]


class Contract:
    """The promises of one kind of part, each a function whose docstring says what is promised."""

    def __init__(self) -> None:
        self._promises: list[Callable[..., None]] = []

    def promise(self, function: _Function) -> _Function:
        """Add a promise: the decorated function."""
        self._promises.append(function)
        return function

    def checks(self, suite: Any) -> list[Check]:
        """One check for each promise, which calls its function with the suite."""
        return [Check(promise.__name__, _check(promise, suite)) for promise in self._promises]


def run_checks(checks: Iterable[Check]) -> None:
    """Run the checks in order, up to the first that fails.

    Raises:
        ContractViolation: The part breaks a promise.
    """
    for check in checks:
        check.run()


def _check(function: Callable[..., None], suite: Any) -> Callable[[], None]:
    promise = (function.__doc__ or "").strip().splitlines()[0]

    def run() -> None:
        try:
            function(suite)
        except ContractViolation as violation:
            violation.check = function.__name__
            raise
        except Exception as error:
            violation = ContractViolation(promise, f"{type(error).__name__}: {error}", "no error")
            violation.check = function.__name__
            raise violation from error

    run.__name__ = function.__name__
    return run


def expect_same(promise: str, one: Any, other: Any, where: str, expected: str = "the same") -> None:
    """Raise ``ContractViolation`` with the first place where two values differ.

    Args:
        promise: the promise that a difference breaks.
        one: the value as it should be.
        other: the value as it is.
        where: what the values are, for example ``"state"``.
        expected: what would have kept the promise.
    """
    if problem := difference(one, other, where):
        raise ContractViolation(promise, problem, expected)


def expect_error(promise: str, kind: type[Exception], call: Callable[[], Any]) -> None:
    """Raise ``ContractViolation`` unless the call raises an error of this kind."""
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise ContractViolation(promise, f"{type(error).__name__}: {error}", kind.__name__) from error
    raise ContractViolation(promise, "nothing was raised", kind.__name__)


def through_file(state: Any) -> Any:
    """The state after ``torch.save`` and ``torch.load(weights_only=True)``: an independent copy."""
    import torch  # late: fakes and suites of environments do without it

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def brief(value: Any) -> str:
    """A value and its type, short enough for a message."""
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 100 else text[:97] + '...'} ({type(value).__name__})"


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place where two values differ, and how; None if they are equal to the bit.

    Values are numbers, strings, None, arrays, tensors, and containers of these. NaN equals NaN.
    """
    here = where or "the whole"
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        mine, its = cast("Mapping[Any, Any]", one), cast("Mapping[Any, Any]", other)
        if mine.keys() != its.keys():
            return f"{here}: keys {brief(sorted(mine, key=str))} and {brief(sorted(its, key=str))}"
        return _first(difference(mine[key], its[key], f"{where}[{key!r}]") for key in mine)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        parts, its_parts = cast("Sequence[Any]", one), cast("Sequence[Any]", other)
        if len(parts) != len(its_parts):
            return f"{here}: {len(parts)} and {len(its_parts)} entries"
        pairs = enumerate(zip(parts, its_parts, strict=True))
        return _first(difference(mine, its, f"{where}[{at}]") for at, (mine, its) in pairs)
    if _is_array(one) or _is_array(other):
        mine_array, its_array = _array(one), _array(other)
        if mine_array.shape != its_array.shape or mine_array.dtype != its_array.dtype:
            layouts = [f"{array.dtype}{list(array.shape)}" for array in (mine_array, its_array)]
            return f"{here}: {layouts[0]} and {layouts[1]}"
        if np.array_equal(mine_array, its_array, equal_nan=mine_array.dtype.kind in "fc"):
            return None
        return f"{here}: {brief(mine_array)} and {brief(its_array)}"
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return None
    return None if one == other else f"{here}: {brief(one)} and {brief(other)}"


def _first(found: Iterable[str | None]) -> str | None:
    return next((problem for problem in found if problem is not None), None)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):  # a tensor: numpy has no bfloat16, which as float32 loses nothing
        tensor = value.detach().cpu()
        value = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return np.asarray(value)
