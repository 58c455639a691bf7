"""What a run says of itself, and one row per episode.

Rows are tied to attempts: a run that was killed and resumed goes back to its last checkpoint, and the rows
that the killed attempt wrote after it belong to an abandoned future. ``effective`` tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from stoker.types import ActorId, EpisodeStatus

__all__ = [
    "Attempt",
    "EvalEpisodeRow",
    "MetricsRow",
    "RunMetadata",
    "TrainEpisodeRow",
    "counting",
    "effective",
    "now",
]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One process's part of a run.

    Attributes:
        number: 1 for the first, one more for each resume.
        started_at: when it began.
        from_steps: ``total_steps`` of the checkpoint that it began from.
        from_episodes: ``total_episodes`` of that checkpoint.
        from_events: how many events of the journal were consumed before that checkpoint.
        from_opt_steps: how many optimization steps were done before it; None: not known.
    """

    number: int
    started_at: datetime
    from_steps: int = 0
    from_episodes: int = 0
    from_events: int = 0
    from_opt_steps: int | None = None


class RunMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``metadata.json``.

    Attributes:
        name, version, run_id: the run's place below the runs directory.
        total_steps: environment steps, ever.
        total_episodes: finished training episodes, ever.
        started_at, last_updated: RFC 3339, UTC.
        best_value: the highest mean reward that was evaluated, if any.
        best_step: ``total_steps`` of the policy that reached it.
        attempts: one entry for each process that worked on the run.
        forked_from: the directory of the run that this one was forked from, if any.
        forked_at_step: ``total_steps`` of the checkpoint that it began with.
    """

    name: str
    version: str
    run_id: str
    total_steps: int = 0
    total_episodes: int = 0
    started_at: datetime
    last_updated: datetime
    best_value: float | None = None
    best_step: int | None = None
    attempts: tuple[Attempt, ...]
    forked_from: str | None = None
    forked_at_step: int | None = None


class TrainEpisodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``train_episodes.jsonl``.

    Attributes:
        total_reward: undiscounted sum over the episode.
        length: environment steps in the episode.
        status: Terminated or Truncated.
        extras: what the environment and the agent had to say about it.
        total_steps: environment steps consumed in the run when the episode ended.
        episode: its number in the run, from 1.
        actor_id: who played it.
        time: when it ended, RFC 3339, UTC.
        attempt: which attempt of the run it belongs to.
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


class EvalEpisodeRow(msgspec.Struct, frozen=True, kw_only=True):
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


class MetricsRow(msgspec.Struct, frozen=True, kw_only=True):
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


Row = TypeVar("Row", TrainEpisodeRow, EvalEpisodeRow, MetricsRow)


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def effective(rows: Iterable[Row], attempts: Sequence[Attempt]) -> list[Row]:
    """The rows that count: without those that an attempt wrote beyond where the next one began."""
    return list(filter(counting(attempts), rows))


def counting(attempts: Sequence[Attempt]) -> Callable[[TrainEpisodeRow | EvalEpisodeRow | MetricsRow], bool]:
    """Tells of a row whether it counts, in the history of these attempts."""
    # The lowest point that any later attempt went back to, for each attempt.
    steps: dict[int, int] = {}
    episodes: dict[int, int] = {}
    opt_steps: dict[int, int] = {}
    lowest_steps = lowest_episodes = lowest_opts = 1 << 62
    for attempt in sorted(attempts, key=lambda attempt: attempt.number, reverse=True):
        steps[attempt.number] = lowest_steps
        episodes[attempt.number] = lowest_episodes
        opt_steps[attempt.number] = lowest_opts
        lowest_steps = min(lowest_steps, attempt.from_steps)
        lowest_episodes = min(lowest_episodes, attempt.from_episodes)
        if attempt.from_opt_steps is not None:
            lowest_opts = min(lowest_opts, attempt.from_opt_steps)

    def counts(row: TrainEpisodeRow | EvalEpisodeRow | MetricsRow) -> bool:
        if isinstance(row, TrainEpisodeRow):
            return row.episode <= episodes.get(row.attempt, lowest_episodes)
        if isinstance(row, EvalEpisodeRow):
            return row.total_steps_at_eval <= steps.get(row.attempt, lowest_steps)
        # From a data set environment steps stand still while optimization goes on.
        is_before = row.opt_steps <= opt_steps.get(row.attempt, lowest_opts)
        return is_before and row.total_steps <= steps.get(row.attempt, lowest_steps)

    return counts
