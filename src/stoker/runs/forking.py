"""A new run that begins with a checkpoint of another one, and with the history up to it, but no events of it.

Everything is copied, never linked: both runs continue. The source may be training meanwhile; it is only read,
and what was copied is checked. Until its metadata is there, the directory does not count as a run.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, JournalBroken, RunBroken, StokerError
from stoker.journal import JOURNAL, Journal
from stoker.runs.bests import best_files
from stoker.runs.checkpoints import step_of
from stoker.runs.event_rows import EventRow
from stoker.runs.events import Forked
from stoker.runs.metadata import read_metadata, write_json
from stoker.runs.rows import ROW_FILES, Bound, Row, TrainEpisodeRow, counting
from stoker.runs.run import TrainingRun, new_directory
from stoker.types import AnyPath
from stoker.writer import cut_rows, encode_rows, files, load_checkpoint, publish_checkpoint

_logger = logging.getLogger("stoker.runs")


async def fork(
    run: TrainingRun,
    step: int,
    name: str,
    version: str = "v1",
    *,
    root: AnyPath = "runs",
    with_replay: bool = True,
) -> TrainingRun:
    """Make a new run that begins with that checkpoint, as if it had been trained up to there.

    Args:
        run: the source; it is only read, and may be training.
        step: the step of the checkpoint.
        name: of the new run.
        version: of the new run.
        root: the runs directory for the new run.
        with_replay: whether a resume of the new run restores the replay; else it starts with an empty one.

    Returns:
        The new run; a session continues it like a resumed run.

    Raises:
        ConfigError: The name or version would leave ``root``.
        CheckpointNotFound: There is no such checkpoint; the message lists the run's checkpoints.
        CheckpointCorrupt, RunBroken: The source's checkpoint or rows are damaged.
        JournalBroken: The source's journal cannot restore the replay.
        WriteFailed: The disk refused.
    """
    place = layout.place_of(name, version, root)
    return await to_thread.run_sync(_fork, run, step, place, with_replay)


def _fork(run: TrainingRun, step: int, place: Path, with_replay: bool) -> TrainingRun:
    source = TrainingRun(run.directory, read_metadata(run.directory))
    state = _state_at(source, step)
    session = state["session"]
    directory, metadata = new_directory(place)
    files.write_atomically(directory / layout.FORKING, lambda file: file.write(b""))
    metadata = msgspec.structs.replace(
        metadata,
        total_steps=step,
        total_episodes=int(session["total_episodes"]),
        attempts=tuple(one for one in source.metadata.attempts if one.number <= session["attempt"]),
        forked_from=str(source.directory),
        forked_at_step=step,
    )
    fork = TrainingRun(directory, metadata)
    try:
        _copy_parts(source, fork, state, with_replay=with_replay)
    except StokerError as error:
        _empty(directory)
        error.add_note(f"{directory} is left empty; it does not count as a run and can be removed")
        raise
    fork.on_disk = fork.metadata
    write_json(directory / layout.METADATA, fork.metadata)
    files.remove_all([directory / layout.FORKING])
    return fork


def _state_at(source: TrainingRun, step: int) -> dict[str, Any]:
    """The checkpoint of that step."""
    found = {step: source.checkpoint_path(step)}
    if step not in source.checkpoint_steps():
        found = {int(of_step): path for path, of_step in source.step_files() if 0 <= of_step < math.inf}
    if step not in found:
        has = ", ".join(map(str, reversed(found))) or "none"
        raise CheckpointNotFound(f"{source.directory} has no checkpoint of step {step}: it has {has}")
    state = load_checkpoint(found[step])
    if step_of(state) != step:
        raise CheckpointCorrupt(found[step], f"it is not a step checkpoint of step {step}")
    return state


def _empty(directory: Path) -> None:
    """Remove all files except the one that marks the directory as an unfinished fork."""
    parts = [directory / part for part in ("", layout.CHECKPOINTS, JOURNAL)]
    files.remove_all(part / name for part in parts for name in files.files_in(part) if name != layout.FORKING)


def _copy_parts(source: TrainingRun, fork: TrainingRun, state: dict[str, Any], *, with_replay: bool) -> None:
    """Copy all but the metadata, and check it."""
    step = fork.metadata.total_steps
    if layout.CONFIG in files.files_in(source.directory):
        _copy(source.directory / layout.CONFIG, fork.directory / layout.CONFIG)
    _copy_rows(source, fork)
    forked = Forked(source=str(source.directory), step=step)
    row = encode_rows([EventRow.of(forked, total_steps=step, attempt=fork.attempt)])
    files.write_atomically(fork.event_log.path, lambda file: file.write(row))
    files.make_directory(fork.checkpoints_directory)
    position = state.get("journal")
    if not with_replay:
        state.pop("replay", None)
        state["journal"] = None
    elif position is not None:
        _copy_journal(source, fork, int(position["needs_from"]), int(position["events"]))
    state["session"]["run_started_at"] = fork.metadata.started_at.isoformat()
    # What was read is written: a source that is training may have removed the file since.
    publish_checkpoint(state, fork.checkpoint_path(step))
    files.link_atomically(fork.checkpoint_path(step), fork.checkpoints_directory / layout.LATEST)
    _copy_best(source, fork)


def _copy_rows(source: TrainingRun, fork: TrainingRun) -> None:
    """Copy the rows that count, up to the checkpoint.

    Raises:
        RunBroken: Some are missing or damaged.
    """
    counts = counting(fork.metadata.attempts)
    bound = Bound(fork.metadata.total_steps, fork.metadata.total_episodes)

    def keep(row: Row) -> bool:
        return counts(row) and row.is_before(bound)

    for row_type, name in ROW_FILES.items():
        path = source.directory / name
        n_copied = cut_rows(path, fork.directory / name, keep, row_type)
        if row_type is TrainEpisodeRow and n_copied != bound.episodes:
            needed = f"{bound.episodes} episodes before step {bound.steps}"
            raise RunBroken(path, f"{n_copied} of the {needed} are in it")


def _copy_journal(source: TrainingRun, fork: TrainingRun, first: int, last: int) -> None:
    """Copy the segments that give the events ``first <= n < last``, the last one cut there, and read them.

    Raises:
        JournalBroken: They are damaged or missing.
    """
    journal = Journal(source.journal_directory, fork.journal.starts)
    files.make_directory(fork.journal_directory)
    try:
        for path, n_bytes in journal.parts(first, last):
            _copy(path, fork.journal_directory / path.name, n_bytes)
        for _ in fork.journal.read(first, last):
            pass
    except (JournalBroken, FileNotFoundError) as error:
        raise JournalBroken(
            source.journal_directory,
            f"the replay of step {fork.metadata.total_steps} cannot be restored ({error}); fork a newer "
            "step, or add --without-replay",
        ) from error


def _copy_best(source: TrainingRun, fork: TrainingRun) -> None:
    """Copy the best policy that was evaluated up to the checkpoint, if it is still there."""
    warn = partial(_logger.warning, "%s; the fork goes without it")
    files_there = best_files(source.checkpoints_directory, warn)
    found = [(*score, state) for _, score, state in files_there if score[1] <= fork.metadata.total_steps]
    if found:
        value, step, state = max(found, key=lambda best: best[0])
        publish_checkpoint(state, fork.best_checkpoint_path)
        fork.metadata = msgspec.structs.replace(fork.metadata, best_value=value, best_step=step)


def _copy(source: Path, target: Path, n_bytes: int | None = None) -> None:
    """Copy the first bytes of a file durably; None: all."""
    content = files.read_bytes(source)[:n_bytes]
    files.write_atomically(target, lambda file: file.write(content))
