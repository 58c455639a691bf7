"""The suite for recorders lets stoker's pass, and names the promise that a broken one breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stoker.recorders import JsonlRecorder
from stoker.testing import Check, ContractViolation, check_recorder, run_checks

pytestmark = pytest.mark.filterwarnings("error")


class InMemory:
    """A recorder that keeps every promise, to break them one by one."""

    name = "memory"

    def __init__(self) -> None:
        self.kept: list[tuple[int, dict[str, float]]] = []
        self.shown: list[tuple[int, dict[str, float]]] = []
        self.is_open = False

    def open(self, context: Any) -> None:
        self.is_open = True

    def write(self, step: int, record: Any) -> None:
        assert self.is_open
        self.kept.append((step, {k: v for k, v in record.items() if isinstance(v, float | int)}))

    def flush(self) -> None:
        self.shown = list(self.kept)

    def close(self, status: str) -> None:
        self.flush()
        self.is_open = False


def reading(kind: type) -> tuple[Any, Any]:
    """A factory of recorders, and what the last of them shows."""
    made: list[Any] = []

    def make() -> Any:
        made.append(kind())
        return made[-1]

    return make, lambda: made[-1].shown


def test_a_recorder_that_keeps_every_promise() -> None:
    make, read = reading(InMemory)
    check_recorder(make, read=read)
    check_recorder(InMemory)


def test_stokers_own_keeps_every_promise() -> None:
    rows: list[dict[str, Any]] = []

    def make() -> JsonlRecorder:
        rows.clear()
        return JsonlRecorder(rows.append)

    check_recorder(make, read=lambda: [(row["total_steps"], row["metrics"]) for row in rows])


class Nameless(InMemory):
    name = ""


class NumbersAlone(InMemory):
    def write(self, step: int, record: Any) -> None:
        super().write(step, {key: float(value) for key, value in record.items()})


class FixedNames(InMemory):
    names: Any = None

    def write(self, step: int, record: Any) -> None:
        self.names = self.names or set(record)
        assert set(record) == self.names, "the names changed"
        super().write(step, record)


class StepsGoUp(InMemory):
    def write(self, step: int, record: Any) -> None:
        assert not self.kept or step > self.kept[-1][0], "steps go up"
        super().write(step, record)


class Changes(InMemory):
    def write(self, step: int, record: Any) -> None:
        for value in record.values():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                np.divide(value, 2, out=value)
        super().write(step, record)


class FlushesSomething(InMemory):
    def flush(self) -> None:
        assert self.kept, "nothing to flush"
        super().flush()


class OpensOnce(InMemory):
    def open(self, context: Any) -> None:
        assert not self.is_open, "open already"
        super().open(context)


class BeginsAnew(InMemory):
    def open(self, context: Any) -> None:
        assert not context.resumed, "cannot go on"
        super().open(context)


class EndsWell(InMemory):
    def close(self, status: str) -> None:
        assert status == "finished", status
        super().close(status)


class NeedsNumbers(InMemory):
    def open(self, context: Any) -> None:
        assert all(isinstance(value, float | int) for value in context.params.values()), "params of text"
        super().open(context)


class NeverFlushes(InMemory):
    def flush(self) -> None:
        pass


class NewestFirst(InMemory):
    def flush(self) -> None:
        self.shown = self.kept[::-1]


class Rounds(InMemory):
    def flush(self) -> None:
        self.shown = [(step, {k: round(v, 1) for k, v in record.items()}) for step, record in self.kept]


BROKEN: list[tuple[str, Any, str]] = [
    ("has_a_name", Nameless, "a str that is not empty"),
    ("takes_each_kind_of_value", NumbersAlone, "ValueError: could not convert"),
    ("takes_records_of_many_and_of_none", FixedNames, "AssertionError: the names changed"),
    ("takes_records_of_many_and_of_none", StepsGoUp, "AssertionError: steps go up"),
    ("leaves_what_it_is_given_as_it_was", Changes, r"record\['train/values'\]"),
    ("flushes_at_any_time", FlushesSomething, "AssertionError: nothing to flush"),
    ("may_be_opened_again", OpensOnce, "AssertionError: open already"),
    ("may_be_opened_again", BeginsAnew, "AssertionError: cannot go on"),
    ("closes_with_each_outcome", EndsWell, "AssertionError: failed"),
    ("needs_no_directory_and_takes_any_params", NeedsNumbers, "AssertionError: params of text"),
    ("records_the_numbers_in_order", NeverFlushes, r"steps \[\]"),
    ("records_the_numbers_in_order", NewestFirst, r"steps \[30, 7, 2, 1\]"),
    ("records_the_numbers_in_order", Rounds, "step 7: "),
]


@pytest.mark.parametrize(
    ("name", "kind", "message"), BROKEN, ids=[f"{name}-{kind.__name__}" for name, kind, _ in BROKEN]
)
def test_a_broken_promise_is_named(name: str, kind: Any, message: str) -> None:
    make, read = reading(kind)
    (check,) = (check for check in check_recorder.checks(make, read=read) if check.name == name)
    with pytest.raises(ContractViolation, match=message) as caught:
        check.run()
    assert caught.value.check == name


def test_check_recorder_runs_the_checks() -> None:
    make, read = reading(Rounds)
    with pytest.raises(ContractViolation, match="records_the_numbers_in_order: "):
        check_recorder(make, read=read)


def test_each_check_is_shown_to_fail() -> None:
    assert {name for name, *_ in BROKEN} == {check.name for check in check_recorder.checks(InMemory)}


def test_checks_are_run_in_order_up_to_the_first_that_fails() -> None:
    ran: list[int] = []

    def fail() -> None:
        raise ContractViolation("two and two are four", "five", "four")

    checks = [Check("one", lambda: ran.append(1)), Check("two", fail), Check("three", lambda: ran.append(3))]
    with pytest.raises(AssertionError, match="two and two are four\n  seen:     five\n  expected: four"):
        run_checks(checks)
    assert ran == [1]
