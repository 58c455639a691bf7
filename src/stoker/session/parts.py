"""The parts of a running session, each whole when constructed; none of them knows the others' owner."""

from __future__ import annotations

from typing import NamedTuple

from stoker.queues import BatchQueue
from stoker.replies import OpenReplies
from stoker.session.events import Event
from stoker.session.inference import Inference
from stoker.session.intake import Intake
from stoker.session.learner import Learner
from stoker.session.pacing import Pacing
from stoker.threads import DedicatedThread
from stoker.types import ActorId
from stoker.writer import Writer

__all__ = ["Parts"]


class Parts(NamedTuple):
    """What the session task, the watch and ``health`` look at and work with.

    Attributes:
        learner: what learns, in ``thread``.
        thread: the learner's.
        queue: events on their way to the learner.
        intake: what is accepted into the queue.
        inference: forward passes for those who act.
        pacing: who may begin an action.
        writer: rows, journal and checkpoints on their way to the disk.
        replies: answers of the learner and the writer that callers wait for.
        supervised: actors whose silence somebody else watches.
        waited_at: when actors were last seen waiting for the session, in monotonic seconds.
    """

    learner: Learner
    thread: DedicatedThread
    queue: BatchQueue[Event]
    intake: Intake
    inference: Inference
    pacing: Pacing
    writer: Writer
    replies: OpenReplies
    supervised: set[ActorId]
    waited_at: dict[ActorId, float]
