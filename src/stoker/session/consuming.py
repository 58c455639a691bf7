"""The session task: takes events out of the queue, lets the learner process them, and delivers the results.

event queue --> learner (in its own thread) --> rows, journal, checkpoints --> writer
                                            --> answers, evaluations --------> waiting callers
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from stoker.exits import Contained
from stoker.recorders import Recording
from stoker.replies import Reply
from stoker.session.evaluations import Evaluations
from stoker.session.events import Event
from stoker.session.parts import Parts
from stoker.threads import CallSoon, call_soon_here

__all__ = ["Consumer"]

AWAY_S = 5e-3
"""How long the learner takes new events by itself before it reports results to the event loop."""


class Consumer:
    """Empties the event queue into the learner, and the learner into the writer.

    Args:
        parts: the session's; the queue is emptied, the writer filled.
        evaluations: gets the policies that are due.
        recording: where records of the metrics go, beside the run.
    """

    def __init__(self, parts: Parts, evaluations: Evaluations, recording: Recording) -> None:
        self._parts = parts
        self._evaluations = evaluations
        self._recording = recording
        self._learner, self._thread = parts.learner, parts.thread
        self._publishing: Reply[None] | None = None

    async def run(self) -> None:
        """Consume until the queue is closed and empty; then save, unless that is done already.

        Raises:
            Exception: The error of the agent; the results of everything before it are delivered.
        """
        learner = self._learner
        await self._deliver()
        while batch := await self._parts.queue.take():
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
            if rest or learner.is_checkpoint_due or learner.is_awaited or time.monotonic() >= until:
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
        if self._publishing is not None:
            with self._parts.replies.waiting(self._publishing):
                await self._publishing.wait()
        self._publishing = await self._thread.run(self._learner.stage_checkpoint)
        await self._deliver()

    async def _deliver(self) -> None:
        """Deliver the results of the events: to callers, then to the writer, the journal before the rows."""
        parts, writer, outbox = self._parts, self._parts.writer, self._learner.take_outbox()
        for total_steps, record in outbox.records:
            self._recording.put(total_steps, record)
        if outbox.has_ended:
            parts.intake.end()
        if outbox.evaluation is not None:
            self._evaluations.put_due(outbox.evaluation)
        for reply, value in outbox.answers:
            reply.set(value)
        for log, data in outbox.journal:
            await (writer.retire(log) if data is None else writer.append_data(log, data))
        for log, rows in outbox.rows.items():
            await writer.append_rows(log, rows)
        if outbox.rows or outbox.flushes or outbox.checkpoint:
            await self._write_counters()
        if outbox.flushes:
            await writer.flush(*outbox.flushes)
        if (checkpoint := outbox.checkpoint) is not None and parts.run is not None:
            work = partial(parts.run.publish_step, checkpoint.state, checkpoint.step, parts.retention)
            await writer.submit(work, checkpoint.reply, name=f"writing step_{checkpoint.step}.pt")
        if parts.intake.is_full:  # ``max_steps`` was reached; that wakes no caller
            self._evaluations.wake()
        parts.pacing.moved()

    async def _write_counters(self) -> None:
        if (run := self._parts.run) is not None:
            learner = self._learner
            run.metadata = run.counted(
                learner.total_steps, learner.total_episodes, self._evaluations.saved_best
            )
            await self._parts.writer.replace(run.metadata_path, run.metadata)
