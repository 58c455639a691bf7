"""The session task: takes events out of the queue, lets the learner process them, and delivers the effects.

event queue --> learner (in its own thread) --> rows, journal, checkpoints --> writer
                                            --> answers, evaluations --------> waiting callers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

import anyio

from stoker.exits import Contained
from stoker.recorders import Recording
from stoker.replies import Reply
from stoker.runs import Retention, TrainingRun
from stoker.session.events import (
    Answered,
    CheckpointStaged,
    Effect,
    EvaluationDue,
    Event,
    FlushRequested,
    JournalWritten,
    LimitReached,
    Recorded,
    RowReady,
)
from stoker.session.parts import Parts
from stoker.session.policies import PolicySnapshot
from stoker.threads import CallSoon, call_soon_here
from stoker.writer import AppendLog, RowLog

__all__ = ["Consumer"]

AWAY_S = 5e-3
"""How long the learner takes new events by itself before it reports effects to the event loop."""


class Consumer:
    """Empties the event queue into the learner, and the learner into the writer.

    Args:
        parts: the session's; the queue is emptied, the writer filled.
        run: where rows and checkpoints go; None: nowhere.
        retention: which checkpoints of the run are kept.
        recording: where records of the metrics go, beside the run.
        saved_best: the best evaluated mean and its step, as far as that policy is on disk.
    """

    def __init__(
        self,
        parts: Parts,
        run: TrainingRun | None,
        retention: Retention,
        recording: Recording,
        saved_best: Callable[[], tuple[float, int] | None],
    ) -> None:
        self.due: PolicySnapshot | None = None
        """The newest snapshot that is to be evaluated."""
        self.due_changed = anyio.Event()
        self._parts = parts
        self._learner, self._writer, self._thread = parts.learner, parts.writer, parts.thread
        self._run = run
        self._retention = retention
        self._recording = recording
        self._saved_best = saved_best
        self._publishing: Reply[None] | None = None

    async def run(self) -> None:
        """Consume until the queue is closed and empty; then save, unless that is done already.

        Raises:
            Exception: What the agent raised; everything before is handed on.
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

    def wake_evaluators(self) -> None:
        """Let the callers of ``next_evaluation`` look again: a snapshot is due, or the session is done."""
        self.due_changed.set()
        self.due_changed = anyio.Event()

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
            if rest or learner.is_checkpoint_due or learner.has_effects or time.monotonic() >= until:
                break
            batch = queue.take_now()
            if not batch:
                break
            if queue.n_waiting:
                call_soon(queue.refill)
        learner.forget_vanished()
        return rest

    async def _save(self) -> None:
        """Copy the state, once the copy before is on disk: there is room for one, however slow the disk."""
        if self._publishing is not None:
            with self._parts.replies.waiting(self._publishing):
                await self._publishing.wait()
        await self._thread.run(self._learner.stage_checkpoint)
        await self._deliver()

    async def _deliver(self) -> None:
        """Deliver the effects of the events.

        Rows and journal go to the writer together; a flush waits for all of them.
        """
        run, writer = self._run, self._writer
        some = _WriteBatch()
        effect: Effect
        for effect in self._learner.take_effects():
            match effect:
                case RowReady(log, row):
                    some.rows.setdefault(log, []).append(row)
                case JournalWritten(log, data) if data is not None:
                    some.journal.setdefault(log, []).append(data)
                case FlushRequested(reply):
                    some.flushes.append(reply)
                case JournalWritten(log, _):
                    some = await self._hand_over(some)
                    await writer.retire(log)
                case CheckpointStaged(staged, step, reply):
                    if run is not None:
                        some = await self._hand_over(some)
                        await self._write_counters()
                        self._publishing = Reply() if reply is None else reply
                        work = partial(run.publish_step, staged, step, self._retention)
                        await writer.submit(work, self._publishing, name=f"writing step_{step}.pt")
                case Recorded(total_steps, record):
                    self._recording.put(total_steps, record)
                case LimitReached():
                    self._parts.intake.end()
                case Answered(reply, value):
                    reply.set(value)
                case EvaluationDue(snapshot):
                    self.due = snapshot
                    self.wake_evaluators()
                case _:
                    assert_never(effect)
        await self._hand_over(some)
        if self._parts.intake.is_full:  # ``max_steps`` was reached; that wakes no caller
            self.wake_evaluators()
        self._parts.pacing.moved()

    async def _hand_over(self, some: _WriteBatch) -> _WriteBatch:
        """Give the writer what has come together, the journal before the rows; return an empty one."""
        writer = self._writer
        for log, pieces in some.journal.items():
            await writer.append_data(log, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        for log, rows in some.rows.items():
            await writer.append_rows(log, rows)
        if some.rows or some.flushes:
            await self._write_counters()
        if some.flushes:
            await writer.flush(*some.flushes)
        return _WriteBatch()

    async def _write_counters(self) -> None:
        if (run := self._run) is not None:
            learner = self._learner
            run.metadata = run.counted(learner.total_steps, learner.total_episodes, self._saved_best())
            await self._writer.replace(run.metadata_path, run.metadata)


class _WriteBatch:
    """What the writer is given at once."""

    def __init__(self) -> None:
        self.journal: dict[AppendLog, list[bytes]] = {}
        self.rows: dict[RowLog, list[Any]] = {}
        self.flushes: list[Reply[None]] = []
