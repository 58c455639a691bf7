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

import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import CancelScope, create_task_group

from stoker.errors import ConfigError, MissingDependency, RecorderFailed, Stalled
from stoker.exits import Contained, single_error
from stoker.recorders.metrics import Metrics
from stoker.recorders.protocol import ArtifactRecorder, Outcome, Recorder, RunContext
from stoker.recorders.values import Record, Value, checked_record
from stoker.settings import Count, Positive, Settings
from stoker.telemetry import StateClock
from stoker.threads import DedicatedThread
from stoker.types import AnyPath

__all__ = ["OnError", "Recording"]

logger = logging.getLogger("stoker.recorders")

OnError = Literal["warn", "drop", "fail"]


class RecordingSettings(Settings, frozen=True, kw_only=True):
    """The settings of a ``Recording``, see there."""

    on_error: OnError
    timeout_s: Positive
    capacity: Count


class RecorderThread:
    """One recorder in its own thread, behind its own bounded queue.

    ``put`` queues a record without waiting, and the thread hands records on as fast as the recorder takes
    them. A recorder that exceeds the time limit of a call gets no more calls: Python cannot end its thread,
    which does not keep the process alive.
    """

    def __init__(self, recorder: Recorder, name: str, settings: RecordingSettings) -> None:
        self.name = name
        self.n_left_out = 0
        """Records and files that were not handed on: there was no room, or the recorder was dropped."""
        self.failure: Exception | None = None
        """What must end the recording: the recorder can never open, or ``on_error`` is ``"fail"``."""
        self.clock = StateClock(("idle", "writing"))
        """Whether its thread is in a call of the recorder."""
        self._recorder = recorder
        self._settings = settings
        self._thread = DedicatedThread(f"stoker-recorder-{name}")
        self._waiting: deque[tuple[str, Callable[..., object], tuple[Any, ...]]] = deque()
        self._working = anyio.Lock()
        self._changed = anyio.Event()  # set, and renewed, when there is something new or it is ending
        self._context: RunContext | None = None
        self._is_open = self._is_dropped = self._is_ending = False
        self._has_failed = False  # and has not worked since

    def put(self, step: int, record: Record) -> None:
        """Queue a record, without waiting."""
        self._put(f"writing step {step}", self._recorder.write, step, record)

    def put_artifact(self, path: Path, folder: str) -> None:
        """Queue a file, without waiting, if the recorder takes files."""
        if isinstance(self._recorder, ArtifactRecorder):
            self._put(f"taking {path}", self._recorder.add_artifact, path, folder)

    def _put(self, doing: str, function: Callable[..., object], *args: Any) -> None:
        if self._is_dropped or self._is_ending:
            self.n_left_out += 1
            return
        if len(self._waiting) == self._settings.capacity:
            self._waiting.popleft()
            if not self.n_left_out:
                logger.warning(
                    "the recorder %r does not keep up: %d records wait for it; the oldest are left out",
                    self.name,
                    self._settings.capacity,
                )
            self.n_left_out += 1
        self._waiting.append((doing, function, args))
        self._notify()

    async def open(self, context: RunContext) -> None:
        """Let the recorder get ready; see ``failure`` if it never will be."""
        self._context = context
        self._is_open = await self._call("opening", self._recorder.open, context)

    async def work(self) -> None:
        """Hand records on until ``close`` has nothing left, or the recorder is dropped.

        Cancellation loses no record: the thread still makes the call.
        """
        async with self._working:
            while not self._is_dropped and (self._waiting or not self._is_ending):
                changed, is_ending = self._changed, self._is_ending
                if not (self._waiting and await self._hand_on()):
                    if is_ending:
                        return  # it cannot be opened
                    await changed.wait()

    async def close(self, status: Outcome) -> None:
        """Hand on the waiting records and close the recorder, as far as time allows; failures are logged."""
        self._is_ending = True
        self._notify()
        before = self.failure
        with anyio.move_on_after(self._settings.timeout_s):
            await self.work()
        if self.failure is not before:
            logger.warning("%s", self.failure)
        self._drop()
        if self._is_open:
            await self._call("closing", self._recorder.close, status)
        self._thread.close()
        if self.n_left_out:
            logger.warning("the recorder %r did not get %d records", self.name, self.n_left_out)

    async def _hand_on(self) -> bool:
        """Hand on what waits at the moment, and flush; return whether the recorder was open."""
        if self._context is not None and not self._is_open:
            await self.open(self._context)
        if not self._is_open:
            return False
        all_done = True
        for _ in range(len(self._waiting)):  # no more than that: a slow recorder must be flushed, too
            if not self._waiting:
                break
            doing, function, args = self._waiting.popleft()
            all_done &= await self._call(doing, function, *args)
        if not self._is_dropped and await self._call("flushing", self._recorder.flush) and all_done:
            if self._has_failed:
                logger.info("the recorder %r works again", self.name)
            self._has_failed = False
        return True

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _call(self, doing: str, function: Callable[..., object], *args: Any) -> bool:
        """Call the recorder in its thread; return whether it succeeded."""
        timeout_s = self._settings.timeout_s
        with anyio.move_on_after(timeout_s, shield=True):
            try:
                with Contained(f"the recorder {self.name!r}"):
                    self.clock.enter(1)
                    await self._thread.run(function, *args, is_kept=True)
            except Exception as error:  # noqa: BLE001 - any error of the recorder is logged
                self._failed(doing, error)
                return False
            finally:
                self.clock.enter(0)
            return True
        if self._is_open or doing == "opening":  # else the thread already hung in the call before
            self._is_open = False
            self._thread.close()
            self._failed(doing, Stalled("its thread", timeout_s, "the call is abandoned"))
        return False

    def _failed(self, doing: str, error: Exception) -> None:
        """Respond to an error as the settings say."""
        is_hopeless = doing == "opening" and isinstance(error, ConfigError | MissingDependency)
        if doing == "closing":
            response = "records may be lost"
        elif is_hopeless or self._settings.on_error == "fail":
            self._drop()
            self.failure = error if is_hopeless else RecorderFailed(self.name, error)
            return
        elif self._settings.on_error == "drop" or isinstance(error, Stalled):
            self._drop()
            response = "it gets no more records"
        elif self._has_failed:
            return  # logged already
        else:
            response = "the run continues, and the next record is tried"
        self._has_failed = True
        problem = f"{type(error).__name__}: {error}"
        logger.warning("the recorder %r failed in %s: %s; %s", self.name, doing, problem, response)

    def _drop(self) -> None:
        self._is_dropped = True
        self.n_left_out += len(self._waiting)
        self._waiting.clear()


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
