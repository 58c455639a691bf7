"""The parts of a running session, each whole when constructed; none of them knows the others' owner."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio

from stoker.queues import BatchQueue
from stoker.replies import OpenReplies, Reply
from stoker.runs import Retention
from stoker.session.acting import Inference, LearnerProgress, Pacing
from stoker.session.events import Event, Request, RequestKind
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.threads import DedicatedThread
from stoker.types import ActorId, Experience
from stoker.writer import Writer

__all__ = ["Parts"]


class Parts:
    """What the engine runs, and what consuming, evaluating, watching and reading share.

    Args:
        learner: what learns; restored, with its journal open.
        thread: the learner's.

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
        waited_at: when actors were last seen waiting for the session, in monotonic seconds.
        drained, written: everything that was accepted has been learned; and is on disk.
    """

    def __init__(self, learner: Learner, thread: DedicatedThread) -> None:
        self.learner = learner
        self.thread = thread
        self.config = config = learner.config
        self.run = learner.run
        self.queue: BatchQueue[Event] = BatchQueue(
            config.queue_capacity, consumed=lambda: learner.total_steps
        )
        self.intake = intake = Intake(
            learner.agent, config, learner.total_steps, lambda: self.queue.count(Experience)
        )
        if not learner.may_learn:
            intake.end()
        self.inference = Inference(learner.policies.act, config.inference)
        self.pacing = Pacing(
            config.max_staleness,
            config.opt_interval,
            lambda: LearnerProgress(*learner.progress, learner.policies.published),
            lambda: intake.accepted_steps,
            config.actor_timeout_s,
            lambda: intake.is_full or self.queue.is_closed,
        )
        self.writer = Writer(
            sync_interval_s=config.flush_interval_s,
            sync_bytes=config.flush_bytes,
            replace_interval_s=config.metadata_interval_s,
        )
        self.replies = OpenReplies()
        self.retention = Retention(
            last=config.keep_checkpoints,
            every=config.keep_every,
            best=config.keep_best,
            all_journal=config.keep_journal == "all",
        )
        self.failure: tuple[str, BaseException] | None = None
        self.supervised: set[ActorId] = set()
        self.waited_at: dict[ActorId, float] = {}
        self.drained, self.written = anyio.Event(), anyio.Event()
        self.first_step = learner.total_steps
        self.started_at = time.monotonic()
        self.ended_at = 0.0

    async def ask(self, request: Callable[[Reply[Any]], Event]) -> Any:
        """Send an event that asks for an answer, in its place among the others, and wait for it."""
        reply: Reply[Any] = Reply()
        with self.replies.waiting(reply):
            await self.queue.put(request(reply))
            return await reply.wait()

    async def request(self, kind: RequestKind) -> Any:
        """Wait until everything accepted so far is consumed, and for what else the kind says."""
        return await self.ask(lambda reply: Request(kind, reply))
