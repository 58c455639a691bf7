"""One recorder in its own thread, behind its own bounded queue: it affects no other recorder, nor the run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anyio

from stoker.errors import ConfigError, MissingDependency, RecorderFailed, Stalled
from stoker.exits import Contained
from stoker.recorders.protocol import ArtifactRecorder, Outcome, Recorder, RunContext
from stoker.recorders.values import Record
from stoker.settings import Count, Positive, Settings
from stoker.telemetry import StateClock
from stoker.threads import DedicatedThread

_logger = logging.getLogger("stoker.recorders")

OnError = Literal["warn", "drop", "fail"]


class RecordingSettings(Settings, frozen=True, kw_only=True):
    """The settings of a ``Recording``, see there."""

    on_error: OnError
    timeout_s: Positive
    capacity: Count


class RecorderThread:
    """A recorder and its thread.

    ``put`` queues a record without waiting, and the thread hands records on as fast as the recorder takes
    them. A recorder that exceeds the time limit of a call gets no more calls: Python cannot end its thread,
    which does not keep the process alive.
    """

    def __init__(self, recorder: Recorder, name: str, settings: RecordingSettings) -> None:
        self.name = name
        self.n_left_out: int = 0
        """Records and files that were not handed on: there was no room, or the recorder was dropped."""
        self.failure: Exception | None = None
        """What must end the recording: the recorder can never open, or ``on_error`` is ``"fail"``."""
        self.clock: StateClock = StateClock(("idle", "writing"))
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
                _logger.warning(
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
            _logger.warning("%s", self.failure)
        self._drop()
        if self._is_open:
            await self._call("closing", self._recorder.close, status)
        self._thread.close()
        if self.n_left_out:
            _logger.warning("the recorder %r did not get %d records", self.name, self.n_left_out)

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
                _logger.info("the recorder %r works again", self.name)
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
        _logger.warning("the recorder %r failed in %s: %s; %s", self.name, doing, problem, response)

    def _drop(self) -> None:
        self._is_dropped = True
        self.n_left_out += len(self._waiting)
        self._waiting.clear()
