"""The promises of a recorder, as checks to run on your own: open, write, flush, close.

The suite calls a recorder as ``Recording`` does: from one thread, with checked records. Give it ``read`` to
compare the recorded numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

import numpy as np

from stoker.plain import shown
from stoker.recorders.protocol import Outcome, Recorder, RunContext
from stoker.recorders.values import Histogram, Image, Value, checked_record
from stoker.testing.contract import Contract, expect, expect_same

__all__ = ["check_recorder"]

Read = Callable[[], Sequence[tuple[int, Mapping[str, float]]]]
"""Gives the step and the numbers of each record, in order."""


class RecorderSuite(NamedTuple):
    """What the checks of a recorder share.

    Attributes:
        make_recorder: makes a recorder, with its own destination or with that of the one before.
        read: gives the numbers of the recorder made last; None: they are not compared.
    """

    make_recorder: Callable[[], Recorder]
    read: Read | None = None

    def opened(self) -> Recorder:
        """A recorder that was opened."""
        recorder = self.make_recorder()
        recorder.open(_context())
        return recorder


check_recorder = Contract(RecorderSuite)
"""Checks every promise of a recorder that ``Recording`` relies on; ``RecorderSuite`` lists the arguments."""


# Promises -----------------------------------------------------------------------------------------


@check_recorder.promise
def has_a_name(suite: RecorderSuite) -> None:
    """The recorder has a name for messages."""
    name: Any = getattr(suite.make_recorder(), "name", None)
    expect(isinstance(name, str) and name != "", shown(name), "a str that is not empty")


@check_recorder.promise
def takes_each_kind_of_value(suite: RecorderSuite) -> None:
    """Each kind of value that a record may hold is recorded or left out; none is an error."""
    recorder = suite.opened()
    for at, (kind, value) in enumerate(_values().items()):
        recorder.write(at, checked_record({f"kinds/{kind}": value}))
    _finish(recorder)


@check_recorder.promise
def takes_records_of_many_and_of_none(suite: RecorderSuite) -> None:
    """Names may differ between records, a step may repeat, and a record may be empty."""
    recorder = suite.opened()
    for step, names in ((1, "ab"), (1, "ab"), (2, "c"), (5, ""), (1_000_000_000_000, "abc")):
        recorder.write(step, checked_record({f"some/{name}": float(step) for name in names}))
    _finish(recorder)


@check_recorder.promise
def leaves_what_it_is_given_as_it_was(suite: RecorderSuite) -> None:
    """Writing a record does not change it."""
    recorder = suite.opened()
    record = checked_record({"train/loss": 0.5, "train/values": np.arange(6.0).reshape(2, 3)})
    before = copy.deepcopy(record)
    recorder.write(3, record)
    _finish(recorder)
    expect_same(before, record, "record")


@check_recorder.promise
def flushes_at_any_time(suite: RecorderSuite) -> None:
    """Flush may come before the first record, and twice in a row."""
    recorder = suite.opened()
    recorder.flush()
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.flush()
    _finish(recorder)


@check_recorder.promise
def may_be_opened_again(suite: RecorderSuite) -> None:
    """A recorder can be opened again after a failure, and for a resumed run."""
    recorder = suite.opened()
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.open(_context())
    recorder.write(2, checked_record({"train/loss": 0.4}))
    recorder.flush()
    recorder.close("stopped")
    resumed = suite.make_recorder()
    resumed.open(_context(resumed=True, total_steps=2))
    resumed.write(3, checked_record({"train/loss": 0.3}))
    _finish(resumed)


@check_recorder.promise
def closes_with_each_outcome(suite: RecorderSuite) -> None:
    """Close takes each outcome of a run, also without a record."""
    for outcome in get_args(Outcome):
        suite.opened().close(outcome)


@check_recorder.promise
def needs_no_directory_and_takes_any_params(suite: RecorderSuite) -> None:
    """The context may have no directory, and params of each plain type."""
    recorder = suite.make_recorder()
    recorder.open(_context(params={"a": 1, "b/c": 0.5, "d": "text", "e": True, "f": None}, tags={"g": "h"}))
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.flush()
    recorder.close("failed")


@check_recorder.promise
def records_the_numbers_in_order(suite: RecorderSuite) -> None:
    """Flushed numbers can be read, each under its name, at its step, in order."""
    if suite.read is None:
        return
    recorder = suite.opened()
    written = [(step, {"train/loss": 1.0 / step, "train/reward": float(step)}) for step in (1, 2, 7, 30)]
    for step, record in written:
        recorder.write(step, checked_record(record))
    recorder.flush()
    found = [(int(step), dict(record)) for step, record in suite.read()]
    recorder.close("finished")
    steps = [[step for step, _ in records] for records in (found, written)]
    expect(steps[0] == steps[1], f"steps {steps[0]}", str(steps[1]))
    for (step, record), (_, expected) in zip(found, written, strict=True):
        numbers = [float(record.get(key, math.nan)) for key in expected]
        is_kept = len(record) == len(expected) and np.allclose(numbers, list(expected.values()), rtol=1e-6)
        expect(is_kept, f"step {step}: {shown(record)}", shown(expected))


def _finish(recorder: Recorder) -> None:
    recorder.flush()
    recorder.close("finished")


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
