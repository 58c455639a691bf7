"""The episodes of a run as a table: filtered, sorted, and a page of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.dashboard.answers.curves import table_of
from stoker.dashboard.answers.paging import Page
from stoker.runs.history import RunHistory
from stoker.runs.tables import RowTable
from stoker.types import ActorId

Sort: TypeAlias = Literal["episode", "total_reward", "length", "total_steps", "time"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)

_STEPS = {"train": "total_steps", "eval": "total_steps_at_eval"}


class EpisodeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which episodes, in which order.

    Attributes:
        kind: training or evaluation episodes.
        sort: the column; ``episode``: the order in which they were written.
        is_descending: the largest, or the last, first.
        status: Terminated or Truncated; "": any.
        actor: the actor, as a text; "": any.
        reward_from, reward_to: the range of rewards, both included.
        steps_from, steps_to: the range of ``total_steps``, both included.
    """

    kind: Literal["train", "eval"] = "train"
    sort: Sort = "episode"
    is_descending: bool = False
    status: str = ""
    actor: str = ""
    reward_from: float | None = None
    reward_to: float | None = None
    steps_from: float | None = None
    steps_to: float | None = None


class Episode(msgspec.Struct, frozen=True):
    """One episode; of an evaluation it has no number and no actor."""

    episode: int | None
    total_steps: int
    total_reward: float
    length: int
    status: str
    actor_id: ActorId | None
    time: float
    attempt: int
    extras: dict[str, float]


def episodes_answer(history: RunHistory, query: EpisodeQuery, rows: slice = slice(50)) -> Page[Episode]:
    """A page of the episodes that are found.

    Args:
        history: the run.
        query: which, and in which order.
        rows: those of the page.
    """
    found = episodes_found(history, query)
    table = table_of(history, query.kind)
    return Page(len(found), list(_episodes(table, query, found[rows])))


def episodes_found(history: RunHistory, query: EpisodeQuery) -> NDArray[np.intp]:
    """The places of the episodes in their table, in order."""
    table = table_of(history, query.kind)
    found = np.arange(table.n_rows, dtype=np.intp)[history.effective(table)]
    steps = _STEPS[query.kind]
    bounds = {
        "total_reward": (query.reward_from, query.reward_to),
        steps: (query.steps_from, query.steps_to),
    }
    for name, (low, high) in bounds.items():
        if low is not None:
            found = found[table.column(name)[found] >= low]
        if high is not None:
            found = found[table.column(name)[found] <= high]
    for name, wanted in (("status", query.status), ("actor_id", query.actor)):
        if wanted and name not in table.value_names:  # evaluations have no actors
            found = found[:0]
        elif wanted:
            codes, known = table.codes(name)
            places = [code for code, value in enumerate(known) if str(value) == wanted]
            found = found[np.isin(codes[found], places)]
    if query.sort != "episode":
        column = table.column(steps if query.sort == "total_steps" else query.sort)[found]
        order = np.argsort(-column if query.is_descending else column, kind="stable")
        return found[order]
    return found[::-1] if query.is_descending else found


def _episodes(table: RowTable[Any], query: EpisodeQuery, places: NDArray[np.intp]) -> Iterator[Episode]:
    is_train = query.kind == "train"

    def values(name: str) -> list[Any]:
        if name in table.value_names:  # its column would be made of all rows
            codes, known = table.codes(name)
            return [known[code] for code in codes[places].tolist()]
        return table.column(name)[places].tolist()

    absent: Sequence[Any] = [None] * len(places)
    names = [name for name in table.names if name.startswith("extras.")]
    extras = {name.removeprefix("extras."): values(name) for name in names}
    columns: dict[str, Sequence[Any]] = {
        name: values(name) for name in ("total_reward", "length", "status", "time", "attempt")
    }
    columns["total_steps"] = values(_STEPS[query.kind])
    for name in ("episode", "actor_id"):
        columns[name] = values(name) if is_train else absent
    for row in range(len(places)):
        own = {name: found[row] for name, found in extras.items()}
        known = {name: value for name, value in own.items() if value == value}  # not NaN
        yield Episode(**{name: column[row] for name, column in columns.items()}, extras=known)
