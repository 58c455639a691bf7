"""The tasks of a session: the one that consumes events, and the engine that runs all of them and ends them.

    event queue --> learner (in its own thread) --> rows, journal, checkpoints --> writer --> run directory
                                                --> answers, evaluations ------> waiting callers

The engine runs in a task that no scope of a caller surrounds (``opening``). Its parts end when they are
drained, or when one of them fails: then every caller that waits for the session gets the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
from anyio import get_cancelled_exc_class
from anyio.lowlevel import cancel_shielded_checkpoint, current_token

from stoker.errors import SessionClosed, SessionError, SessionFailed
from stoker.exits import Contained, wait_to_the_end
from stoker.recorders import Outcome, Recording
from stoker.replies import Reply
from stoker.runs import TrainingRun
from stoker.runs.events import CheckpointWritten
from stoker.session.eventlog import EventLog, disk_filled, ending_of
from stoker.session.events import Event
from stoker.session.learner import Learner
from stoker.session.parts import Evaluations, Parts
from stoker.session.timing import DELIVERING, HANDOVER, SAVING, WAITING
from stoker.session.watching import Watch
from stoker.telemetry import span_of
from stoker.threads import CallSoon, DedicatedThread, call_soon_here

_CANCELLED = "its task was cancelled; close the session before its event loop ends"
_FINISHING = ("writer", "recorders", "watch")
"""What finishes when another part has died: the writer and the recorders, under the watch."""

AWAY_S = 5e-3
"""How long the learner takes new events by itself before it reports results to the event loop."""


class Consumer:
    """Empties the event queue into the learner, and the learner into the writer."""

    def __init__(self, parts: Parts, evaluations: Evaluations, recording: Recording) -> None:
        self._parts = parts
        self._evaluations = evaluations
        self._recording = recording
        self._learner, self._thread = parts.learner, parts.thread
        self._publishing: Reply[None] | None = None

    async def run(self) -> None:
        """Consume until the queue is closed and empty; then save, unless that is done already.

        An error of the agent comes out when the results of everything before it are delivered.
        """
        learner = self._learner
        await self._deliver()
        if learner.is_checkpoint_due:  # what a resume has learned again is not to be learned a third time
            await self._save()
        clock = learner.clock
        while True:
            clock.enter(WAITING)
            if not (batch := await self._parts.queue.take(learner.n_unhurried)):
                break
            clock.enter(HANDOVER)
            while batch or learner.is_checkpoint_due:
                if learner.is_checkpoint_due:
                    await self._save()
                else:
                    batch = await self._learn(batch)
        learner.finish()
        if learner.is_checkpoint_due:
            await self._save()
        await self._write_counters()

    async def _learn(self, batch: Sequence[Event]) -> Sequence[Event]:
        """Let the learner process events; return those left over."""
        try:
            with Contained("the agent"):
                if self._learner.is_brief(batch):
                    rest = self._learner.process(batch)
                    self._learner.abandon_vanished()
                else:
                    rest = await self._thread.run(self._process, batch, call_soon_here())
        except Exception:
            await self._deliver()  # what came before the failure is whole
            raise
        await self._deliver()
        return rest

    def _process(self, batch: Sequence[Event], call_soon: CallSoon) -> Sequence[Event]:
        """In the learner's thread: process a batch, and for a while the events that arrived meanwhile.

        This keeps the learner busy while the event loop is.
        """
        learner, queue = self._learner, self._parts.queue
        until = time.monotonic() + AWAY_S
        while True:
            rest = learner.process(batch)
            if rest or learner.is_checkpoint_due or learner.outbox.is_awaited or time.monotonic() >= until:
                break
            batch = queue.take_now()
            if not batch:
                break
            if queue.n_waiting:
                call_soon(queue.refill)
        learner.abandon_vanished()
        return rest

    async def _save(self) -> None:
        """Copy the state, once the copy before is on disk: there is room for one, however slow the disk."""
        clock = self._learner.clock
        if self._publishing is not None:
            clock.enter(SAVING)
            with self._parts.replies.waiting(self._publishing):
                await self._publishing.wait()
        clock.enter(HANDOVER)
        self._publishing = await self._thread.run(self._learner.stage_checkpoint)
        await self._deliver()

    async def _deliver(self) -> None:
        """Deliver the results of the events: to callers, then to the writer, the journal before the rows."""
        self._learner.clock.enter(DELIVERING)
        parts, writer, outbox = self._parts, self._parts.writer, self._learner.take_outbox()
        for total_steps, record in outbox.records:
            self._recording.put(total_steps, record)
        if outbox.has_ended:
            parts.intake.end()
        if outbox.evaluation is not None:
            self._evaluations.put_due(outbox.evaluation)
        self._evaluations.records.extend(outbox.evaluated)
        for reply, value in outbox.answers:
            reply.set(value)
        for log, data in outbox.journal:
            await (writer.retire(log) if data is None else writer.append_data(log, data))
        for log, rows in outbox.rows.items():
            await writer.append_rows(log, rows)
        writer.note(self._learner.counts)
        if outbox.rows or outbox.flushes or outbox.checkpoint:
            await self._write_counters()
        if outbox.flushes:
            parts.events.hand_over()
            await writer.flush(*outbox.flushes)
        if outbox.checkpoint is not None and parts.run is not None:
            step, state, reply = outbox.checkpoint
            work = partial(self._publish, parts.run, state, step)
            await writer.submit(work, reply, name=f"writing step_{step}.pt")
        if parts.intake.is_full:  # ``max_steps`` was reached; that wakes no caller
            self._evaluations.wake()
        parts.pacing.moved()

    def _publish(self, run: TrainingRun, state: Mapping[str, Any], step: int) -> None:
        """Write a staged checkpoint. In the writer's thread."""
        parts, began = self._parts, time.monotonic()
        with span_of(parts.spans, "stoker.checkpoint", {"rl.step": step}):
            n_bytes = run.publish_step(state, step, parts.retention)
        took_s = time.monotonic() - began
        parts.n_checkpoints += 1
        parts.checkpointed_at = time.time()
        parts.events.note(CheckpointWritten(step=step, n_bytes=n_bytes, took_s=took_s))

    async def _write_counters(self) -> None:
        if (run := self._parts.run) is not None:
            learner, best = self._learner, self._evaluations.saved_best
            run.metadata = run.counted(learner.total_steps, learner.total_episodes, best)
            await self._parts.writer.replace(run.metadata_path, run.metadata)


class Engine:
    """Runs the parts of a session on one event loop.

    Args:
        learner: what learns, restored.
        recording: where records go, open.
        thread: the learner's, which the engine closes.
        events: of the attempt, which has begun; the engine ends it.
        ended: set by the host when the engine has ended and agent and run are free.
    """

    def __init__(
        self,
        learner: Learner,
        recording: Recording,
        thread: DedicatedThread,
        events: EventLog,
        ended: anyio.Event,
    ) -> None:
        self.parts: Parts = Parts(learner, thread, events)
        parts = self.parts
        self.evaluations: Evaluations = Evaluations(parts)
        self.is_settled: bool = False
        """Whether the engine has ended and no thread of it uses the agent or the run any more."""
        self._recording = recording
        self._ended = ended
        self._loop, self._call_soon = current_token(), call_soon_here()
        for name, clock in recording.clocks.items():
            learner.metrics.clocks.add(f"recorder.{re.sub('[^A-Za-z0-9.-]', '-', name)}", clock)
        consumer = Consumer(parts, self.evaluations, recording)
        parts.intake.on_end += (parts.pacing.moved, self.evaluations.wake)
        self._tasks: dict[str, tuple[Callable[[], Awaitable[None]], anyio.Event]] = {
            "agent": (consumer.run, parts.drained),
            "writer": (parts.writer.run, parts.written),
            "policy": (parts.inference.run, anyio.Event()),
            "watch": (Watch(parts, self.fail).run, anyio.Event()),
            "recorders": (recording.run, anyio.Event()),
        }
        self._shields: dict[str, anyio.CancelScope] = {}
        self._ending = anyio.Event()
        self._ended_by: BaseException | None = None
        self._on_failure: Callable[[SessionFailed], object] = lambda _: None

    async def live(self) -> None:
        """Run all parts until ``end`` or a failure; then drain, make durable, save, and end them.

        Cancelled, which happens when the event loop ends, it does the same as far as its parts still can.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for part in self._tasks:
                    tasks.start_soon(self._guarded, part)
                with contextlib.suppress(get_cancelled_exc_class()):
                    await self._ending.wait()
                self.end()
                try:
                    # Against the event loop's end, and the group's: a part that is cancelled ends the others.
                    with anyio.CancelScope(shield=True):
                        await cancel_shielded_checkpoint()
                        self._give_up_unborn()
                        await self._wind_down()
                finally:
                    for shield in self._shields.values():
                        shield.cancel()
        except GeneratorExit:  # the event loop was dropped
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the session is closed
            self.fail("session", _cause(error))
        self.parts.ended_at = time.monotonic()
        await wait_to_the_end(self._settle)
        self.parts.thread.close()

    def end(self, error: BaseException | None = None) -> None:
        """Let ``live`` wind down, because of this error or because it is time; once."""
        if not self._ending.is_set():
            self._ended_by = error
            self._ending.set()

    def end_soon(self) -> None:
        """The same, from any thread; ``RuntimeError`` if the event loop has ended."""
        self._call_soon(self.end)

    async def close(self, error: BaseException | None = None) -> None:
        """Let ``live`` wind down, wait for the end, also when cancelled, and raise the failure.

        Args:
            error: the error that ended the block of ``async with``.
        """
        if not self._ended.is_set():
            if current_token() != self._loop:
                raise SessionError("close: this session was opened on another event loop; close it there")
            self.end(error)
            await wait_to_the_end(self._ended.wait)
        if self.parts.failure is not None:
            raise SessionFailed(*self.parts.failure)

    def when_failed(self, call: Callable[[SessionFailed], object]) -> None:
        """Call this, on the event loop, when a part has failed; at once if one has."""
        self._on_failure = call
        if self.parts.failure is not None:
            call(SessionFailed(*self.parts.failure))

    def fail(self, part: str, error: BaseException) -> None:
        """End the session with this cause, the first one if there are several.

        The writer, unless it is the one that died, still makes durable what it was handed.
        """
        parts = self.parts
        if parts.failure is not None:
            if part == "writer" and part in self._shields:  # it was to finish, and cannot
                self._shields["writer"].cancel()
            return
        parts.failure = (part, error)
        if (filled := disk_filled(error)) is not None:
            parts.events.note(filled)

        def failed() -> SessionFailed:
            return SessionFailed(part, error)

        parts.pacing.moved()
        parts.queue.close(failed)
        parts.inference.close(failed)
        parts.writer.close(failed)
        parts.replies.fail(failed)
        self.evaluations.wake()
        for name, shield in self._shields.items():
            if name == part or name not in _FINISHING:
                shield.cancel()
        self.end()
        self._on_failure(failed())

    async def _guarded(self, part: str) -> None:
        """Run a part until it is done or its shield is cancelled."""
        run, done = self._tasks[part]
        with anyio.CancelScope(shield=True) as shield:
            self._shields[part] = shield
            try:
                with Contained(f"the {part}"):
                    await run()
            except GeneratorExit:  # the event loop was dropped
                raise
            except BaseException as error:
                # Inside the shield only its own cancel() may cancel; any other CancelledError is the part's
                # own, or a native one: the part is dead.
                cause = _cause(error)
                if cause is not error and shield.cancel_called:
                    raise
                self.fail(part, cause)
            finally:
                done.set()

    def _give_up_unborn(self) -> None:
        """On asyncio, a task that is cancelled before its first step never takes it."""
        for part in self._tasks.keys() - self._shields.keys():
            self._tasks[part][1].set()
            self.fail(part, SessionError(_CANCELLED))

    async def _wind_down(self) -> None:
        """Drain the queue into the learner, the learner into the writer, the writer onto the disk."""
        parts = self.parts
        parts.queue.close(lambda: SessionClosed("observe", entered=True))
        parts.pacing.moved()
        await parts.drained.wait()  # the watch ends it, should nothing move
        self.evaluations.wake()
        parts.writer.close(lambda: SessionClosed("write", entered=True))
        await parts.written.wait()
        await self._recording.close(self._outcome())
        await self._tasks["recorders"][1].wait()
        parts.inference.close(lambda: SessionClosed("act", entered=True))
        parts.replies.fail(lambda: SessionClosed("wait", entered=True))

    def _outcome(self) -> Outcome:
        error = self._ended_by
        if self.parts.failure is not None:
            return "failed"
        if error is None:
            return "stopped" if self.parts.intake.is_stopped else "finished"
        stops = (KeyboardInterrupt, SystemExit, get_cancelled_exc_class())
        return "stopped" if isinstance(error, stops) else "failed"

    async def _settle(self) -> None:
        """Record how the attempt ended, as its last row.

        After a failure, wait for calls that may still run, but not forever: the agent is read next.
        """
        parts, limit_s = self.parts, self.parts.config.stall_timeout_s
        has_failed = parts.failure is not None
        is_written = await parts.writer.settle(limit_s) if has_failed else True
        # Behind a write that hangs, the last rows would wait for as long as it does.
        ending = ending_of(self._outcome(), parts.failure or (None, self._ended_by), parts.events.signal)
        is_written = is_written and await parts.events.end(ending)
        self.is_settled = is_written and (not has_failed or await parts.thread.settle(limit_s))


def _cause(error: BaseException) -> BaseException:
    """The error; a cancellation from outside the session becomes a ``SessionError``."""
    if not isinstance(error, (get_cancelled_exc_class(), asyncio.CancelledError)):
        return error
    cause = SessionError(_CANCELLED)
    cause.__cause__ = error
    return cause
