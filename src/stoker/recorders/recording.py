"""Recording: all recorders of a run, off the hot path.

    recording = Recording([TensorBoardRecorder(), MLflowRecorder()])
    async with recording.opened(RunContext(name="cartpole", directory=directory)):
        ...
        recording.store({"train/loss": loss})    # from any thread
        recording.flush(total_steps)             # one record of everything stored

A session makes the same calls at different times: ``open``, ``run`` as a task, ``put``, ``close``. Only
``open`` and ``close`` wait for recorders, and both within time limits. Each recorder has its own thread and
its own queue, so that recorders affect neither each other nor the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import anyio
from anyio import CancelScope, create_task_group

from stoker.errors import ConfigError
from stoker.exits import single_error
from stoker.recorders.metrics import Metrics
from stoker.recorders.protocol import Outcome, Recorder, RunContext
from stoker.recorders.recorder_thread import OnError, RecorderThread, RecordingSettings
from stoker.recorders.values import Record, Value, checked_record
from stoker.telemetry import StateClock
from stoker.types import AnyPath


class Recording:
    """The recorders of one run, from its beginning to its end; on one event loop.

    Args:
        recorders: where records go.
        on_error: the response to a recorder that raises. ``"warn"``: log a warning, once until the recorder
            works again, and try it again with the next record. ``"drop"``: log a warning and give it no more
            records. ``"fail"``: ``run`` raises ``RecorderFailed``. A recorder that exceeds ``timeout_s`` gets
            no more records in any case.
        timeout_s: the time limit of one call of a recorder.
        capacity: the number of records that may wait for one recorder; beyond it the oldest are dropped, with
            a warning.
        statistics: what records hold of a stored scalar besides its mean: ``"min"``, ``"max"``, ``"median"``.

    Raises:
        ConfigError: A setting is out of range, or an object is not a recorder.
    """

    def __init__(
        self,
        recorders: Iterable[Recorder] = (),
        *,
        on_error: OnError = "warn",
        timeout_s: float = 30.0,
        capacity: int = 1024,
        statistics: Iterable[str] = (),
    ) -> None:
        settings = RecordingSettings(on_error=on_error, timeout_s=timeout_s, capacity=capacity)
        self._metrics = Metrics(statistics=statistics)
        self._threads: list[RecorderThread] = []
        names: Counter[str] = Counter()
        for recorder in recorders:
            calls = [getattr(recorder, call, None) for call in ("open", "write", "flush", "close")]
            has_name = isinstance(getattr(recorder, "name", None), str)
            if isinstance(recorder, type) or not has_name or not all(map(callable, calls)):
                raise ConfigError(
                    f"{recorder!r} is not a recorder: give an object with name, open, write, flush and close"
                )
            names[recorder.name] += 1
            name = recorder.name if names[recorder.name] == 1 else f"{recorder.name} {names[recorder.name]}"
            self._threads.append(RecorderThread(recorder, name, settings))
        self._is_opened = False
        self._opening = anyio.Lock()
        self._closing = anyio.Event()

    @property
    def statistics(self) -> tuple[str, ...]:
        """What records hold of a stored scalar besides its mean."""
        return self._metrics.statistics

    @property
    def is_empty(self) -> bool:
        """Whether it has no recorders."""
        return not self._threads

    @property
    def clocks(self) -> Mapping[str, StateClock]:
        """By recorder: what its thread does."""
        return {thread.name: thread.clock for thread in self._threads}

    @property
    def n_left_out(self) -> Mapping[str, int]:
        """By recorder: the number of records and files that it did not get, so far."""
        return {thread.name: thread.n_left_out for thread in self._threads if thread.n_left_out}

    # Measuring ------------------------------------------------------------------------------------

    def store(self, values: Mapping[str, Any]) -> None:
        """Keep values for the next ``flush``, from any thread, as ``Metrics.store`` does.

        Raises:
            ConfigError: A name or a value cannot be recorded; nothing of the mapping is kept.
        """
        self._metrics.store(values)

    def flush(self, step: int) -> Mapping[str, Value]:
        """Record the values stored since the last flush, and return them; if there are none, record nothing.

        Raises:
            ConfigError: The step is not a count; the stored values stay.
        """
        step = _checked_step(step)
        record = self._metrics.flush()
        if record:
            self._put(step, record)
        return record

    def put(self, step: int, record: Mapping[str, Any]) -> None:
        """Hand the record of an environment step to each recorder, in the order of the calls.

        Records put before ``open`` wait for it; those put after ``close`` count as left out.

        Raises:
            ConfigError: A name or value cannot be recorded, or the step is not a count; nothing is recorded.
        """
        self._put(_checked_step(step), checked_record(record))

    def put_artifact(self, path: AnyPath, folder: str = "") -> None:
        """Hand a file to the recorders that take files; it must not change until they have it."""
        for thread in self._threads:
            thread.put_artifact(Path(path).absolute(), folder)

    def _put(self, step: int, record: Record) -> None:
        for thread in self._threads:
            thread.put(step, record)

    # Running --------------------------------------------------------------------------------------

    async def open(self, context: RunContext) -> None:
        """Open all recorders, side by side. Returns within ``timeout_s``, or raises.

        Raises:
            ConfigError, MissingDependency: A recorder cannot be used like this, whatever ``on_error`` says.
            RecorderFailed: A recorder could not be opened, with ``on_error="fail"``.
        """
        if self._is_opened:
            raise ConfigError("recorders are opened once: make a new session, with new recorders")
        if self._closing.is_set():
            return
        self._is_opened = True
        try:
            async with self._opening, create_task_group() as tasks:
                for thread in self._threads:
                    tasks.start_soon(thread.open, context)
        except BaseException:
            await self.close("stopped")
            raise
        if self._failure is not None:
            await self.close("failed")
            raise self._failure

    async def run(self) -> None:
        """Hand records on until ``close``; the body of a task.

        Raises:
            ConfigError, MissingDependency: As for ``open``, of a recorder that could be opened only now.
            RecorderFailed: A recorder failed, with ``on_error="fail"``; the others still need ``close``.
        """

        async def work(thread: RecorderThread) -> None:
            await thread.work()
            if thread.failure is not None:
                tasks.cancel_scope.cancel()

        async with create_task_group() as tasks:
            for thread in self._threads:
                tasks.start_soon(work, thread)
            await self._closing.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def _failure(self) -> Exception | None:
        return next((thread.failure for thread in self._threads if thread.failure is not None), None)

    async def close(self, status: Outcome = "finished") -> None:
        """Hand on the waiting records, close the recorders side by side, and let ``run`` end.

        It takes at most ``timeout_s`` for the waiting records, as long again for a call that is in progress
        then, and as long for closing; cancellation does not cut it short. Records that remain are logged. A
        second call does nothing.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        with CancelScope(shield=True):
            # The lock is bounded by the time limit of one call.
            async with self._opening, create_task_group() as tasks:
                for thread in self._threads:
                    tasks.start_soon(thread.close, status)

    @asynccontextmanager
    async def opened(self, context: RunContext) -> AsyncGenerator[Recording]:
        """Open, run and close around a block, where there is no session.

        The run counts as failed if the block raises, and as stopped if it is cancelled or interrupted.
        """
        await self.open(context)
        status: Outcome = "stopped"
        with single_error():
            async with create_task_group() as tasks:
                tasks.start_soon(self.run)
                try:
                    yield self
                    status = "finished"
                except Exception:
                    status = "failed"
                    raise
                finally:
                    await self.close(status if self._failure is None else "failed")


def _checked_step(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, Integral) or int(step) < 0:
        raise ConfigError(f"step={step!r}: give an environment step, an int of at least 0")
    return int(step)
