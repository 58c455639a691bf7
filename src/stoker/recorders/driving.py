"""Recording: all recorders of a run, off the hot path.

    recording = Recording([TensorBoardRecorder(), MLflowRecorder()])
    async with recording.opened(RunContext(name="cartpole", directory=directory)):
        ...
        recording.store({"train/loss": loss})    # from any thread
        recording.flush(total_steps)             # one record of all that was stored

A session does the same with the steps in between: ``open``, ``run`` as a task, ``put``, ``close``. Nothing
here waits for a recorder but ``open`` and ``close``, and these not for ever.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
from anyio import CancelScope, create_task_group

from stoker.errors import ConfigError, MissingDependency
from stoker.exits import single_error
from stoker.recorders.metrics import Metrics
from stoker.recorders.protocol import Outcome, Recorder, RunContext
from stoker.recorders.threads import Artifact, Measured, OnError, RecorderThread
from stoker.recorders.values import Value, checked_record
from stoker.types import AnyPath

__all__ = ["Recording"]


class Recording:
    """The recorders of one run, from its beginning to its end; on one event loop.

    Args:
        recorders: where records go.
        on_error: what becomes of a recorder that raises. ``"warn"``: it is told of once until it works
            again, and tried again with the next record; the run goes on. ``"drop"``: it is told of and
            left out. ``"fail"``: ``run`` raises ``RecorderFailed``. A recorder that does not come back is
            left out in any case.
        timeout_s: how long a recorder may take for one call.
        capacity: how many records may wait for one recorder; of more, the oldest are left out, and that is
            told.
        statistics: what records say of a stored scalar beside its mean: ``"min"``, ``"max"``, ``"median"``.

    Raises:
        ConfigError: A setting cannot be used, or something is no recorder.
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
        if on_error not in get_args(OnError):
            raise ConfigError(f"on_error={on_error!r} is none of {', '.join(map(repr, get_args(OnError)))}")
        if isinstance(timeout_s, bool) or not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise ConfigError(f"timeout_s={timeout_s!r}: give a number of seconds above 0")
        if type(capacity) is not int or capacity < 1:
            raise ConfigError(f"capacity={capacity!r}: give an int of at least 1")
        self._metrics = Metrics(statistics=statistics)
        self._lanes: list[RecorderThread] = []
        names: Counter[str] = Counter()
        for recorder in map(_checked, recorders):
            names[recorder.name] += 1
            name = recorder.name if names[recorder.name] == 1 else f"{recorder.name} {names[recorder.name]}"
            self._lanes.append(RecorderThread(recorder, name, on_error, timeout_s, capacity))
        self._opening: anyio.Event | None = None  # while ``open`` goes on: set when that ends
        self._is_used = self._is_closing = False
        self._closing: anyio.Event | None = None  # while ``run`` waits for ``close``

    @property
    def statistics(self) -> tuple[str, ...]:
        """What records say of a stored scalar beside its mean."""
        return self._metrics.statistics

    @property
    def is_empty(self) -> bool:
        """Whether it has no recorders."""
        return not self._lanes

    @property
    def n_left_out(self) -> Mapping[str, int]:
        """By recorder: how many records and files it did not get, so far."""
        return {lane.name: lane.n_left_out for lane in self._lanes if lane.n_left_out}

    # Measuring ------------------------------------------------------------------------------------

    def store(self, values: Mapping[str, Any]) -> None:
        """Keep values for the next ``flush``, from any thread, as ``Metrics.store`` does.

        Raises:
            ConfigError: A name or a value cannot be recorded; nothing of the mapping is kept.
        """
        self._metrics.store(values)

    def flush(self, step: int) -> Mapping[str, Value]:
        """Record what was stored since the last time, and return it; nothing stored, nothing recorded.

        Args:
            step: environment steps.

        Raises:
            ConfigError: The step is no count; what was stored stays.
        """
        step = _checked_step(step)
        record = self._metrics.flush(step)
        if record:
            self._put(Measured(step, record))
        return record

    def put(self, step: int, record: Mapping[str, Any]) -> None:
        """Hand a record to each recorder, in the order of the calls. Waits for none of them.

        Records put before ``open`` wait for it; those put after ``close`` are counted as left out.

        Args:
            step: environment steps.
            record: what was measured; it may be changed afterwards.

        Raises:
            ConfigError: A name or a value cannot be recorded, or the step is no count; no recorder gets it.
        """
        self._put(Measured(_checked_step(step), checked_record(record)))

    def put_artifact(self, path: AnyPath, folder: str = "") -> None:
        """Hand a file to those recorders that take files; it must stay as it is until they have it.

        Args:
            path: the file.
            folder: where to put it among the run's artifacts; "": at the top.
        """
        self._put(Artifact(Path(path).absolute(), folder))

    def _put(self, item: Measured | Artifact) -> None:
        for lane in self._lanes:
            lane.put(item)

    # Running --------------------------------------------------------------------------------------

    async def open(self, context: RunContext) -> None:
        """Open all recorders, side by side. Returns within ``timeout_s``, or raises.

        Raises:
            ConfigError, MissingDependency: A recorder cannot be used like this, whatever ``on_error`` says.
            RecorderFailed: One could not be opened, with ``on_error="fail"``.
        """
        if self._is_used:
            raise ConfigError("recorders are opened once: make a new session, with new recorders")
        if self._is_closing:
            return
        self._is_used = True
        self._opening = opened = anyio.Event()
        failures: list[Exception] = []

        async def open_one(lane: RecorderThread) -> None:
            try:
                await lane.open(context)
            except Exception as error:  # noqa: BLE001 - raised below, as one and by itself
                failures.append(error)

        try:
            async with create_task_group() as tasks:
                for lane in self._lanes:
                    tasks.start_soon(open_one, lane)
        except BaseException:
            self._opening = None
            opened.set()
            await self.close("stopped")
            raise
        self._opening = None
        opened.set()
        if failures:
            await self.close("failed")
            raise failures[0]

    async def run(self) -> None:
        """Hand records on until ``close``; the body of a task.

        Raises:
            RecorderFailed: A recorder failed, with ``on_error="fail"``; the others are still to be closed.
        """
        failures: list[Exception] = []
        async with create_task_group() as tasks:

            async def work(lane: RecorderThread) -> None:
                try:
                    failure = await lane.work()
                except (ConfigError, MissingDependency) as error:  # it could be opened only now
                    failures.append(error)
                else:
                    failures.extend([failure] if failure is not None else [])
                if failures:
                    tasks.cancel_scope.cancel()

            for lane in self._lanes:
                tasks.start_soon(work, lane)
            if not self._is_closing:
                self._closing = anyio.Event()
                await self._closing.wait()
        if failures:
            raise failures[0]

    async def close(self, status: Outcome = "finished") -> None:
        """Hand on what is left, close the recorders side by side, and let ``run`` end.

        It takes ``timeout_s`` for what is left, should a recorder be in a call then as long again for that,
        and as long for closing, at the most; it is not cut short by cancellation. What then has not been
        handed on is logged. A second call does nothing.

        Args:
            status: how the run ended.
        """
        if self._is_closing:
            return
        self._is_closing = True
        with CancelScope(shield=True):
            if self._opening is not None:
                await self._opening.wait()  # bounded by what one call may take
            if self._closing is not None:
                self._closing.set()
            async with create_task_group() as tasks:
                for lane in self._lanes:
                    tasks.start_soon(lane.close, status)

    @asynccontextmanager
    async def opened(self, context: RunContext) -> AsyncGenerator[Recording]:
        """Open, run and close around a block, for those who have no session.

        The run counts as failed if the block raises, and as stopped if it is cancelled or interrupted.
        """
        await self.open(context)
        status: Outcome = "finished"
        is_running = True

        async def run() -> None:
            nonlocal is_running
            try:
                await self.run()
            finally:
                is_running = False

        with single_error():
            async with create_task_group() as tasks:
                tasks.start_soon(run)
                try:
                    yield self
                except Exception:
                    status = "failed"
                    raise
                except BaseException:
                    status = "stopped" if is_running else "failed"  # by a recorder
                    raise
                finally:
                    await self.close(status)


def _checked(recorder: Recorder) -> Recorder:
    """The recorder, if it looks like one.

    Raises:
        ConfigError: It does not.
    """
    missing = [
        call for call in ("open", "write", "flush", "close") if not callable(getattr(recorder, call, None))
    ]
    if not isinstance(getattr(recorder, "name", None), str):
        missing.insert(0, "name")
    if missing or isinstance(recorder, type):
        raise ConfigError(
            f"{recorder!r} is no recorder: give an object with name, open, write, flush and close"
            + (f"; it has no {', '.join(missing)}" if missing else "")
        )
    return recorder


def _checked_step(step: int) -> int:
    """The step as a plain int.

    Raises:
        ConfigError: It is no count.
    """
    try:
        found = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        found = -1
    if found < 0:
        raise ConfigError(f"step={step!r}: records are of an environment step, an int of at least 0")
    return found
