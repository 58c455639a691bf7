"""What a recorder promises, as checks to run on your own: it is opened, written, flushed and closed.

The suite calls it as ``Recording`` does: from one thread, with checked records. What a
recorder made of them only its own test can say: hand in ``read`` to have the numbers compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

import numpy as np

from stoker.recorders.protocol import Outcome, Recorder, RunContext
from stoker.recorders.values import Histogram, Image, Value, checked_record
from stoker.testing.contract import Check, ContractViolation, brief, difference, named_checks, run_checks

__all__ = ["check_recorder", "recorder_contract"]

Read = Callable[[], Sequence[tuple[int, Mapping[str, float]]]]
"""What a recorder has recorded: step and numbers of each record, in order."""


class _Suite(NamedTuple):
    """What the checks share."""

    factory: Callable[[], Recorder]
    read: Read | None


def check_recorder(make_recorder: Callable[[], Recorder], *, read: Read | None = None) -> None:
    """Check a recorder for everything that ``Recording`` relies on.

    Args:
        make_recorder: makes one. Each records to its own place, or to where the one before did.
        read: gives the numbers that the recorder made last has recorded; None: they are not looked at.

    Raises:
        ContractViolation: It names the broken promise, what was seen, and what was expected.
    """
    run_checks(recorder_contract(make_recorder, read=read))


def recorder_contract(make_recorder: Callable[[], Recorder], *, read: Read | None = None) -> list[Check]:
    """The same as a list of named checks, for a test framework to go through."""
    return named_checks(_CHECKS, _Suite(make_recorder, read))


# Promises -----------------------------------------------------------------------------------------


def has_a_name(suite: _Suite) -> None:
    """It has a name that messages can call it by."""
    name: Any = getattr(suite.factory(), "name", None)
    if not isinstance(name, str) or not name:
        raise ContractViolation("a recorder has a name", brief(name), "a str with something in it")


def takes_each_kind_of_value(suite: _Suite) -> None:
    """Each kind of value that a record may hold is recorded or left out, and none is an error."""
    recorder = _opened(suite)
    for at, (kind, value) in enumerate(_values().items()):
        try:
            recorder.write(at, checked_record({f"kinds/{kind}": value}))
        except Exception as error:
            raise ContractViolation(
                "write takes each kind of value", f"{kind}: {type(error).__name__}: {error}", "no error"
            ) from error
    recorder.flush()
    recorder.close("finished")


def takes_records_of_many_and_of_none(suite: _Suite) -> None:
    """Names may come and go from record to record, a step may come again, and a record may be empty."""
    recorder = _opened(suite)
    for step, names in ((1, "ab"), (1, "ab"), (2, "c"), (5, ""), (1_000_000_000_000, "abc")):
        recorder.write(step, checked_record({f"some/{name}": float(step) for name in names}))
    recorder.flush()
    recorder.close("finished")


def leaves_what_it_is_given_as_it_was(suite: _Suite) -> None:
    """A record is not changed by writing it."""
    recorder = _opened(suite)
    record = checked_record({"train/loss": 0.5, "train/values": np.arange(6.0).reshape(2, 3)})
    before = {
        key: np.copy(value) if isinstance(value, np.ndarray) else value for key, value in record.items()
    }
    recorder.write(3, record)
    recorder.flush()
    recorder.close("finished")
    if problem := difference(before, record, "record"):
        raise ContractViolation("a record stays as it was", problem, "the same")


def flushes_at_any_time(suite: _Suite) -> None:
    """Flush may come before anything was written, and twice in a row."""
    recorder = _opened(suite)
    recorder.flush()
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.flush()
    recorder.flush()
    recorder.close("finished")


def may_be_opened_again(suite: _Suite) -> None:
    """After something went wrong it is opened again, and goes on; so does one of a resumed run."""
    recorder = _opened(suite)
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.open(_context())
    recorder.write(2, checked_record({"train/loss": 0.4}))
    recorder.flush()
    recorder.close("stopped")
    resumed = suite.factory()
    resumed.open(_context(resumed=True, total_steps=2))
    resumed.write(3, checked_record({"train/loss": 0.3}))
    resumed.flush()
    resumed.close("finished")


def closes_with_each_outcome(suite: _Suite) -> None:
    """Close takes each way in which a run may end, also with nothing written."""
    for outcome in get_args(Outcome):
        _opened(suite).close(outcome)


def needs_no_directory_and_takes_any_params(suite: _Suite) -> None:
    """The context may be without a directory, and its params of each plain kind."""
    recorder = suite.factory()
    recorder.open(_context(params={"a": 1, "b/c": 0.5, "d": "text", "e": True, "f": None}, tags={"g": "h"}))
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.flush()
    recorder.close("failed")


def records_the_numbers_in_order(suite: _Suite) -> None:
    """What was flushed can be read: each number under its name, at its step, in order."""
    if suite.read is None:
        return
    recorder = _opened(suite)
    written = [(step, {"train/loss": 1.0 / step, "train/reward": float(step)}) for step in (1, 2, 7, 30)]
    for step, record in written:
        recorder.write(step, checked_record(record))
    recorder.flush()
    found = [
        (int(step), {key: float(value) for key, value in record.items()}) for step, record in suite.read()
    ]
    recorder.close("finished")
    if [step for step, _ in found] != [step for step, _ in written]:
        raise ContractViolation("steps are recorded in order", brief(found), brief(written))
    for (step, record), (_, expected) in zip(found, written, strict=True):
        # Some sinks keep float32.
        if record.keys() != expected.keys() or not np.allclose(
            [record[key] for key in expected], list(expected.values()), rtol=1e-6
        ):
            raise ContractViolation(
                f"the numbers of step {step} are recorded", brief(record), brief(expected)
            )


_CHECKS = [
    has_a_name,
    takes_each_kind_of_value,
    takes_records_of_many_and_of_none,
    leaves_what_it_is_given_as_it_was,
    flushes_at_any_time,
    may_be_opened_again,
    closes_with_each_outcome,
    needs_no_directory_and_takes_any_params,
    records_the_numbers_in_order,
]


def _opened(suite: _Suite) -> Recorder:
    recorder = suite.factory()
    recorder.open(_context())
    return recorder


def _context(**settings: Any) -> RunContext:
    return RunContext(name="contract", run_id="contract-1", **settings)


def _values() -> dict[str, Value]:
    return {
        "float": 0.5,
        "int": 3,
        "bool": True,
        "nan": float("nan"),
        "infinity": float("inf"),
        "text": "as it is",
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "array": np.arange(3.0),
        "matrix": np.arange(6.0).reshape(2, 3),
        "cube": np.zeros((2, 2, 2)),
        "image": Image(np.zeros((4, 5, 3), np.uint8)),
        "histogram": Histogram([0.0, 1.0, float("nan")]),
    }
