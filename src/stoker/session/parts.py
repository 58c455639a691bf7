"""The parts of a running session, each whole when constructed; none of them knows the others' owner.

The best value of its evaluations is that of the run, over all attempts: what was saved as best is beaten, not
overwritten.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVarTuple

import anyio

from stoker.errors import ActorConflict, ConfigError, SessionClosed, SessionFailed
from stoker.queues import BatchQueue
from stoker.replies import OpenReplies, Reply
from stoker.runs import Retention, TrainingRun
from stoker.runs.events import BestChanged
from stoker.session.acting import Inference
from stoker.session.config import SessionConfig
from stoker.session.eventlog import EventLog
from stoker.session.events import EvalEpisodeEnded, Event, Request, RequestKind, n_events_of
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.session.pacing import LearnerProgress, Pacing
from stoker.session.publishing import PolicySnapshot
from stoker.session.workers import WorkerReports
from stoker.stats import EpisodeRecord, EvalReport
from stoker.telemetry import Buckets, Sampler, Spans, spans_here, traced
from stoker.threads import DedicatedThread, call_soon_here
from stoker.types import ActorId, Experience, ExperienceBatch
from stoker.writer import Writer

_KEPT_RECORDS = 1000
_WAITS_NS = tuple(bound * 1e6 for bound in (0.1, 0.25, 1.0, 2.5, 10.0, 25.0, 100.0, 500.0, 2500.0))

Ts = TypeVarTuple("Ts")


class Parts:
    """What the engine runs, and what consuming, evaluating, watching and reading share.

    Args:
        learner: what learns; restored, with its journal open.
        thread: the learner's.
        events: of the attempt, which has begun.

    Attributes:
        queue: events on their way to the learner.
        intake: the acceptance rule of the queue.
        inference: forward passes for actors.
        pacing: which actors may begin an action.
        writer: rows, journal and checkpoints on their way to the disk.
        replies: answers of the learner and the writer that callers wait for.
        retention: which checkpoints of the run are kept.
        failure: the part that failed first, and why.
        supervised: actors whose silence somebody else watches.
        workers: those elsewhere that host actors.
        sampler: looks at the event loop, once the watch runs.
        spans: traces the parts; None: nobody collects spans.
        observe_wait_ns: how long callers waited for room in the queue.
        n_checkpoints: checkpoints written.
        checkpointed_at: when the last one was, in seconds since 1970.
        waited_at: when actors were last seen waiting for the session, in monotonic seconds.
        drained, written: everything that was accepted has been learned; and is on disk.
    """

    def __init__(self, learner: Learner, thread: DedicatedThread, events: EventLog) -> None:
        self.learner = learner
        self.events = events
        self.thread = thread
        self.config: SessionConfig = learner.config
        config = self.config
        self.run: TrainingRun | None = learner.run
        self.queue: BatchQueue[Event] = BatchQueue(
            config.queue_capacity, consumed=lambda: learner.total_steps, size_of=n_events_of
        )
        intake = Intake(
            learner.agent,
            config,
            learner.total_steps,
            lambda: self.queue.count(Experience, ExperienceBatch),
            events.refusals,
        )
        self.intake: Intake = intake
        if not learner.may_learn:
            intake.end()
        labels = learner.labels
        names = {"rl.algorithm": labels["agent"]}
        if "run_id" in labels:
            names["rl.run.id"] = "/".join(labels[part] for part in ("name", "version", "run_id"))
        spans = spans_here(names)
        self.spans: Spans | None = spans
        if spans is not None:
            learner.trace(spans)
        self.inference: Inference = Inference(
            traced(spans, "rl.sample", learner.policies.act), config.inference
        )
        self.observe_wait_ns: Buckets = Buckets(_WAITS_NS)
        self.pacing: Pacing = Pacing(
            config.max_staleness,
            config.opt_interval,
            lambda: LearnerProgress(*learner.progress, learner.policies.version),
            lambda: intake.accepted_steps,
            config.actor_timeout_s,
            lambda: intake.is_full or self.queue.is_closed,
        )
        self.writer: Writer = Writer(
            sync_interval_s=config.flush_interval_s,
            sync_bytes=config.flush_bytes,
            replace_interval_s=config.metadata_interval_s,
            spans=spans,
        )
        self.writer.note(learner.counts, is_durable=True)
        events.connect(self.writer, call_soon_here())
        self.replies: OpenReplies = OpenReplies()
        self.retention: Retention = Retention(
            last=config.keep_checkpoints,
            every=config.keep_every,
            best=config.keep_best,
            all_journal=config.keep_journal == "all",
        )
        clocks = learner.metrics.clocks
        clocks.add("learner", learner.clock)
        clocks.add("inference", self.inference.clock)
        clocks.add("writer", self.writer.clock)
        clocks.add("checkpoints", self.writer.job_clock)
        clocks.count(
            steps=lambda: learner.total_steps,
            opt_steps=lambda: learner.opt_steps,
            passes=lambda: self.inference.n_passes,
            actions=lambda: self.inference.n_actions,
            queue_capacity=lambda: config.queue_capacity,
        )
        self.failure: tuple[str, BaseException] | None = None
        self.supervised: set[ActorId] = set()
        self.workers: WorkerReports = WorkerReports()
        self.waited_at: dict[ActorId, float] = {}
        self.sampler: Sampler | None = None
        self.drained: anyio.Event = anyio.Event()
        self.written: anyio.Event = anyio.Event()
        self.n_checkpoints = 0
        self.checkpointed_at: float | None = None
        self.first_step: int = learner.total_steps
        self.started_at: float = time.monotonic()
        self.ended_at: float = 0.0

    async def wait_for_room(
        self, counts: Mapping[ActorId, int], put: Callable[[*Ts], Awaitable[None]], *args: *Ts
    ) -> None:
        """Await the ``put`` of this many experiences of each actor, as long as the queue is full.

        Raises:
            ActorConflict: Another task waits in ``observe`` under one of these actors.
        """
        observing, began = self.intake.observing, time.perf_counter_ns()
        for actor_id in counts:
            if actor_id in observing:
                raise ActorConflict(actor_id, "observe()")
        try:
            observing.update(counts)
            await put(*args)
        finally:
            for actor_id in counts:
                observing.pop(actor_id, None)
            self.observe_wait_ns.add(time.perf_counter_ns() - began)

    async def ask(self, request: Callable[[Reply[Any]], Event]) -> Any:
        """Send an event that asks for an answer, in its place among the others, and wait for it."""
        reply: Reply[Any] = Reply()
        with self.replies.waiting(reply):
            await self.queue.put(request(reply))
            self.queue.hurry()
            return await reply.wait()

    async def request(self, kind: RequestKind) -> Any:
        """Wait until everything accepted so far is consumed, and for what else the kind says."""
        return await self.ask(lambda reply: Request(kind, reply))


class Evaluations:
    """What evaluators get and give back."""

    def __init__(self, parts: Parts) -> None:
        self.best = parts.learner.best
        """The highest mean reward that was evaluated, and the steps of the policy that reached it."""
        self.saved_best = self.best
        """The same, as far as its file is on disk: the metadata may name it."""
        self._parts = parts
        self.records: deque[tuple[int | None, EpisodeRecord]] = deque(maxlen=_KEPT_RECORDS)
        """The last episodes, each with the steps of its policy; None: of the present one."""
        self._due: PolicySnapshot | None = None
        self._changed = anyio.Event()
        self._saving = anyio.Lock()

    def put_due(self, snapshot: PolicySnapshot) -> None:
        """Give this policy to the next caller of ``next_due``; it replaces one that was not fetched."""
        self._due = snapshot
        self.wake()

    def wake(self) -> None:
        """Let the callers of ``next_due`` look again: a snapshot is due, or the session is done."""
        self._changed.set()
        self._changed = anyio.Event()

    async def next_due(self) -> PolicySnapshot | None:
        """Wait for the next snapshot that is due; the newest, if several were; None: no more will come."""
        parts = self._parts
        while self._due is None:
            if parts.failure is not None:
                raise SessionFailed(*parts.failure)
            if parts.drained.is_set():
                raise SessionClosed("next_evaluation", entered=True)
            if parts.intake.is_full and not parts.queue.is_closed:
                await parts.request("barrier")  # the events in the queue may make one due
                if self._due is None and parts.intake.is_full:
                    return None
            else:
                await self._changed.wait()
        snapshot, self._due = self._due, None
        return snapshot

    async def add(self, record: EpisodeRecord, snapshot: PolicySnapshot | None) -> None:
        """Log one episode, which was checked: of the snapshot's policy, or else of the present one."""
        steps = None if snapshot is None else snapshot.total_steps
        await self._parts.queue.put(EvalEpisodeEnded(record, steps))
        self.records.append((steps, record))

    async def save_best(self, mean: float, snapshot: PolicySnapshot | None) -> bool:
        """Keep the policy, or the present one, if it is among the best; say whether it is the very best."""
        run = self._parts.run
        async with self._saving:
            is_best = self.best is None or mean > self.best[0]
            if not is_best and (run is None or self._parts.config.keep_best == 1):
                return False
            pinned: PolicySnapshot = snapshot or await self._parts.request("snapshot")
            best = (mean, pinned.total_steps) if is_best else self.best
            if run is None:
                self.best = best
                return is_best
            value = {"value": mean, "total_steps": pinned.total_steps}
            state = {**pinned.state, "kind": "best", "best": value}
            reply: Reply[None] = Reply()
            with self._parts.replies.waiting(reply):
                work = partial(self._publish, run, state, best)
                await self._parts.writer.submit(work, reply, name="writing best.pt")
                self.best = best  # it will be published, even if this task is cancelled
                await reply.wait()
            return is_best

    def _publish(self, run: TrainingRun, state: Mapping[str, Any], best: tuple[float, int] | None) -> None:
        """Write a policy, and only then let the metadata name the best one. In the writer's thread."""
        run.publish_best(state, self._parts.retention)
        if best is not None and best != self.saved_best:
            value, step = best
            self._parts.events.note(BestChanged(value=value, step=step))
        self.saved_best = best


def report_of(
    records: Iterable[tuple[int | None, EpisodeRecord]], learner: Learner, n_episodes: int
) -> EvalReport:
    """The stats over the last episodes; records without steps are of the learner's present policy."""
    if type(n_episodes) is not int or n_episodes < 1:
        raise ConfigError(f"n_episodes={n_episodes!r}: give an int of at least 1")
    stats = learner.stats.fresh()
    last = list(records)[-n_episodes:]
    for _, record in last:
        stats.update(record)
    pinned_at = last[-1][0] if last else None
    steps = learner.total_steps if pinned_at is None else pinned_at
    return EvalReport(total_steps=steps, n_episodes=len(last), stats=stats.summary())
