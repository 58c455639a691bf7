"""The events that the session task takes in, and the outbox in which the learner leaves the results.

An ``Experience`` is an event itself: wrapping each one would cost more than accepting it. Everything else
that must keep its place among the experiences is a struct here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from stoker.journal import JournalEvent
from stoker.replies import Reply
from stoker.session.publishing import PolicySnapshot
from stoker.stats import EpisodeRecord
from stoker.types import ExperienceBatch
from stoker.writer import AppendLog, RowLog


class EvalEpisodeEnded(msgspec.Struct, frozen=True):
    """An episode of the policy as of ``total_steps``; None: as of this place among the events."""

    record: EpisodeRecord
    total_steps: int | None


class MetricsGiven(msgspec.Struct, frozen=True):
    """A record by itself, of ``total_steps``; None: of this place among the events."""

    record: Mapping[str, Any]
    total_steps: int | None


RequestKind = Literal["barrier", "flush", "checkpoint", "snapshot"]
"""What a request waits for, of everything before it: that it is learned and the policy published, that it is
durable, that a checkpoint of this point is on disk, or the policy of this point."""


class Request(msgspec.Struct, frozen=True):
    """A caller waits for an answer."""

    kind: RequestKind
    reply: Reply[Any]


class OptimizationDone(NamedTuple):
    """How many optimization steps were done, and whether no more can be: the next one was skipped."""

    n_done: int
    is_over: bool


class OptimizationRequested(msgspec.Struct, frozen=True):
    """Up to ``n`` optimization steps on what the agent has observed, at least one."""

    n: int
    reply: Reply[OptimizationDone]


Event = JournalEvent | ExperienceBatch | EvalEpisodeEnded | MetricsGiven | Request | OptimizationRequested


class Outbox(msgspec.Struct):
    """What the learner leaves for the writer and for waiting callers; all of it is of the events so far.

    Attributes:
        journal: bytes for the journal's segments, in order; None: the segment is complete.
        rows: rows by log, in order.
        flushes: answered when everything before them is durable.
        checkpoint: if one was staged: its step, all that a resume needs, and the reply; behind all else.
        records: records of the metrics with their step, for the recorders.
        evaluation: the newest policy that is due to be evaluated.
        evaluated: episodes of numbered streams that score the policy, with the steps of that.
        answers: replies with their values.
        has_ended: whether ``max_opts`` was reached.
    """

    journal: list[tuple[AppendLog, bytes | None]] = []
    rows: dict[RowLog, list[msgspec.Struct]] = {}
    flushes: list[Reply[None]] = []
    checkpoint: tuple[int, Mapping[str, Any], Reply[None]] | None = None
    records: list[tuple[int, Mapping[str, Any]]] = []
    evaluation: PolicySnapshot | None = None
    evaluated: list[tuple[int, EpisodeRecord]] = []
    answers: list[tuple[Reply[Any], Any]] = []
    has_ended: bool = False

    @property
    def is_awaited(self) -> bool:
        """Whether there is something that a caller or a recorder may wait for, beyond the journal."""
        results = (self.rows, self.flushes, self.checkpoint, self.records, self.evaluation, self.answers)
        return self.has_ended or any(results)


def n_events_of(event: Event) -> int:
    """How many events it stands for: a batch for each of its transitions."""
    return len(event) if isinstance(event, ExperienceBatch) else 1
