"""The parts of every contract suite: named checks, and the error that names a broken promise.

Each check is a plain function whose docstring states the promise: call it, or hand it to any test framework.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import anyio
import numpy as np

from stoker.nested import difference
from stoker.plain import shown

_Arguments = ParamSpec("_Arguments")
_Function = TypeVar("_Function", bound=Callable[..., None])


class ContractViolation(AssertionError):
    """A part does not keep a promise.

    Attributes:
        check: the name of the check that found it; "" outside a check.
        promise: the promise, which is the first line of the check's docstring.
        seen: what the part did.
        expected: what would have kept the promise.
    """

    def __init__(self, promise: str, seen: str, expected: str, check: str = "") -> None:
        self.check = check
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
        return [Check(promise.__name__, partial(_run, promise, suite)) for promise in self._promises]

    def promise(self, function: _Function) -> _Function:
        """Add a check: the decorated function, whose docstring says what is promised."""
        self._promises.append(function)
        return function


def with_opened(
    opened: Callable[[Any], contextlib.AbstractAsyncContextManager[Any]],
    check: Callable[..., Awaitable[None]],
) -> Callable[[Any], None]:
    """The check as a plain function of the suite: each of its parameters gets what ``opened`` opens anew."""

    async def play(suite: Any) -> None:
        async with contextlib.AsyncExitStack() as stack:
            parts = [opened(suite) for _ in inspect.signature(check).parameters]
            await check(*[await stack.enter_async_context(part) for part in parts])

    @wraps(check)
    def run(suite: Any) -> None:
        anyio.run(play, suite)

    return run


def run_checks(checks: Iterable[Check]) -> None:
    """Run the checks in order, up to the first that raises ``ContractViolation``."""
    for check in checks:
        check.run()


def _run(check: Callable[..., None], suite: Any) -> None:
    promise = (check.__doc__ or "").partition("\n")[0]
    try:
        check(suite)
    except ContractViolation as violation:
        violation.check, violation.promise = check.__name__, promise
        raise
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        raise ContractViolation(promise, seen, "no error", check.__name__) from error


def expect(is_kept: bool, seen: str, expected: str) -> None:
    """Raise ``ContractViolation`` unless the promise of the running check is kept."""
    if not is_kept:
        raise ContractViolation("", seen, expected)


def expect_numbers(values: Any, when: str = "") -> None:
    """Raise ``ContractViolation`` unless the values are finite numbers by name."""
    expect(isinstance(values, Mapping), f"{shown(values)}{when}", "a mapping")
    for key, value in cast("Mapping[Any, Any]", values).items():
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        is_kept = isinstance(key, str) and is_number and math.isfinite(cast("float", value))
        expect(is_kept, f"{key!r}: {shown(value)}{when}", "a str and a finite number")


def expect_same(one: Any, other: Any, where: str, expected: str = "the same") -> None:
    """Raise ``ContractViolation`` with the first place where two values differ.

    Args:
        one: the value as it should be.
        other: the value as it is.
        where: what the values are, for example ``"state"``.
        expected: what would have kept the promise.
    """
    problem = difference(one, other, where)
    expect(problem is None, problem or "", expected)


def expect_error(kind: type[Exception], what: str, call: Callable[[], Any]) -> None:
    """Raise ``ContractViolation`` unless the call, in words ``what``, raises an error of this kind."""
    try:
        call()
    except kind:
        return
    except Exception as error:
        seen = f"{what} raised {type(error).__name__}: {error}"
        raise ContractViolation("", seen, kind.__name__) from error
    raise ContractViolation("", f"{what} raised no error", kind.__name__)


def through_file(state: Any) -> Any:
    """The state after ``torch.save`` and ``torch.load(weights_only=True)``: an independent copy."""
    import torch  # late: fakes and suites of environments do without it

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
