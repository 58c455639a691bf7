"""What the files of a run must agree on: metadata, checkpoints, rows and journal, each known to be whole.

Everything that a checkpoint counts was durable before it. So the newest one says how many rows and events
there must be at least, however the process ended. ``verifying`` checks each file by itself; a resume asks for
``lost_rows``. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

import stoker.runs.naming as naming
from stoker.errors import CheckpointCorrupt, JournalBroken, RunBroken
from stoker.journal import JournalReport
from stoker.runs.bests import Score
from stoker.runs.locating import METADATA
from stoker.runs.metadata import Attempt, EvalEpisodeRow, MetricsRow, RunMetadata, TrainEpisodeRow, counting
from stoker.runs.run import EVAL_ROWS, METRICS_ROWS, TRAIN_ROWS, TrainingRun
from stoker.writer import RowLog, check_rows, decode_rows, files

__all__ = ["Finding", "SavedPoint", "lost_rows", "saved_point", "what_disagrees"]

RowType = type[TrainEpisodeRow | EvalEpisodeRow | MetricsRow]
Rows = tuple[list[TrainEpisodeRow] | None, list[EvalEpisodeRow] | None, list[MetricsRow] | None]


class Finding(msgspec.Struct, frozen=True):
    """One file of a run and what is the matter with it.

    Attributes:
        file: its path below the run; empty: the run as a whole.
        size: in bytes.
        kind: ``ok``; ``torn``: ends in what a killed process left half written, which is no damage;
            ``damaged``; ``note``: worth a word and no more.
        text: what was found.
    """

    file: str
    size: int
    kind: Literal["ok", "torn", "damaged", "note"]
    text: str


class SavedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a step checkpoint counts.

    Attributes:
        name: of its file.
        total_steps, total_episodes, eval_episodes, records: in the run up to it.
        events: of the journal before it, or None.
        needs_from: the first event of the journal that a resume from it reads; None: it reads none.
        rebuild_from: the event at which a segment must begin for that, or None.
        run_started_at: when the run that wrote it was created, or None.
    """

    name: str
    total_steps: int
    total_episodes: int
    eval_episodes: int = 0
    records: int = 0
    events: int | None = None
    needs_from: int | None = None
    rebuild_from: int | None = None
    run_started_at: datetime | None = None


class _Session(msgspec.Struct):
    total_steps: int
    total_episodes: int
    eval_episodes: int = 0
    records: int = 0
    run_started_at: datetime | None = None


class _Position(msgspec.Struct):
    events: int
    needs_from: int
    rebuild_from: int | None = None


def saved_point(path: Path, state: Mapping[str, Any]) -> SavedPoint:
    """Read off a checkpoint what it counts.

    Raises:
        CheckpointCorrupt: It is no step checkpoint, not the one that its name says, or contradicts itself.
    """
    try:
        session = msgspec.convert(state.get("session"), _Session)
        journal = state.get("journal")
        position = None if journal is None else msgspec.convert(journal, _Position)
    except msgspec.ValidationError as error:
        raise CheckpointCorrupt(path, f"not a step checkpoint: {error}") from error
    named = naming.steps_of([path.name])
    agent = state.get("agent")
    counted = cast("Mapping[str, Any]", agent).get("total_steps") if isinstance(agent, Mapping) else None
    if named and named != [session.total_steps]:
        raise CheckpointCorrupt(path, f"it is of step {session.total_steps:,}")
    if counted is not None and counted != session.total_steps:
        raise CheckpointCorrupt(path, f"its agent has {counted} steps, its session {session.total_steps:,}")
    return SavedPoint(
        name=path.name,
        total_steps=session.total_steps,
        total_episodes=session.total_episodes,
        eval_episodes=session.eval_episodes,
        records=session.records,
        events=None if position is None else position.events,
        needs_from=None if position is None else position.needs_from,
        rebuild_from=None if position is None else position.rebuild_from,
        run_started_at=session.run_started_at,
    )


def what_disagrees(
    run: TrainingRun,
    metadata: RunMetadata,
    points: Sequence[SavedPoint],
    best: Score | None,
    rows: Rows,
    journal: JournalReport | None,
    *,
    is_live: bool,
) -> Iterator[Finding]:
    """What does not fit together, and what is worth a word.

    Args:
        run: with this metadata.
        metadata: as it is on disk.
        points: the step checkpoints that are whole.
        best: value and step of ``best.pt``, if it is whole.
        rows: the training, evaluation and metrics rows that count; None: they cannot be read.
        journal: what reading it found, if there is one.
        is_live: whether somebody writes the run meanwhile.
    """
    newest = max(points, key=lambda point: point.total_steps, default=None)
    yield from _of_metadata(run, metadata, newest, best, is_live=is_live)
    train, evaluations, metrics = rows
    if train is not None:
        yield from _of_train_rows(train, points)
    if evaluations is not None and newest is not None and len(evaluations) < newest.eval_episodes:
        yield _damaged(
            EVAL_ROWS,
            f"{len(evaluations):,} rows count, {newest.name} was written after {newest.eval_episodes:,}",
        )
    if metrics is not None and newest is not None and len(metrics) < newest.records:
        text = f"{len(metrics):,} rows count, {newest.name} was written after {newest.records:,}"
        yield _damaged(METRICS_ROWS, text)
    for point in points:
        if point.run_started_at not in (None, metadata.started_at):
            began = f"{point.run_started_at:%Y-%m-%d %H:%M:%S}"
            yield _damaged(f"{naming.CHECKPOINTS}/{point.name}", f"it is of another run, created on {began}")
        yield from _of_journal(run, point, journal, is_newest=point is newest)


def _of_metadata(
    run: TrainingRun, metadata: RunMetadata, newest: SavedPoint | None, best: Score | None, *, is_live: bool
) -> Iterator[Finding]:
    saved = 0 if newest is None else newest.total_steps
    if saved < (last := metadata.attempts[-1]).from_steps:
        began = f"attempt {last.number} began at step {last.from_steps:,}"
        yield _damaged(naming.CHECKPOINTS, f"{began}: the checkpoints from there on are gone")
    elif newest is None and (sign := run.sign_of_lost_checkpoints()) is not None:
        yield _damaged(naming.CHECKPOINTS, f"there is no step checkpoint any more: {sign}")
    elif newest is None and metadata.total_steps and not is_live and not _has_step_files(run):
        yield _note(naming.CHECKPOINTS, "there is none yet: a resume starts from the beginning")
    if newest is None:
        return
    behind = metadata.total_steps < saved or metadata.total_episodes < newest.total_episodes
    is_settled = (metadata.total_steps, metadata.total_episodes) == (saved, newest.total_episodes)
    if behind and not is_live:
        yield _note(METADATA, f"behind {newest.name}, as a kill leaves it; the next resume puts it right")
    if best is None and metadata.best_value is not None and is_settled and not is_live:
        yield _damaged(naming.CHECKPOINTS, f"no whole {naming.BEST}, which the metadata speaks of")
    elif best is not None and best != (metadata.best_value, metadata.best_step) and not is_live:
        holds = f"{naming.BEST} holds {best[0]:g} of step {best[1]}"
        text = f"{holds}, this says {metadata.best_value} of {metadata.best_step}"
        # A kill may come between the file and the metadata, so the file may be ahead; never behind.
        is_ahead = metadata.best_value is None or best[0] > metadata.best_value
        yield (_damaged if is_settled and not is_ahead else _note)(METADATA, text)


def _has_step_files(run: TrainingRun) -> bool:
    names = files.files_in(run.checkpoints_directory)
    return naming.LATEST in names or bool(naming.steps_of(names))


def _of_train_rows(rows: Sequence[TrainEpisodeRow], points: Sequence[SavedPoint]) -> Iterator[Finding]:
    for number, row in enumerate(rows, 1):
        if row.episode != number:
            yield _damaged(TRAIN_ROWS, f"episode {number:,} is missing: {row.episode:,} stands in its place")
            return
    for before, after in pairwise(rows):
        if after.total_steps < before.total_steps:
            yield _damaged(TRAIN_ROWS, f"episode {after.episode:,} ended before the one before it")
            return
    for point in points:
        n_before = point.total_episodes
        if len(rows) < n_before:
            yield _damaged(
                TRAIN_ROWS, f"{len(rows):,} rows count, {point.name} was written after {n_before:,}"
            )
        elif (n_before and rows[n_before - 1].total_steps > point.total_steps) or (
            len(rows) > n_before and rows[n_before].total_steps < point.total_steps
        ):
            yield _damaged(TRAIN_ROWS, f"{point.name} does not lie behind episode {n_before:,}")


def _of_journal(
    run: TrainingRun, point: SavedPoint, journal: JournalReport | None, *, is_newest: bool
) -> Iterator[Finding]:
    events, needs_from = point.events, point.needs_from
    if events is None or needs_from is None:
        return
    directory = run.journal_directory.name
    counted = None if journal is None else journal.experiences_before.get(events)
    if counted is not None and counted != point.total_steps:
        yield _damaged(
            directory,
            f"{counted:,} steps lie before event {events:,}, {point.name} says {point.total_steps:,}",
        )
    if (problem := _unreadable(run, point, journal)) is not None:
        # Older checkpoints outlive the journal that they would need.
        yield (_damaged if is_newest else _note)(directory, f"no resume from {point.name}: {problem}")


def _unreadable(run: TrainingRun, point: SavedPoint, journal: JournalReport | None) -> str | None:
    """Why the events that a resume from there needs cannot be read, or None."""
    events, needs_from = cast("int", point.events), cast("int", point.needs_from)
    if point.rebuild_from is not None:
        begins = [header.first_event for _, header in run.journal.headers()]
        if point.rebuild_from not in begins:
            return f"no segment begins at event {point.rebuild_from:,}"
    if needs_from >= events:
        return None
    if journal is not None and not journal.problems:
        first, end = journal.first_event, journal.end_event
        if first is not None and first <= needs_from and events <= end:
            return None
    try:
        for _ in run.journal.read(needs_from, events):
            pass
    except (JournalBroken, RunBroken) as error:
        return str(error).removeprefix(f"{error.path}: ")
    return None


def _damaged(file: str, text: str) -> Finding:
    return Finding(file, 0, "damaged", text)


def _note(file: str, text: str) -> Finding:
    return Finding(file, 0, "note", text)


def lost_rows(run: TrainingRun, total_episodes: int, eval_episodes: int, records: int = 0) -> Iterator[str]:
    """What is damaged or missing, one text for each file that has lost something. Blocks.

    Args:
        run: the run.
        total_episodes: training episodes that the checkpoint counts.
        eval_episodes: evaluation episodes that it counts.
        records: records of the metrics that it counts.
    """
    attempts = run.metadata.attempts
    for log, n_counted, row_type in (
        (run.train_log, total_episodes, TrainEpisodeRow),
        (run.eval_log, eval_episodes, EvalEpisodeRow),
        (run.metrics_log, records, MetricsRow),
    ):
        if (lost := _lost(log, n_counted, row_type, attempts)) is not None:
            yield f"{log.path}: {lost}"


def _lost(log: RowLog, n_counted: int, row_type: RowType, attempts: Sequence[Attempt]) -> str | None:
    report = check_rows(log.path)
    if report.problems:
        return "; ".join(text.removeprefix(f"{log.path.name}: ") for text in report.problems)
    try:
        rows = decode_rows(log.path, row_type)
    except RunBroken as error:
        return str(error).removeprefix(f"{error.path}: ")
    counts = counting(attempts)
    n_there, first_gap = 0, None
    for line, row in enumerate(rows, 1):
        if not counts(row):
            continue
        n_there += 1
        if first_gap is None and isinstance(row, TrainEpisodeRow) and row.episode != n_there:
            first_gap = line
    n_lost = n_counted - n_there
    if first_gap is None:
        if n_lost <= 0:
            return None
        first_gap = len(rows) + 1
    what = f"{n_lost:,} of {n_counted:,} rows are missing" if n_lost > 0 else "rows are missing"
    return f"{what}, from line {first_gap:,} on"
