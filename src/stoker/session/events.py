"""What goes into the session task, and what comes out of the learner.

An ``Experience`` is an event by itself: wrapping each one would cost more than accepting it. Everything
else that must keep its place among the experiences is a struct here. What the learner hands back is in the
order in which it came about; the session task passes it on to the writer and to those who wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.replies import Reply
from stoker.runs import EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.session.policies import PolicySnapshot
from stoker.stats import EpisodeRecord
from stoker.types import Experience
from stoker.writer import AppendLog, RowLog

__all__ = [
    "Answered",
    "BarrierRequested",
    "CheckpointRequested",
    "CheckpointStaged",
    "Effect",
    "EpisodeEnded",
    "EpisodeStarted",
    "EvalEpisodeEnded",
    "EvaluationDue",
    "Event",
    "FlushRequested",
    "JournalWritten",
    "LimitReached",
    "MetricsGiven",
    "OptimizationRequested",
    "Recorded",
    "RowReady",
    "SnapshotRequested",
]


class EvalEpisodeEnded(msgspec.Struct, frozen=True):
    """An episode of the policy as it was at ``total_steps``; as it is in this place, if None."""

    record: EpisodeRecord
    total_steps: int | None


class FlushRequested(msgspec.Struct, frozen=True):
    """Everything before this is to be consumed and durable before the reply."""

    reply: Reply[None]


class BarrierRequested(msgspec.Struct, frozen=True):
    """Everything before this is to be consumed, and its policy published, before the reply."""

    reply: Reply[None]


class CheckpointRequested(msgspec.Struct, frozen=True):
    """A checkpoint of this very point is to be published before the reply."""

    reply: Reply[None]


class SnapshotRequested(msgspec.Struct, frozen=True):
    """The policy of this very point is wanted."""

    reply: Reply[PolicySnapshot]


class MetricsGiven(msgspec.Struct, frozen=True):
    """A record by itself, of ``total_steps``; of this place, if None."""

    record: Mapping[str, Any]
    total_steps: int | None


class OptimizationRequested(msgspec.Struct):
    """So many optimization steps are to be done, on what the agent has; the reply says how many were."""

    remaining: int
    reply: Reply[int]
    done: int = 0


Event = (
    Experience
    | EpisodeStarted
    | EpisodeEnded
    | EvalEpisodeEnded
    | FlushRequested
    | BarrierRequested
    | CheckpointRequested
    | SnapshotRequested
    | OptimizationRequested
    | MetricsGiven
)


class Answered(msgspec.Struct, frozen=True):
    """The answer to a request, when everything before it has been consumed."""

    reply: Reply[Any]
    value: Any


class RowReady(msgspec.Struct, frozen=True):
    """A row for one of the run's logs."""

    log: RowLog
    row: TrainEpisodeRow | EvalEpisodeRow | MetricsRow


class JournalWritten(msgspec.Struct, frozen=True):
    """Bytes for a segment of the journal; None: the segment is complete."""

    log: AppendLog
    data: bytes | None


class CheckpointStaged(msgspec.Struct, frozen=True):
    """A copy of everything that a resume needs, as of ``step``."""

    staged: Mapping[str, Any]
    step: int
    reply: Reply[None] | None


class EvaluationDue(msgspec.Struct, frozen=True):
    """A multiple of ``eval_freq`` was reached; this is the policy of that step."""

    snapshot: PolicySnapshot


class Recorded(msgspec.Struct, frozen=True):
    """A record of the metrics, for the recorders."""

    total_steps: int
    record: Mapping[str, Any]


class LimitReached(msgspec.Struct, frozen=True):
    """``max_opts`` optimization steps are done."""


Effect = (
    Answered
    | FlushRequested
    | RowReady
    | JournalWritten
    | CheckpointStaged
    | EvaluationDue
    | Recorded
    | LimitReached
)
