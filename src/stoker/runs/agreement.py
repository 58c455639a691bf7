"""What the files of a run must agree on: metadata, checkpoints, rows and journal, each whole in itself.

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

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, JournalBroken, RunBroken
from stoker.journal import JOURNAL, JournalReport
from stoker.runs.bests import Score
from stoker.runs.metadata import RunMetadata
from stoker.runs.rows import (
    ROW_FILES,
    AnyRow,
    EvalEpisodeRow,
    MetricsRow,
    Row,
    TrainEpisodeRow,
    counting,
)
from stoker.runs.run import TrainingRun
from stoker.writer import RowsReport, check_rows, decode_rows

__all__ = ["Finding", "SavedPoint", "checked_rows", "disagreements", "lost_rows", "problem_of", "saved_point"]


class Finding(msgspec.Struct, frozen=True):
    """One file of a run and its state.

    Attributes:
        file: its path below the run; empty: the run as a whole.
        size: in bytes.
        kind: ``ok``; ``torn``: ends in a half-written piece that a killed process left, which does not count
            as damage; ``damaged``; ``note``: worth mentioning.
        text: what was found.
    """

    file: str
    size: int
    kind: Literal["ok", "torn", "damaged", "note"]
    text: str


class _Counters(msgspec.Struct, frozen=True):
    total_steps: int
    total_episodes: int
    eval_episodes: int = 0
    records: int = 0
    run_started_at: datetime | None = None


class _Position(msgspec.Struct, frozen=True):
    events: int
    needs_from: int
    rebuild_from: int | None = None


class SavedPoint(msgspec.Struct, frozen=True):
    """What a step checkpoint counts.

    Attributes:
        name: of its file.
        session: its counters of steps, episodes, evaluation episodes and records; when its run was created.
        journal: how many events came before it, the first one that a resume reads, and the one at which a
            segment must begin for that; None: a resume reads no journal.
    """

    name: str
    session: _Counters
    journal: _Position | None = None


def saved_point(path: Path, state: Mapping[str, Any]) -> SavedPoint:
    """Read the counters of a checkpoint.

    Raises:
        CheckpointCorrupt: It is not a step checkpoint, not of the step in its name, or contradicts itself.
    """
    values = {"name": path.name, "session": state.get("session"), "journal": state.get("journal")}
    try:
        point = msgspec.convert(values, SavedPoint)
    except msgspec.ValidationError as error:
        raise CheckpointCorrupt(path, f"not a step checkpoint: {error}") from error
    steps, agent = point.session.total_steps, state.get("agent")
    agent_steps = cast("Mapping[str, Any]", agent).get("total_steps") if isinstance(agent, Mapping) else None
    if layout.steps_of([path.name]) not in ([], [steps]):
        raise CheckpointCorrupt(path, f"it is of step {steps:,}")
    if agent_steps not in (None, steps):
        raise CheckpointCorrupt(path, f"its agent has {agent_steps} steps, its session {steps:,}")
    return point


def checked_rows(path: Path, row_type: type[AnyRow]) -> tuple[list[AnyRow], RowsReport]:
    """Read a row file, and check every line of it. Blocks.

    Raises:
        RunBroken: Lines are damaged or of another type; the message names them.
    """
    report = check_rows(path)
    if report.problems:
        raise RunBroken(path, "; ".join(text.removeprefix(f"{path.name}: ") for text in report.problems))
    return decode_rows(path, row_type), report


def problem_of(error: Exception) -> str:
    """An error's message without the path at its start."""
    return str(error).removeprefix(f"{getattr(error, 'path', '')}: ")


def lost_rows(run: TrainingRun, total_episodes: int, eval_episodes: int, records: int = 0) -> Iterator[str]:
    """Rows that are damaged or missing, one text for each file that has lost some. Blocks.

    Args:
        run: the run.
        total_episodes: training episodes that the checkpoint counts.
        eval_episodes: evaluation episodes that it counts.
        records: records of the metrics that it counts.
    """
    counts = counting(run.metadata.attempts)
    for log, n_counted, row_type in (
        (run.train_log, total_episodes, TrainEpisodeRow),
        (run.eval_log, eval_episodes, EvalEpisodeRow),
        (run.metrics_log, records, MetricsRow),
    ):
        try:
            rows, _ = checked_rows(log.path, row_type)
        except RunBroken as error:
            yield str(error)
            continue
        n_there, first_gap = 0, None
        for line, row in enumerate(rows, 1):
            if not counts(row):
                continue
            n_there += 1
            if first_gap is None and isinstance(row, TrainEpisodeRow) and row.episode != n_there:
                first_gap = line
        n_lost = n_counted - n_there
        if first_gap is not None or n_lost > 0:
            lost = f"{n_lost:,} of {n_counted:,} rows are missing" if n_lost > 0 else "rows are missing"
            yield f"{log.path}: {lost}, from line {first_gap or len(rows) + 1:,} on"


def disagreements(
    run: TrainingRun,
    metadata: RunMetadata,
    points: Sequence[SavedPoint],
    best: Score | None,
    rows: Mapping[type[Row], Sequence[Row]],
    journal: JournalReport | None,
    *,
    is_live: bool,
) -> Iterator[Finding]:
    """Files that contradict each other, as damage, and what a kill explains, as notes.

    Args:
        run: with this metadata.
        metadata: as it is on disk.
        points: the step checkpoints that are whole.
        best: value and step of ``best.pt``, if it is whole.
        rows: the rows that count, without files that cannot be read.
        journal: the report on it, if there is one.
        is_live: whether a process writes the run meanwhile.
    """
    newest = max(points, key=lambda point: point.session.total_steps, default=None)
    yield from _of_metadata(run, metadata, newest, best, is_live=is_live)
    yield from _of_train_rows(cast("list[TrainEpisodeRow]", rows.get(TrainEpisodeRow, ())), points)
    if newest is not None:
        session = newest.session
        for row_type, n_counted in ((EvalEpisodeRow, session.eval_episodes), (MetricsRow, session.records)):
            if row_type in rows and len(rows[row_type]) < n_counted:
                yield _too_few(row_type, rows[row_type], newest, n_counted)
    for point in points:
        if point.session.run_started_at not in (None, metadata.started_at):
            began = f"{point.session.run_started_at:%Y-%m-%d %H:%M:%S}"
            file = f"{layout.CHECKPOINTS}/{point.name}"
            yield _damaged(file, f"it is of another run, created on {began}")
        yield from _of_journal(run, point, journal, is_newest=point is newest)


def _damaged(file: str, text: str) -> Finding:
    return Finding(file, 0, "damaged", text)


def _note(file: str, text: str) -> Finding:
    return Finding(file, 0, "note", text)


def _too_few(row_type: type[Row], rows: Sequence[Row], point: SavedPoint, n_counted: int) -> Finding:
    text = f"{len(rows):,} rows count, {point.name} was written after {n_counted:,}"
    return _damaged(ROW_FILES[row_type], text)


def _of_metadata(
    run: TrainingRun, metadata: RunMetadata, newest: SavedPoint | None, best: Score | None, *, is_live: bool
) -> Iterator[Finding]:
    saved = 0 if newest is None else newest.session.total_steps
    if saved < (last := metadata.attempts[-1]).from_steps:
        began = f"attempt {last.number} began at step {last.from_steps:,}"
        yield _damaged(layout.CHECKPOINTS, f"{began}: the checkpoints from there on are gone")
    elif newest is None and (sign := run.sign_of_lost_checkpoints()) is not None:
        yield _damaged(layout.CHECKPOINTS, f"there is no step checkpoint any more: {sign}")
    elif newest is None and metadata.total_steps and not is_live and not run.has_checkpoint():
        yield _note(layout.CHECKPOINTS, "there is none yet: a resume starts from the beginning")
    if newest is None or is_live:
        return
    behind = metadata.total_steps < saved or metadata.total_episodes < newest.session.total_episodes
    is_settled = (metadata.total_steps, metadata.total_episodes) == (saved, newest.session.total_episodes)
    if behind:
        text = f"behind {newest.name}, as a kill leaves it; the next resume updates it"
        yield _note(layout.METADATA, text)
    if best is None and metadata.best_value is not None and is_settled:
        yield _damaged(layout.CHECKPOINTS, f"no whole {layout.BEST}, but the metadata has a best value")
    elif best is not None and best != (metadata.best_value, metadata.best_step):
        holds = f"{layout.BEST} holds {best[0]:g} of step {best[1]}"
        text = f"{holds}, this says {metadata.best_value} of {metadata.best_step}"
        # A kill may come between the file and the metadata, so the file may be ahead; never behind.
        is_ahead = metadata.best_value is None or best[0] > metadata.best_value
        yield (_damaged if is_settled and not is_ahead else _note)(layout.METADATA, text)


def _of_train_rows(rows: Sequence[TrainEpisodeRow], points: Sequence[SavedPoint]) -> Iterator[Finding]:
    for number, row in enumerate(rows, 1):
        if row.episode != number:
            text = f"episode {number:,} is missing: {row.episode:,} stands in its place"
            yield _damaged(layout.TRAIN_ROWS, text)
            return
    for before, after in pairwise(rows):
        if after.total_steps < before.total_steps:
            yield _damaged(layout.TRAIN_ROWS, f"episode {after.episode:,} ended before the one before it")
            return
    for point in points:
        n_before, steps = point.session.total_episodes, point.session.total_steps
        if len(rows) < n_before:
            yield _too_few(TrainEpisodeRow, rows, point, n_before)
        elif (n_before and rows[n_before - 1].total_steps > steps) or (
            len(rows) > n_before and rows[n_before].total_steps < steps
        ):
            yield _damaged(layout.TRAIN_ROWS, f"{point.name} does not come after episode {n_before:,}")


def _of_journal(
    run: TrainingRun, point: SavedPoint, journal: JournalReport | None, *, is_newest: bool
) -> Iterator[Finding]:
    if point.journal is None:
        return
    events, steps = point.journal.events, point.session.total_steps
    counted = None if journal is None else journal.experiences_before.get(events)
    if counted not in (None, steps):
        text = f"{counted:,} steps come before event {events:,}, {point.name} says {steps:,}"
        yield _damaged(JOURNAL, text)
    if (problem := _unreadable(run, point.journal, journal)) is not None:
        # Older checkpoints outlive the journal that they would need.
        yield (_damaged if is_newest else _note)(JOURNAL, f"no resume from {point.name}: {problem}")


def _unreadable(run: TrainingRun, position: _Position, journal: JournalReport | None) -> str | None:
    """Why the events that a resume needs cannot be read, or None."""
    events, needs_from = position.events, position.needs_from
    if position.rebuild_from is not None:
        begins = [header.first_event for _, header in run.journal.headers()]
        if position.rebuild_from not in begins:
            return f"no segment begins at event {position.rebuild_from:,}"
    if journal is not None and not journal.problems and journal.first_event is not None:
        is_there = journal.first_event <= needs_from and events <= journal.end_event
        if is_there:
            return None
    try:
        for _ in run.journal.read(needs_from, events):
            pass
    except (JournalBroken, RunBroken) as error:
        return problem_of(error)
    return None
