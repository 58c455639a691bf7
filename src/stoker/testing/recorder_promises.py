"""The promises of a recorder, as checks to run on your own: open, write, flush, close.

The suite calls a recorder as ``Recording`` does: from one thread, with checked records. Give it ``read`` to
compare the recorded numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

import numpy as np
from msgspec.structs import replace

from stoker.plain import shown
from stoker.recorders.protocol import Outcome, Recorder, RunContext
from stoker.recorders.values import Histogram, Image, Value, checked_record
from stoker.testing.contract import Contract, expect, expect_same

_CONTEXT = RunContext(name="contract", run_id="contract-1")

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

    def opened(self, **context: Any) -> Recorder:
        """A new recorder, opened with this context."""
        recorder = self.make_recorder()
        recorder.open(replace(_CONTEXT, **context))
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
    _record(suite.opened(), *((at, {f"kinds/{kind}": value}) for at, (kind, value) in enumerate(_values())))


@check_recorder.promise
def takes_records_of_many_and_of_none(suite: RecorderSuite) -> None:
    """Names may differ between records, a step may repeat, and a record may be empty."""
    steps = ((1, "ab"), (1, "ab"), (2, "c"), (5, ""), (1_000_000_000_000, "abc"))
    _record(
        suite.opened(), *((step, {f"some/{name}": float(step) for name in names}) for step, names in steps)
    )


@check_recorder.promise
def leaves_what_it_is_given_as_it_was(suite: RecorderSuite) -> None:
    """Writing a record does not change it."""
    recorder = suite.opened()
    record = checked_record({"train/loss": 0.5, "train/values": np.arange(6.0).reshape(2, 3)})
    before = copy.deepcopy(record)
    recorder.write(3, record)
    _record(recorder)
    expect_same(before, record, "record")


@check_recorder.promise
def flushes_at_any_time(suite: RecorderSuite) -> None:
    """Flush may come before the first record, and twice in a row."""
    recorder = suite.opened()
    recorder.flush()
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.flush()
    _record(recorder)


@check_recorder.promise
def may_be_opened_again(suite: RecorderSuite) -> None:
    """A recorder can be opened again after a failure, and for a resumed run."""
    recorder = suite.opened()
    recorder.write(1, checked_record({"train/loss": 0.5}))
    recorder.open(_CONTEXT)
    _record(recorder, (2, {"train/loss": 0.4}), outcome="stopped")
    _record(suite.opened(resumed=True, total_steps=2), (3, {"train/loss": 0.3}))


@check_recorder.promise
def closes_with_each_outcome(suite: RecorderSuite) -> None:
    """Close takes each outcome of a run, also without a record."""
    for outcome in get_args(Outcome):
        suite.opened().close(outcome)


@check_recorder.promise
def needs_no_directory_and_takes_any_params(suite: RecorderSuite) -> None:
    """The context may have no directory, and params of each plain type."""
    params = {"a": 1, "b/c": 0.5, "d": "text", "e": True, "f": None}
    recorder = suite.opened(params=params, tags={"g": "h"})
    _record(recorder, (1, {"train/loss": 0.5}), outcome="failed")


@check_recorder.promise
def records_the_numbers_in_order(suite: RecorderSuite) -> None:
    """Flushed numbers can be read, each under its name, at its step, in order."""
    if suite.read is None:
        return
    recorder = suite.opened()
    written = {step: {"train/loss": 1.0 / step, "train/reward": float(step)} for step in (1, 2, 7, 30)}
    for step, record in written.items():
        recorder.write(step, checked_record(record))
    recorder.flush()
    found = [(int(step), dict(record)) for step, record in suite.read()]
    recorder.close("finished")
    steps = [step for step, _ in found]
    expect(steps == [*written], f"steps {steps}", str([*written]))
    for step, record in found:
        expected = written[step]
        is_kept = record.keys() == expected.keys() and np.allclose(
            [record[name] for name in expected], [*expected.values()], rtol=1e-6
        )
        expect(is_kept, f"step {step}: {shown(record)}", shown(expected))


def _record(
    recorder: Recorder, *records: tuple[int, Mapping[str, Value]], outcome: Outcome = "finished"
) -> None:
    """Write records, flush, and close with this outcome."""
    for step, record in records:
        recorder.write(step, checked_record(record))
    recorder.flush()
    recorder.close(outcome)


def _values() -> Iterator[tuple[str, Value]]:
    """A value of each kind, by the name of the kind."""
    yield "float", 0.5
    yield "int", 3
    yield "bool", True
    yield "nan", math.nan
    yield "infinity", math.inf
    yield "text", "as it is"
    yield "time", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    yield "array", np.arange(3.0)
    yield "matrix", np.arange(6.0).reshape(2, 3)
    yield "cube", np.zeros((2, 2, 2))
    yield "image", Image(np.zeros((4, 5, 3), np.uint8))
    yield "histogram", Histogram([0.0, 1.0, math.nan])
