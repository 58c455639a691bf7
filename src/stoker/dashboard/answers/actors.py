"""The actors of a run as a table: what the last episodes of each were, and how fast it plays."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.paging import Page
from stoker.runs.history import RunHistory
from stoker.types import ActorId

ActorSort: TypeAlias = Literal[
    "actor_id", "n_episodes", "n_steps", "mean_reward", "max_reward", "mean_length", "steps_per_s", "last_at"
]
ACTOR_SORTS: Final[tuple[ActorSort, ...]] = get_args(ActorSort)

_WINDOW = 100
_MOST_ROWS = 200_000
"""The rows from the end of the table that windows are made of, which takes some ten milliseconds."""


class ActorLine(msgspec.Struct, frozen=True):
    """One actor.

    Attributes:
        actor_id: its name.
        n_episodes, n_steps: all its training episodes, and their transitions.
        mean_reward, max_reward, mean_length: of its last 100 episodes.
        steps_per_s: from the end of the first of these to that of the last; None: there is no such time.
        last_at: when its last episode ended, in POSIX seconds.
    """

    actor_id: ActorId
    n_episodes: int
    n_steps: int
    mean_reward: float
    max_reward: float
    mean_length: float
    steps_per_s: float | None
    last_at: float


def actors_answer(
    history: RunHistory,
    sort: ActorSort = "last_at",
    *,
    is_descending: bool = True,
    text: str = "",
    rows: slice = slice(50),
) -> Page[ActorLine]:
    """A page of the actors that ended one of the run's last 200,000 training episodes.

    Args:
        history: the run.
        sort: the column; names are compared as texts.
        is_descending: the largest first.
        text: what an actor's name must contain.
        rows: those of the page.
    """
    lines = [line for line in _lines(history) if text.lower() in str(line.actor_id).lower()]
    if sort == "actor_id":
        lines.sort(key=lambda line: str(line.actor_id), reverse=is_descending)
    else:
        lines.sort(key=lambda line: getattr(line, sort) or 0.0, reverse=is_descending)
    return Page(len(lines), lines[rows])


def _lines(history: RunHistory) -> list[ActorLine]:
    table = history.train
    rows = np.arange(table.n_rows, dtype=np.intp)[history.effective(table)]
    codes, known = table.codes("actor_id")
    of_all, lengths = codes[rows], table.column("length")
    n_episodes = np.bincount(of_all, minlength=len(known))
    n_steps = np.bincount(of_all, lengths[rows], len(known))
    rows = rows[-_MOST_ROWS:]
    rows = rows[np.argsort(codes[rows], kind="stable")]  # of each actor in order
    ends = np.cumsum(np.bincount(codes[rows], minlength=len(known)))
    rows = rows[ends[codes[rows]] - np.arange(len(rows)) <= _WINDOW]
    actors = codes[rows]
    counts = np.bincount(actors, minlength=len(known))
    there = np.flatnonzero(counts)
    lasts = np.cumsum(counts[there]) - 1
    firsts = lasts - counts[there] + 1
    rewards, steps, times = (table.column(name)[rows] for name in ("total_reward", "length", "time"))

    def sums(values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(actors, values, len(known))[there]

    took_s = times[lasts] - times[firsts]
    with np.errstate(divide="ignore", invalid="ignore"):
        speeds = np.where(took_s > 0, (sums(steps) - steps[firsts]) / took_s, np.nan)
    columns: dict[str, NDArray[Any]] = {
        "n_episodes": n_episodes[there],
        "n_steps": n_steps[there].astype(np.int64),
        "mean_reward": sums(rewards) / counts[there],
        "max_reward": np.maximum.reduceat(rewards, firsts) if len(rows) else rewards,
        "mean_length": sums(steps) / counts[there],
        "steps_per_s": speeds,
        "last_at": times[lasts] if len(rows) else times,
    }
    values = [[None if value != value else value for value in column.tolist()] for column in columns.values()]
    return [
        ActorLine(known[code], **dict(zip(columns, line, strict=True)))
        for code, *line in zip(there.tolist(), *values, strict=True)
    ]
