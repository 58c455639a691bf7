"""Everything about one run but its rows: config, attempts, files, curves, and what limits it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from stoker.dashboard.answers.curves import curve_names, table_of
from stoker.dashboard.answers.events import Event, last_words
from stoker.dashboard.answers.shares import Explained, explanation_of
from stoker.dashboard.summaries import Summary
from stoker.plain import encodable
from stoker.runs.history import RunHistory
from stoker.runs.outcomes import workers_by_node
from stoker.telemetry import NodeReading

Group: TypeAlias = Literal["reward", "length", "loss", "exploration", "staleness", "speed", "time", "other"]

_MOST_FILES = 500
_DIRECTORIES = ("", "checkpoints", "journal")

_GROUPS: tuple[tuple[Group, tuple[str, ...]], ...] = (
    ("time", ("time/",)),
    ("reward", ("reward", "return", "score")),
    ("length", ("length", "_len")),
    ("loss", ("loss", "td_error", "grad", "q_mean", "value")),
    ("exploration", ("epsilon", "entropy", "temperature", "alpha", "explor", "noise", "kl")),
    ("staleness", ("stale", "age", "lag", "version")),
)
"""Words in the names of curves that say what these are about; the first that fits."""
_SPEED = ("fps", "per_s", "steps_per", "throughput")


class AttemptLine(msgspec.Struct, frozen=True):
    """The work of one process on the run.

    Attributes:
        number: 1 for the first.
        started_at: POSIX seconds.
        from_steps: ``total_steps`` where it began.
        ended: how it ended; None: it runs, or nothing is known.
    """

    number: int
    started_at: float
    from_steps: int
    ended: str | None


class RunFile(msgspec.Struct, frozen=True):
    """A file of the run.

    Attributes:
        path: below the run's directory.
        n_bytes: its size.
        changed_at: POSIX seconds.
    """

    path: str
    n_bytes: int
    changed_at: float


class SeriesName(msgspec.Struct, frozen=True):
    """A curve of the run.

    Attributes:
        name: to ask for it.
        of: the rows that it is from.
        label: for people.
        group: what it is about.
        n: its rows.
    """

    name: str
    of: Literal["train", "eval", "metrics"]
    label: str
    group: Group
    n: int


class RunDetails(Summary, frozen=True, kw_only=True):
    """A run: its line in the list, and what is beside it.

    Attributes:
        config: its settings, as it has them.
        attempts: the processes that worked on it.
        files: its newest files.
        series: its curves, the most important first.
        cursor: changes when anything of the run has.
        share_read: how much of its files has been read, 0 to 1.
        problems: damage that was passed over.
        explanation: what limits it.
        last_words: the last warnings and errors of its newest attempt, the newest last.
        workers: those of a cluster, by node, as their last change in the newest attempt left them.
    """

    config: Any
    attempts: list[AttemptLine]
    files: list[RunFile]
    series: list[SeriesName]
    cursor: str
    share_read: float
    problems: list[str]
    explanation: Explained | None
    last_words: list[Event]
    workers: list[NodeReading]


def details_answer(history: RunHistory, summary: Summary, share_read: float = 1.0) -> RunDetails:
    """A run's details.

    Args:
        history: the run.
        summary: its line in the list.
        share_read: how much of its files has been read, 0 to 1.
    """
    return RunDetails(
        **msgspec.structs.asdict(summary),
        config=history.config,
        attempts=list(_attempts(history, is_live=summary.status in ("live", "stalled"))),
        files=_files(history.directory),
        series=[_series(history, name) for name in curve_names(history)],
        cursor=str(history.cursor),
        share_read=share_read,
        problems=[encodable(problem) for problem in history.problems],
        explanation=explanation_of(history),
        last_words=last_words(history),
        workers=[
            msgspec.structs.replace(event, node=encodable(event.node), why=encodable(event.why))
            for event in workers_by_node(history.events)
        ],
    )


def _attempts(history: RunHistory, *, is_live: bool) -> Iterator[AttemptLine]:
    if history.metadata is None:
        return
    ends = {row.attempt: row.event.sentence for row in history.events if row.kind == "attempt_ended"}
    last = history.metadata.attempts[-1].number
    for attempt in history.metadata.attempts:
        ended = ends.get(attempt.number)
        if ended is None and not (is_live and attempt.number == last):
            ended = "attempt recorded no end" if history.events else None
        yield AttemptLine(attempt.number, attempt.started_at.timestamp(), attempt.from_steps, ended)


def _files(directory: Path) -> list[RunFile]:
    """The plain files of the run, the newest first; nothing that a symbolic link leads to."""
    found: list[RunFile] = []
    for name in _DIRECTORIES:
        place = directory / name
        try:
            if place.is_symlink():
                continue
            with os.scandir(place) as entries:
                there = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError:  # there is none, or a file is gone already
            continue
        for file, known in there:
            if stat.S_ISREG(known.st_mode):
                path = encodable(f"{name}/{file}".lstrip("/"))
                found.append(RunFile(path, known.st_size, known.st_mtime))
    return sorted(found, key=lambda file: file.changed_at, reverse=True)[:_MOST_FILES]


def _series(history: RunHistory, name: str) -> SeriesName:
    of, _, rest = name.partition(".")
    kind: Any = of
    label = rest.removeprefix("extras.").replace("_", " ").replace("/", ": ")
    return SeriesName(name, kind, label, _group(rest), table_of(history, kind).n_rows)


def _group(name: str) -> Group:
    lowered = name.lower()
    if any(word in lowered for word in _SPEED):
        return "speed"
    for group, words in _GROUPS:
        if any(word in lowered for word in words):
            return group
    return "other"
