"""What a contract suite is made of: named checks, and the error that says which promise was broken.

A suite is a list of checks, and each is a plain function: call it, hand it to any test framework, or run all
of them with ``run_checks``. The order does not matter, and none needs another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

__all__ = ["Check", "ContractViolation", "brief", "difference", "named_checks", "run_checks"]


class ContractViolation(AssertionError):
    """A promise was broken.

    Args:
        promise: what was promised.
        seen: what was seen instead.
        expected: what would have kept it.

    Attributes:
        check: the name of the check that found it; "" as long as none did.
        promise: as given.
        seen: as given.
        expected: as given.
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
        name: what it is called, such as ``resume_goes_on_bit_equal``.
        run: holds the promise against what the suite was given.
    """

    name: str
    run: Callable[[], None]


def named_checks(functions: Sequence[Callable[..., None]], *args: Any) -> list[Check]:
    """A check of each function: called with the arguments, named as it is, promising its docstring."""
    return [Check(function.__name__, _named(function, args)) for function in functions]


def run_checks(checks: Iterable[Check]) -> None:
    """Run them in order, up to the first that fails.

    Raises:
        ContractViolation: A promise is broken.
    """
    for check in checks:
        check.run()


def _named(function: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    promise = (function.__doc__ or "").strip().splitlines()[0]

    def run() -> None:
        try:
            function(*args)
        except ContractViolation as violation:
            violation.check = function.__name__
            raise
        except Exception as error:
            violation = ContractViolation(promise, f"{type(error).__name__}: {error}", "no error")
            violation.check = function.__name__
            raise violation from error

    run.__name__ = function.__name__
    return run


def brief(value: Any) -> str:
    """A value in a message: its type, and not pages of it."""
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 100 else text[:97] + '...'} ({type(value).__name__})"


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """Where two values differ, and how, to the bit; None where they do not.

    Values are numbers, texts, None, arrays, tensors, and containers of these. NaN equals NaN.
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
