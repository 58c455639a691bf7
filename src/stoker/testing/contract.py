"""The parts of every contract suite: named checks, and the error that names a broken promise.

Each check is a plain function and stands by itself: call it, or hand it to any test framework.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np

__all__ = [
    "Check",
    "Contract",
    "ContractViolation",
    "brief",
    "difference",
    "expect",
    "expect_error",
    "expect_numbers",
    "expect_same",
    "run_checks",
    "through_file",
]

_Arguments = ParamSpec("_Arguments")
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


class Contract(Generic[_Arguments]):
    """The promises of one kind of part: a call checks all of them, up to the first that is broken.

    Args:
        suite: makes what the checks share. Its arguments are those of a call: the part to check.
    """

    def __init__(self, suite: Callable[_Arguments, Any]) -> None:
        self._suite = suite
        self._promises: list[Callable[..., None]] = []

    def __call__(self, *args: _Arguments.args, **settings: _Arguments.kwargs) -> None:
        """Run all checks.

        Raises:
            ContractViolation: It names the broken promise, what was seen, and what was expected.
        """
        run_checks(self.checks(*args, **settings))

    def checks(self, *args: _Arguments.args, **settings: _Arguments.kwargs) -> list[Check]:
        """The checks of a call as a list, for a test framework."""
        suite = self._suite(*args, **settings)
        return [Check(promise.__name__, _check(promise, suite)) for promise in self._promises]

    def promise(self, function: _Function) -> _Function:
        """Add a check: the decorated function, whose docstring says what is promised."""
        self._promises.append(function)
        return function


def run_checks(checks: Iterable[Check]) -> None:
    """Run the checks in order, up to the first that raises ``ContractViolation``."""
    for check in checks:
        check.run()


def _check(function: Callable[..., None], suite: Any) -> Callable[[], None]:
    def run() -> None:
        try:
            function(suite)
        except ContractViolation as violation:
            violation.check = function.__name__
            raise
        except Exception as error:
            promise = (function.__doc__ or "").strip().splitlines()[0]
            violation = ContractViolation(promise, f"{type(error).__name__}: {error}", "no error")
            violation.check = function.__name__
            raise violation from error

    return run


def expect(is_kept: bool, promise: str, seen: str, expected: str) -> None:
    """Raise ``ContractViolation`` unless the promise is kept."""
    if not is_kept:
        raise ContractViolation(promise, seen, expected)


def expect_numbers(promise: str, values: Any, when: str = "") -> None:
    """Raise ``ContractViolation`` unless the values are finite numbers by name."""
    expect(isinstance(values, Mapping), promise, f"{brief(values)}{when}", "a mapping")
    for key, value in cast("Mapping[Any, Any]", values).items():
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        is_kept = isinstance(key, str) and is_number and math.isfinite(cast("float", value))
        expect(is_kept, promise, f"{key!r}: {brief(value)}{when}", "a str and a finite number")


def expect_same(promise: str, one: Any, other: Any, where: str, expected: str = "the same") -> None:
    """Raise ``ContractViolation`` with the first place where two values differ.

    Args:
        promise: the promise that a difference breaks.
        one: the value as it should be.
        other: the value as it is.
        where: what the values are, for example ``"state"``.
        expected: what would have kept the promise.
    """
    problem = difference(one, other, where)
    expect(problem is None, promise, problem or "", expected)


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
