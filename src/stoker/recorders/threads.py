"""One recorder, driven in its own thread behind its own bounded queue.

What one recorder does is nothing to the others and nothing to the run: a record is put into each lane
without waiting, and each lane hands on what it has as fast as its recorder takes it. Everything that a
recorder is asked for is bounded in time. One that does not come back is left out from then on: its thread,
which Python cannot end, is left behind, and does not keep the process alive.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVarTuple

import anyio
import msgspec

from stoker.errors import ConfigError, MissingDependency, RecorderFailed, Stalled
from stoker.exits import Contained
from stoker.recorders.protocol import ArtifactRecorder, Outcome, Recorder, RunContext
from stoker.recorders.values import Record
from stoker.threads import DedicatedThread

__all__ = ["Artifact", "Measured", "OnError", "RecorderThread"]

logger = logging.getLogger("stoker.recorders")
Ts = TypeVarTuple("Ts")

OnError = Literal["warn", "drop", "fail"]
"""What happens to a recorder that raises: a warning and another try with the next record, a warning and
left out, or it ends the recording."""


class Measured(msgspec.Struct, frozen=True):
    """A record to write."""

    step: int
    record: Record


class Artifact(msgspec.Struct, frozen=True):
    """A file to take."""

    path: Path
    folder: str


class RecorderThread:
    """A recorder and what waits for it.

    Args:
        recorder: the recorder.
        name: what messages call it.
        on_error: what becomes of it when it raises.
        timeout_s: how long one call may take; also how long ``close`` waits for what is left.
        capacity: how much may wait; of more, the oldest is left out.
    """

    def __init__(
        self, recorder: Recorder, name: str, on_error: OnError, timeout_s: float, capacity: int
    ) -> None:
        self.name = name
        self.n_left_out = 0
        """Records and files that were not handed on: there was no room, or the recorder was left out."""
        self.failure: RecorderFailed | None = None
        """What ended it, with ``fail``."""
        self._recorder = recorder
        self._on_error: OnError = on_error
        self._timeout_s = timeout_s
        self._thread = DedicatedThread(f"stoker-recorder-{self.name}")
        self._capacity = capacity
        self._waiting: deque[Measured | Artifact] = deque()
        self._n_put = 0
        self._wake: anyio.Event | None = None  # while it waits for something to do
        self._worked: anyio.Event | None = None  # while somebody works: set when that ends
        self._context: RunContext | None = None
        self._is_open = False
        self._is_out = False  # gets no more records
        self._is_stuck = False  # in a call: there is no way to reach it any more
        self._is_ending = False  # nothing more will come
        self._is_late = False  # and what is there is not handed on any more
        self._has_failed = False  # and has not worked since
        self._was_full = False

    # Putting in -----------------------------------------------------------------------------------

    def put(self, item: Measured | Artifact) -> None:
        """Keep it for the recorder; wait for nothing."""
        if isinstance(item, Artifact) and not isinstance(self._recorder, ArtifactRecorder):
            return
        if self._is_out or self._is_ending:
            self.n_left_out += 1
            return
        if len(self._waiting) == self._capacity:
            self._waiting.popleft()
            self.n_left_out += 1
            if not self._was_full:
                self._was_full = True
                logger.warning(
                    "the recorder %r does not keep up: %d records wait for it; the oldest are left out",
                    self.name,
                    self._capacity,
                )
        self._waiting.append(item)
        self._n_put += 1
        self._rouse()

    # Working --------------------------------------------------------------------------------------

    async def open(self, context: RunContext) -> None:
        """Let the recorder get ready.

        Raises:
            ConfigError, MissingDependency: It never will, like this.
            RecorderFailed: It could not, with ``fail``.
        """
        self._context = context
        await self._try_to_open()
        if self.failure is not None:
            raise self.failure

    async def work(self) -> RecorderFailed | None:
        """Hand on what comes until ``end``; return what ended it, with ``fail``.

        Cancelled: a call that is going on is waited for, as long as it may take; nothing is lost.

        Raises:
            ConfigError, MissingDependency: As for ``open``, if that could not say so yet.
        """
        if self._worked is not None:  # somebody does already
            await self._worked.wait()
            return self.failure
        self._worked = worked = anyio.Event()
        try:
            while not (self._is_out or self._is_late or (self._is_ending and not self._waiting)):
                n_put, is_ending = self._n_put, self._is_ending
                if self._waiting and await self._hand_on():
                    continue
                # What came during a call that failed is reason enough to try again.
                if (n_put, is_ending) == (self._n_put, self._is_ending):
                    await self._wait()
        finally:
            self._worked = None
            worked.set()
        return self.failure

    def end(self) -> None:
        """Let ``work`` end when what is there has been handed on."""
        self._is_ending = True
        self._rouse()

    async def close(self, status: Outcome) -> None:
        """End it: what is there is handed on and the recorder closed, as far as there is time for that.

        Nothing is raised; failures are logged.
        """
        self.end()
        with anyio.move_on_after(self._timeout_s):
            await self._finish()
        self._is_late = True
        self._rouse()
        self._give_up_waiting()
        if self._is_open and not self._is_stuck:
            await self._call("closing", self._recorder.close, status)
        self._thread.close()
        if self.n_left_out:
            logger.warning("the recorder %r did not get %d records", self.name, self.n_left_out)

    async def _finish(self) -> None:
        """Hand on what is there, unless somebody does: then wait for that."""
        if self._worked is not None:
            await self._worked.wait()
        elif self._context is not None and not self._is_out:
            try:
                failure = await self.work()
            except (ConfigError, MissingDependency) as error:
                failure = error
            if failure is not None:
                logger.warning("%s", failure)

    async def _hand_on(self) -> bool:
        """Hand on what is there by now; return whether the recorder was there to take it."""
        if not self._is_open and not await self._try_to_open():
            return False
        all_done = True
        # No more than that before a flush: a recorder that is never done with all of it is to be seen too.
        n_left = len(self._waiting)
        while n_left and self._waiting and not self._is_out and not self._is_late:
            n_left -= 1
            match self._waiting.popleft():
                case Measured(step, record):
                    done = await self._call(f"writing step {step}", self._recorder.write, step, record)
                case Artifact(path, folder):
                    assert isinstance(self._recorder, ArtifactRecorder)  # noqa: S101 - ``put`` takes no other
                    add = self._recorder.add_artifact
                    done = await self._call(f"taking {path}", add, path, folder)
            all_done = all_done and done
        self._was_full = self._was_full and bool(self._waiting)
        if not (self._is_out or self._is_late) and await self._call("flushing", self._recorder.flush):
            self._has_worked(all_done)
        return True

    async def _try_to_open(self) -> bool:
        if self._context is None:
            return False
        self._is_open = await self._call("opening", self._recorder.open, self._context)
        return self._is_open

    async def _wait(self) -> None:
        """Return when there is something new, or nothing more will come."""
        if self._is_ending:
            self._is_late = True  # it cannot be opened
            return
        self._wake = wake = anyio.Event()
        await wake.wait()

    def _rouse(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def _leave_out(self) -> None:
        self._is_out = True
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        self.n_left_out += len(self._waiting)
        self._waiting.clear()

    # Calling --------------------------------------------------------------------------------------

    async def _call(self, doing: str, function: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Have the recorder do something in its thread; say whether it did."""
        with anyio.move_on_after(self._timeout_s, shield=True):
            try:
                with Contained(f"the recorder {self.name!r}"):
                    await self._thread.run(function, *args)
            except (ConfigError, MissingDependency) as error:
                if doing == "opening":
                    self._is_out = True
                    raise
                self._failed(doing, error)
                return False
            except Exception as error:  # noqa: BLE001 - any error of the recorder is logged
                self._failed(doing, error)
                return False
            return True
        self._hung(doing)
        return False

    def _has_worked(self, all_done: bool) -> None:
        if all_done and self._has_failed:
            self._has_failed = False
            logger.info("the recorder %r works again", self.name)

    def _failed(self, doing: str, error: Exception) -> None:
        way_on = "the run goes on, and the next record is tried"
        if doing == "closing":
            way_on = "what it did not finish is lost"
        elif self._on_error == "fail":
            self._leave_out()
            self.failure = RecorderFailed(self.name, error)
            return
        elif self._on_error == "drop":
            self._leave_out()
            way_on = "it is left out from now on"
        elif self._has_failed:
            return  # told already
        self._has_failed = True
        logger.warning(
            "the recorder %r failed in %s: %s: %s; %s",
            self.name,
            doing,
            type(error).__name__,
            error,
            way_on,
        )

    def _hung(self, doing: str) -> None:
        if self._is_stuck:
            return  # in the call before; told already
        self._is_stuck = True
        self._leave_out()
        self._thread.close()
        stalled = Stalled(
            f"the recorder {self.name!r} ({doing})", self._timeout_s, "it is left out from now on"
        )
        if self._on_error == "fail" and doing != "closing":
            self.failure = RecorderFailed(self.name, stalled)
        else:
            logger.warning("%s", stalled)
