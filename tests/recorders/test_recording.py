"""Recording: order, threads, what fails, what hangs, what is too slow, and how it ends."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import to_thread

import launching
from stoker.errors import ConfigError, MissingDependency, RecorderFailed, Stalled
from stoker.recorders import Outcome, Record, Recorder, Recording, RunContext
from stoker.recorders.recorder_thread import OnError

pytestmark = pytest.mark.anyio
CONTEXT = RunContext(name="x")
SHORT_S = 0.2
"""For recorders that hang anyway: the time to be left out."""


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


async def reached(semaphore: threading.Semaphore) -> None:
    """Wait until a recorder did something."""
    assert await to_thread.run_sync(lambda: semaphore.acquire(timeout=30))


async def test_records_arrive_in_order_from_one_thread(keeping: Any) -> None:
    recorders = [keeping("a"), keeping("b")]
    recording = Recording(recorders)
    async with recording.opened(CONTEXT):
        for step in range(50):
            recording.put(step, {"train/loss": step / 2, "arr": np.ones(2)})
    for recorder in recorders:
        assert recorder.contexts == [CONTEXT]
        assert recorder.steps == list(range(50))
        assert recorder.records[3][1]["train/loss"] == 1.5
        assert recorder.statuses == ["finished"]
        assert recorder.n_flushes >= 1
        assert len(recorder.threads) == 1
    assert not (recorders[0].threads & recorders[1].threads)
    assert threading.get_ident() not in recorders[0].threads
    assert recording.n_left_out == {}


async def test_stored_values_are_recorded_at_a_flush(keeping: Any) -> None:
    recorder = keeping()
    recording = Recording([recorder], statistics=("max",))
    async with recording.opened(CONTEXT):
        assert recording.flush(0) == {}
        await to_thread.run_sync(recording.store, {"a": 1.0})
        recording.store({"a": 3.0, "t": "x"})
        assert recording.flush(10) == {"a": 2.0, "a_max": 3.0, "t": "x"}
        assert recording.statistics == ("max",)
    assert recorder.records == [(10, {"a": 2.0, "a_max": 3.0, "t": "x"})]


async def test_bad_records_and_steps_are_refused_at_once(keeping: Any) -> None:
    recorder = keeping()
    recording = Recording([recorder])
    recording.store({"a": 1.0})
    for step in (-1, 1.5, True, None, "3"):
        with pytest.raises(ConfigError, match="step="):
            recording.put(step, {"a": 1.0})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="step="):
            recording.flush(step)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no good"):
        recording.put(1, {"no good": 1.0})
    recording.put(np.int64(7), {"b": 1.0})  # type: ignore[arg-type]
    recording.flush(8)
    async with recording.opened(CONTEXT):
        pass
    assert recorder.records == [(7, {"b": 1.0}), (8, {"a": 1.0})]


def test_settings_that_cannot_be_used_are_refused() -> None:
    for settings, words in [
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"timeout_s": float("inf")}, "timeout_s=inf"),
        ({"capacity": 0}, "capacity=0"),
        ({"statistics": ("std",)}, "'std'"),
        ({"recorders": [object()]}, "not a recorder"),
        ({"recorders": ["tensorboard"]}, "not a recorder"),
    ]:
        with pytest.raises(ConfigError, match=words):
            Recording(**settings)


def test_a_class_in_place_of_a_recorder_is_refused(keeping: Any) -> None:
    class Sink(keeping):  # type: ignore[misc]
        name = "sink"

    with pytest.raises(ConfigError, match="not a recorder"):
        Recording([Sink])  # type: ignore[list-item]


async def test_a_recorder_may_delegate_its_calls_to_another(keeping: Any) -> None:
    class Wrapping:
        def __init__(self) -> None:
            self.wrapped = keeping()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.wrapped, name)

    recorder: Any = Wrapping()
    async with Recording([recorder]).opened(CONTEXT) as recording:
        recording.put(1, {"a": 1.0})
    assert recorder.steps == [1]


# Failing ----------------------------------------------------------------------------------------------


async def test_a_recorder_that_fails_is_logged_once_and_tried_again(
    keeping: Any, failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = keeping(), failing("write")
    recording = Recording([bad, good], on_error="warn")
    with caplog.at_level(logging.INFO, "stoker.recorders"):
        async with recording.opened(CONTEXT):
            for step in range(3):
                recording.put(step, {"a": 1.0})
                await reached(bad.flushed)
            bad.calls.clear()
            for step in range(3, 6):
                recording.put(step, {"a": 1.0})
                await reached(bad.flushed)
    assert bad.steps == good.steps == [0, 1, 2, 3, 4, 5]
    assert bad.statuses == good.statuses == ["finished"]
    assert messages(caplog, logging.INFO) == [
        "the recorder 'failing' failed in writing step 0: OSError: write: no space left; "
        "the run continues, and the next record is tried",
        "the recorder 'failing' works again",
    ]


async def test_a_recorder_that_fails_to_flush_is_logged_once(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = failing("flush")
    recording = Recording([bad])
    async with recording.opened(CONTEXT):
        for step in range(3):
            recording.put(step, {"a": 1.0})
            await reached(bad.flushed)
    assert len(messages(caplog)) == 1


async def test_a_recorder_that_fails_is_dropped(
    keeping: Any, failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = keeping(), failing("write")
    recording = Recording([bad, good], on_error="drop")
    async with recording.opened(CONTEXT):
        for step in range(4):
            recording.put(step, {"a": 1.0})
            await reached(good.flushed)
    assert bad.steps == [0]
    assert bad.statuses == ["finished"], "it may close its files"
    assert good.steps == [0, 1, 2, 3]
    assert recording.n_left_out == {"failing": 3}
    logged = messages(caplog)
    assert logged[0].endswith("no space left; it gets no more records")
    assert logged[1:] == ["the recorder 'failing' did not get 3 records"]


async def test_a_recorder_that_fails_ends_the_recording(keeping: Any, failing: Any) -> None:
    good, bad = keeping(), failing("write")
    recording = Recording([good, bad], on_error="fail")
    await recording.open(CONTEXT)
    recording.put(0, {"a": 1.0})
    with pytest.raises(RecorderFailed, match="the recorder 'failing' failed: OSError: write") as caught:
        await recording.run()
    assert isinstance(caught.value.__cause__, OSError)
    recording.put(1, {"a": 2.0})
    await recording.close("failed")
    assert good.steps == [0, 1], "the others get what there is"
    assert good.statuses == bad.statuses == ["failed"]


async def test_the_block_ends_with_the_recorders_error(failing: Any) -> None:
    bad = failing("write")
    with pytest.raises(RecorderFailed) as caught:
        async with Recording([bad], on_error="fail").opened(CONTEXT) as recording:
            recording.put(0, {"a": 1.0})
            await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, OSError)
    assert bad.statuses == ["failed"]


@pytest.mark.parametrize("on_error", ["warn", "drop", "fail"])
@pytest.mark.parametrize(
    "error", [ConfigError("no directory"), MissingDependency("foo", "bar")], ids=["config", "missing"]
)
async def test_the_error_of_a_recorder_that_can_never_open_is_raised(
    keeping: Any, failing: Any, on_error: OnError, error: Exception
) -> None:
    good = keeping()
    recording = Recording([good, failing("open", error=error)], on_error=on_error)
    with pytest.raises(type(error)) as caught:
        await recording.open(CONTEXT)
    assert caught.value is error
    assert good.statuses == ["failed"], "what was opened is closed"


async def test_a_recorder_that_cannot_open_yet_is_opened_with_a_later_record(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = failing("open")
    recording = Recording([bad])
    async with recording.opened(CONTEXT):
        for step in range(3):
            recording.put(step, {"a": 1.0})
            await anyio.wait_all_tasks_blocked()
        bad.calls.clear()
        recording.put(3, {"a": 1.0})
        await reached(bad.flushed)
    assert bad.steps == [0, 1, 2, 3], "what was put meanwhile has waited"
    assert bad.statuses == ["finished"]
    assert len(messages(caplog)) == 1


async def test_a_recorder_that_never_opens_is_logged_at_the_end(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = failing("open")
    async with Recording([bad]).opened(CONTEXT) as recording:
        recording.put(0, {"a": 1.0})
    assert bad.steps == bad.statuses == []
    assert messages(caplog)[-1] == "the recorder 'failing' did not get 1 records"


async def test_with_fail_an_error_in_opening_is_raised(failing: Any) -> None:
    recording = Recording([failing("open")], on_error="fail")
    with pytest.raises(RecorderFailed, match="open: no space left"):
        await recording.open(CONTEXT)


async def test_a_recorder_that_fails_to_close_is_logged(
    failing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Recording([failing("close")], on_error="fail").opened(CONTEXT):
        pass
    assert messages(caplog) == [
        "the recorder 'failing' failed in closing: OSError: close: no space left; records may be lost"
    ]


# Hanging and being slow -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "write", "flush", "close"])
async def test_a_recorder_that_hangs_is_dropped(
    keeping: Any, hanging: Any, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = keeping(), hanging(call)
    recording = Recording([bad, good], timeout_s=SHORT_S)
    with anyio.fail_after(20):
        async with recording.opened(CONTEXT):
            for step in range(3):
                recording.put(step, {"a": 1.0})
                await reached(good.flushed)
    assert good.steps == [0, 1, 2]
    assert good.statuses == ["finished"]
    assert bad.statuses == []
    logged = [message for message in messages(caplog) if "has not moved" in message]
    assert len(logged) == 1
    assert "'hanging'" in logged[0]
    assert f"has not moved for {SHORT_S} s; " in logged[0]


async def test_with_fail_a_recorder_that_hangs_ends_the_recording(hanging: Any) -> None:
    recording = Recording([hanging("write")], timeout_s=SHORT_S, on_error="fail")
    with anyio.fail_after(20):
        await recording.open(CONTEXT)
        recording.put(0, {"a": 1.0})
        with pytest.raises(RecorderFailed) as caught:
            await recording.run()
        assert isinstance(caught.value.__cause__, Stalled)
        await recording.close("failed")


async def test_a_slow_recorder_loses_its_oldest_records(
    keeping: Any, hanging: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, slow = keeping(), hanging("write")
    recording = Recording([slow, good], capacity=3)
    async with recording.opened(CONTEXT):
        recording.put(0, {"a": 1.0})
        assert await to_thread.run_sync(slow.reached.wait, 30)
        for step in range(1, 11):
            recording.put(step, {"a": 1.0})
            await reached(good.flushed)
        assert recording.n_left_out == {"hanging": 7}
        slow.release.set()
    assert slow.steps == [0, 8, 9, 10]
    assert good.steps == list(range(11))
    assert messages(caplog) == [
        "the recorder 'hanging' does not keep up: 3 records wait for it; the oldest are left out",
        "the recorder 'hanging' did not get 7 records",
    ]


async def test_putting_never_waits(hanging: Any) -> None:
    slow = hanging("open")
    recording = Recording([slow])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recording.open, CONTEXT)
        assert await to_thread.run_sync(slow.reached.wait, 30)
        for step in range(5):
            recording.put(step, {"a": 1.0})
        slow.release.set()
    await recording.close()
    assert slow.steps == [0, 1, 2, 3, 4]


def test_a_recorder_that_hangs_does_not_keep_the_process() -> None:
    source = """
import anyio, threading
from stoker.recorders import Recording, RunContext
class Hanging:
    name = "hanging"
    def open(self, context): pass
    def write(self, step, record): threading.Event().wait()
    def flush(self): pass
    def close(self, status): pass
async def main():
    async with Recording([Hanging()], timeout_s=0.05).opened(RunContext(name="x")) as recording:
        recording.put(0, {"a": 1.0})
anyio.run(main)
print("ended")
"""
    done = launching.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
    assert "has not moved" in done.stderr


# Ending -----------------------------------------------------------------------------------------------


class BodyError(Exception):
    """What a block fails with."""


async def test_the_run_counts_as_failed_where_the_block_raises(keeping: Any) -> None:
    recorder = keeping()
    with pytest.raises(BodyError) as caught:
        async with Recording([recorder]).opened(CONTEXT) as recording:
            recording.put(0, {"a": 1.0})
            raise BodyError from KeyError("why")
    assert isinstance(caught.value.__cause__, KeyError)
    assert recorder.steps == [0]
    assert recorder.statuses == ["failed"]


async def test_the_run_counts_as_stopped_where_the_block_is_cancelled(keeping: Any) -> None:
    recorder = keeping()
    with anyio.CancelScope() as scope:
        async with Recording([recorder]).opened(CONTEXT) as recording:
            recording.put(0, {"a": 1.0})
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert recorder.steps == [0]
    assert recorder.statuses == ["stopped"]


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
async def test_each_status_reaches_each_recorder(keeping: Any, status: Outcome) -> None:
    recorders = [keeping("a"), keeping("b")]
    recording = Recording(recorders)
    await recording.open(CONTEXT)
    recording.put(1, {"a": 1.0})
    await recording.close(status)  # without anybody in ``run``
    await recording.close("failed")  # has no effect
    await recording.run()
    for recorder in recorders:
        assert recorder.steps == [1]
        assert recorder.statuses == [status]


async def test_closing_before_and_while_it_opens(keeping: Any, hanging: Any) -> None:
    unopened, opening = keeping(), hanging("open")
    never = Recording([unopened])
    await never.close("failed")
    await never.open(CONTEXT)
    await never.run()
    assert unopened.contexts == []

    recording = Recording([opening])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recording.open, CONTEXT)
        assert await to_thread.run_sync(opening.reached.wait, 30)
        tasks.start_soon(recording.close, "stopped")
        await anyio.wait_all_tasks_blocked()
        opening.release.set()
    await recording.run()
    assert opening.statuses == ["stopped"]


async def test_a_cancelled_run_loses_nothing(keeping: Any) -> None:
    recorder = keeping()
    recording = Recording([recorder])
    await recording.open(CONTEXT)
    for step in range(20):
        recording.put(step, {"a": 1.0})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recording.run)
        await reached(recorder.wrote)
        tasks.cancel_scope.cancel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await recording.close("stopped")
    assert recorder.steps == list(range(20))
    assert recorder.statuses == ["stopped"]


async def test_a_recording_is_of_one_run(keeping: Any) -> None:
    recording = Recording([keeping()])
    await recording.open(CONTEXT)
    with pytest.raises(ConfigError, match="opened once"):
        await recording.open(CONTEXT)
    await recording.close()


async def test_recorders_of_one_name_are_numbered(failing: Any) -> None:
    recording = Recording([failing("write"), failing("write")], on_error="drop")
    async with recording.opened(CONTEXT):
        for step in range(2):
            recording.put(step, {"a": 1.0})
            await anyio.wait_all_tasks_blocked()
    recording.put(9, {"a": 1.0})
    assert set(recording.n_left_out) == {"failing", "failing 2"}


async def test_without_recorders_it_runs_until_it_is_closed() -> None:
    recording = Recording()
    async with anyio.create_task_group() as tasks:
        await recording.open(CONTEXT)
        tasks.start_soon(recording.run)
        recording.put(0, {"a": 1.0})
        await anyio.wait_all_tasks_blocked()
        await recording.close()


async def test_files_go_to_artifact_recorders(keeping: Any, tmp_path: Any) -> None:
    class Taking(keeping):  # type: ignore[misc]
        def add_artifact(self, path: Any, folder: str) -> None:
            self.records.append((path, folder))

    taking, other = Taking(), keeping()
    async with Recording([taking, other]).opened(CONTEXT) as recording:
        recording.put(0, {"a": 1.0})
        recording.put_artifact(str(tmp_path / "best.pt"), "checkpoints")
    assert taking.records == [(0, {"a": 1.0}), (tmp_path / "best.pt", "checkpoints")]
    assert other.records == [(0, {"a": 1.0})]


def test_a_recorder_fits_the_protocol(keeping: Any) -> None:
    recorder: Recorder = keeping()
    record: Record = {"a": 1.0}
    recorder.write(1, record)
    assert recorder.name == "keeping"
