"""The rows of a run: one per episode or record, which of them count, and the same as columns.

A row belongs to an attempt. Where a later attempt began before the end of what an earlier one recorded, the
rows behind that point are an abandoned future, and do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.runs.metadata import Attempt
from stoker.types import ActorId, EpisodeStatus


class Bound(NamedTuple):
    """A point in a run's history."""

    steps: float = math.inf
    episodes: float = math.inf
    opt_steps: float = math.inf


class TrainEpisodeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of ``train_episodes.jsonl``.

    Attributes:
        total_reward: undiscounted sum over the episode.
        length: environment steps in the episode.
        status: Terminated or Truncated.
        extras: values of the environment and the agent, by name.
        total_steps: environment steps consumed in the run when the episode ended.
        episode: its number in the run, from 1.
        actor_id: the actor that played it.
        time: when it ended, RFC 3339, UTC.
        attempt: the number of the attempt that wrote it.
    """

    total_reward: float
    length: int
    status: EpisodeStatus
    extras: dict[str, float]
    total_steps: int
    episode: int
    actor_id: ActorId
    time: datetime
    attempt: int = 1

    def is_before(self, bound: Bound) -> bool:
        """Whether the episode ended at that point or before it."""
        return self.episode <= bound.episodes


class EvalEpisodeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of ``eval_episodes.jsonl``.

    Attributes:
        total_steps_at_eval: ``total_steps`` of the policy that was evaluated.
        total_reward, length, status, extras, time, attempt: as in a training row.
    """

    total_steps_at_eval: int
    total_reward: float
    length: int
    status: EpisodeStatus
    extras: dict[str, float]
    time: datetime
    attempt: int = 1

    def is_before(self, bound: Bound) -> bool:
        """Whether the policy is of that point or before it."""
        return self.total_steps_at_eval <= bound.steps


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of ``metrics.jsonl``.

    Attributes:
        total_steps: the environment step that the record is of.
        opt_steps: optimization steps done in the run when it was made.
        metrics: its numbers and texts, by name.
        time, attempt: as in a training row.
    """

    total_steps: int
    metrics: dict[str, float | str]
    time: datetime
    attempt: int = 1
    opt_steps: int = 0

    def is_before(self, bound: Bound) -> bool:
        """Whether the record is of that point or before it.

        Training on a data set optimizes while environment steps stand still.
        """
        return (self.opt_steps <= bound.opt_steps) & (self.total_steps <= bound.steps)


Row: TypeAlias = TrainEpisodeRow | EvalEpisodeRow | MetricsRow
AnyRow = TypeVar("AnyRow", bound=Row)

ROW_FILES: dict[type[Row], str] = {
    TrainEpisodeRow: "train_episodes.jsonl",
    EvalEpisodeRow: "eval_episodes.jsonl",
    MetricsRow: "metrics.jsonl",
}
"""The file of each kind of row."""


def effective(rows: Iterable[AnyRow], attempts: Sequence[Attempt]) -> list[AnyRow]:
    """The rows that count: without those that an attempt wrote beyond the point where a later one began."""
    return list(filter(counting(attempts), rows))


def counting(attempts: Sequence[Attempt]) -> Callable[[Row], bool]:
    """A function that says whether a row counts in the history of these attempts."""
    bounds, lowest = bounds_of(attempts)
    return lambda row: row.is_before(bounds.get(row.attempt, lowest))


def bounds_of(attempts: Sequence[Attempt]) -> tuple[dict[int, Bound], Bound]:
    """Up to where the rows of each attempt count, by its number; and those of an attempt that is unknown."""
    bounds: dict[int, Bound] = {}
    lowest = Bound()  # the lowest point that any later attempt went back to
    for attempt in sorted(attempts, key=lambda attempt: attempt.number, reverse=True):
        bounds[attempt.number] = lowest
        opt_steps = math.inf if attempt.from_opt_steps is None else attempt.from_opt_steps
        began = Bound(attempt.from_steps, attempt.from_episodes, opt_steps)
        lowest = Bound(*map(min, lowest, began))
    return bounds, lowest


def loss_of(rows: Sequence[Row], attempts: Sequence[Attempt], n_counted: int) -> str | None:
    """Describe which of the rows that a checkpoint counts are missing in a file; None: no row is.

    Args:
        rows: all rows of the file.
        attempts: the attempts of the run.
        n_counted: how many rows the checkpoint counts.
    """
    counts = counting(attempts)
    there = [(line, row) for line, row in enumerate(rows, 1) if counts(row)]
    gaps = (
        line
        for number, (line, row) in enumerate(there, 1)
        if isinstance(row, TrainEpisodeRow) and row.episode != number
    )
    gap, n_lost = next(gaps, None), n_counted - len(there)
    if gap is None and n_lost <= 0:
        return None
    what = f"{n_lost:,} of {n_counted:,} rows are missing" if n_lost > 0 else "rows are out of order"
    return f"{what}, from line {gap or len(rows) + 1:,} on"


Columns = dict[str, NDArray[Any]]
"""One array per field, all of one length. An extra is the column ``extras.<key>``, a metric
``metrics.<key>``: numbers are NaN where absent; a metric that is a text anywhere is a column of objects, with
None where absent."""

MAPPINGS = ("extras", "metrics")
"""The fields whose values are columns of their own."""


class EvaluationSummary(msgspec.Struct, frozen=True):
    """Statistics over the episodes of one evaluation."""

    total_steps: int
    n_episodes: int
    mean_reward: float
    std_reward: float
    mean_length: float


def evaluations_of(rows: Columns) -> list[EvaluationSummary]:
    """The evaluations in a run's evaluation rows, in the order of their steps."""
    order = np.argsort(rows["total_steps_at_eval"], kind="stable")
    steps, starts = np.unique(rows["total_steps_at_eval"][order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    found: list[EvaluationSummary] = []
    for step, start, end in zip(steps.tolist(), starts.tolist(), ends, strict=False):
        rewards, lengths = (rows[name][order[start:end]] for name in ("total_reward", "length"))
        found.append(
            EvaluationSummary(
                step, len(rewards), float(rewards.mean()), float(rewards.std()), float(lengths.mean())
            )
        )
    return found
