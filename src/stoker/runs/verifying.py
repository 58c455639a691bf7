"""Whether the files of a run are whole and agree with one another. Reads only.

Every byte of checkpoints, rows and journal is checked against its checksum. What a kill leaves behind, such
as a torn last row, is reported and does not count as damage. Everything that a checkpoint counts was durable
before it: so the newest one says how many rows and events there must be at least, however the process ended.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, RunDirectoryError, StokerError
from stoker.journal import JOURNAL, JournalReport
from stoker.runs.bests import Score, best_names, best_of
from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.metadata import read_json, read_metadata
from stoker.runs.rows import ROW_FILES, Row, TrainEpisodeRow, effective, loss_of
from stoker.runs.run import TrainingRun
from stoker.writer import RowReader, files, load_checkpoint

T = TypeVar("T")
AnyRow = TypeVar("AnyRow", bound=Row | EventRow)
_LEFTOVERS = {
    ".tmp": "left half written by a process that was killed; the next resume removes it",
    ".torn": "what a killed process left half written, set aside",
    ".broken": "set aside by a resume: it did not load",
    ".abandoned": "set aside by a resume from an earlier point",
}


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


class _SavedPoint(msgspec.Struct, frozen=True):
    """What the step checkpoint in a file of that name counts; without ``journal`` a resume reads none."""

    name: str
    session: _Counters
    journal: _Position | None = None
    kind: Literal["step"] = "step"


class _Standing(msgspec.Struct, frozen=True):
    step: int


class _Standings(msgspec.Struct, frozen=True):
    opponents: list[_Standing]


def verify_run(run: TrainingRun) -> list[Finding]:
    """Check every file of a run, and that they agree. Blocks, and loads torch.

    If a process writes the run meanwhile, files that it may change are checked up to what was durable.
    """
    return _Verification(run).findings()


class _Verification:
    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._is_live = run.holder() is not None
        self._found: list[Finding] = []
        self._points: list[_SavedPoint] = []
        self._best: Score | None = None

    def findings(self) -> list[Finding]:
        """One for each file, and one for each disagreement."""
        if self._is_live:
            text = f"being written by {self._run.holder()}: files are checked up to what was durable"
            self._add("", "note", text)
        # In this order: what a checkpoint counts was durable before it, and a live run only adds to that.
        self._check_checkpoints()
        self._check_opponents()
        directory = self._run.directory
        metadata = self._checked(layout.METADATA, partial(read_metadata, directory), "attempts and counters")
        if layout.CONFIG in files.files_in(directory):
            self._checked(layout.CONFIG, partial(read_json, directory / layout.CONFIG, Any), "settings")
        else:
            self._add(layout.CONFIG, "note", "there is none; `stoker resume` and `stoker eval` need one")
        self._check_leftovers()
        if metadata is None:
            return self._found
        run = self._run = TrainingRun(directory, metadata)
        journal = self._checked_journal()
        self._is_live = self._is_live or run.holder() is not None
        if self._is_live:  # it may have removed some since
            names = files.files_in(run.checkpoints_directory)
            self._points = [point for point in self._points if point.name in names]
        newest = self._newest
        saved = _Counters(0, 0) if newest is None else newest.session
        counts = (saved.total_episodes, saved.eval_episodes, saved.records)
        for row_type, n_counted in zip(ROW_FILES, counts, strict=True):
            self._check_rows(row_type, n_counted)
        self._read_rows(EVENTS, EventRow)
        self._compare_metadata(newest, saved)
        for point in self._points:
            if (began := point.session.run_started_at) not in (None, metadata.started_at):
                file = f"{layout.CHECKPOINTS}/{point.name}"
                self._add(file, "damaged", f"it is of another run, created on {began:%Y-%m-%d %H:%M:%S}")
            if point.journal is not None:
                self._compare_journal(point, point.journal, journal, is_newest=point is newest)
        return self._found

    @property
    def _newest(self) -> _SavedPoint | None:
        return max(self._points, key=lambda point: point.session.total_steps, default=None)

    def _add(self, file: str | Path, kind: Literal["ok", "torn", "damaged", "note"], text: str) -> None:
        path = self._run.directory / file
        stat = files.stat_of(path) if path.is_file() else None
        name = "" if file == "" else str(path.relative_to(self._run.directory))
        self._found.append(Finding(name, 0 if stat is None else stat.st_size, kind, text))

    def _checked(self, file: str | Path, read: Callable[[], T], ok: str = "") -> T | None:
        """What is read from a file; None: it is damaged, which is reported, or was pruned."""
        try:
            content = read()
        except CheckpointNotFound:
            return None
        except (StokerError, OSError) as error:
            self._add(file, "damaged", str(error).removeprefix(f"{getattr(error, 'path', '')}: "))
            return None
        if ok:
            self._add(file, "ok", ok)
        return content

    # Checkpoints ----------------------------------------------------------------------------------

    def _check_checkpoints(self) -> None:
        directory = self._run.checkpoints_directory
        names = files.files_in(directory)
        steps = [directory / layout.checkpoint_name(step) for step in layout.steps_of(names)]
        for path in steps:
            self._check_step(path)
        latest = directory / layout.LATEST
        if layout.LATEST in names:
            if steps and latest.exists() and steps[-1].exists() and latest.samefile(steps[-1]):
                self._add(latest, "ok", f"a second name of {steps[-1].name}")
            else:
                self._check_step(latest)
        for name in best_names(names):
            self._check_best(directory / name)

    def _check_step(self, path: Path) -> None:
        """Check a step file, or a ``latest.pt`` that is a separate checkpoint, as in a copy of the run.

        A resume begins from such a ``latest.pt`` if it is newer than every step file that is whole.
        """
        if (point := self._checked(path, partial(_saved_point, path))) is None:
            return
        step, newest = point.session.total_steps, self._newest
        if path.name != layout.LATEST or newest is None:
            counts = f"step {step:,}, {point.session.total_episodes:,} episodes"
            self._add(path, "ok", f"{counts}: checksum and counters agree")
            self._points.append(point)
        elif newest.session.total_steps == step:
            self._add(path, "ok", f"a copy of {newest.name}")
        elif newest.session.total_steps > step:
            self._add(path, "note", f"of step {step:,}, not of {newest.name}, from which a resume begins")
        else:
            text = f"of step {step:,}: a resume begins from it, since {newest.name} is older"
            self._add(path, "note", text)
            self._points.append(point)

    def _check_best(self, path: Path) -> None:
        if (score := self._checked(path, lambda: best_of(path, load_checkpoint(path)))) is None:
            return
        value, step = score
        if path.name == layout.BEST:
            self._best = score
        elif path.name != layout.checkpoint_name(step, "best"):
            self._add(path, "damaged", f"it holds the policy of step {step:,}")
            return
        self._add(path, "ok", f"the policy of step {step:,}, mean reward {value:g}")

    def _check_opponents(self) -> None:
        directory = self._run.directory / layout.OPPONENTS
        names = files.files_in(directory)
        for step in layout.steps_of(names):
            path = directory / layout.checkpoint_name(step)
            self._checked(path, partial(_frozen_step, path, step), f"the frozen policy of step {step:,}")
        if layout.STANDINGS in names:
            path = directory / layout.STANDINGS
            self._checked(path, partial(read_json, path, _Standings), "results and ratings")

    # Rows and journal -----------------------------------------------------------------------------

    def _check_rows(self, row_type: type[Row], n_counted: int) -> None:
        """Check a file of rows; the newest checkpoint counts ``n_counted`` of them."""
        path, attempts = self._run.directory / ROW_FILES[row_type], self._run.metadata.attempts
        if (rows := self._read_rows(ROW_FILES[row_type], row_type)) is None:
            return
        if (lost := loss_of(rows, attempts, n_counted)) is not None:
            self._add(path, "damaged", lost)
        elif row_type is TrainEpisodeRow:
            episodes = cast("list[TrainEpisodeRow]", effective(rows, attempts))
            ended_at = [episode.total_steps for episode in episodes]
            for point in self._points:
                n_before, steps = point.session.total_episodes, point.session.total_steps
                if not bisect_left(ended_at, steps) <= n_before <= bisect_right(ended_at, steps):
                    self._add(path, "damaged", f"{point.name} does not come after episode {n_before:,}")

    def _read_rows(self, name: str, row_type: type[AnyRow]) -> list[AnyRow] | None:
        """The rows of a file, which are checked by themselves; None: some are damaged."""
        path = self._run.directory / name
        reader = RowReader(path, row_type)
        if (rows := self._checked(path, reader.read_new)) is None:
            return None
        if reader.torn_bytes:
            behind = f"{len(rows):,} whole rows, then a torn tail of {reader.torn_bytes:,} bytes"
            after = "being written" if self._is_live else "the next resume sets it aside"
            self._add(path, "torn", f"{behind}; {after}")
        elif path.exists():
            self._add(path, "ok", f"{len(rows):,} rows")
        known = {attempt.number for attempt in self._run.metadata.attempts}
        if not self._is_live and (unknown := sorted({row.attempt for row in rows} - known)):
            self._add(path, "damaged", f"rows of attempts that the run does not have: {unknown}")
        return rows

    def _checked_journal(self) -> JournalReport:
        """What reading all of the journal found."""
        journal = self._run.journal
        segments = journal.segments()
        positions = [point.journal for point in self._points if point.journal is not None]
        report = journal.check({event for one in positions for event in (one.needs_from, one.events)})
        for segment in segments:
            found = "; ".join(problem for path, problem in report.problems if path == segment.path)
            if segment.path.exists():  # a live run may have pruned it since
                text = f"attempt {segment.attempt}, from event {segment.first_event:,} on"
                self._add(segment.path, "damaged" if found else "ok", found or text)
        if report.torn_bytes:
            why = "where processes were killed; a resume ignores them"
            torn = f"torn tails of {report.torn_bytes:,} bytes"
            self._add(journal.directory, "torn", f"{torn}: {'being written' if self._is_live else why}")
        return report

    def _check_leftovers(self) -> None:
        run = self._run
        opponents = run.directory / layout.OPPONENTS
        for directory in (run.directory, run.checkpoints_directory, run.journal_directory, opponents):
            for name in sorted(files.files_in(directory)):
                if text := _LEFTOVERS.get(Path(name.rstrip("0123456789")).suffix):
                    self._add(directory / name, "note", text)

    # Agreement ------------------------------------------------------------------------------------

    def _compare_metadata(self, newest: _SavedPoint | None, saved: _Counters) -> None:
        run, metadata, best = self._run, self._run.metadata, self._best
        if saved.total_steps < (last := metadata.attempts[-1]).checkpoint_step:
            began = f"attempt {last.number} began with one of step {last.checkpoint_step:,}"
            self._add(layout.CHECKPOINTS, "damaged", f"{began}: the checkpoints from there on are gone")
        elif newest is None and (sign := run.sign_of_lost_checkpoints()) is not None:
            self._add(layout.CHECKPOINTS, "damaged", f"there is no step checkpoint any more: {sign}")
        elif newest is None and metadata.total_steps and not self._is_live and not run.has_checkpoint():
            self._add(
                layout.CHECKPOINTS,
                "note",
                "there is none yet: a resume learns the journal from its first event on",
            )
        if newest is None or self._is_live:
            return
        steps, episodes, best_value = metadata.total_steps, metadata.total_episodes, metadata.best_value
        is_settled = (steps, episodes) == (saved.total_steps, saved.total_episodes)
        if steps < saved.total_steps or episodes < saved.total_episodes:
            text = f"behind {newest.name}, as a kill leaves it; the next resume updates it"
            self._add(layout.METADATA, "note", text)
        if best is None and best_value is not None and is_settled:
            self._add(layout.CHECKPOINTS, "damaged", "no whole best.pt, but the metadata has a best value")
        elif best is not None and best != (best_value, metadata.best_step):
            text = f"best.pt holds {best[0]:g} of step {best[1]}, this {best_value} of {metadata.best_step}"
            # A kill may come between the file and the metadata, so the file may be ahead; never behind.
            is_ahead = best_value is None or best[0] > best_value
            self._add(layout.METADATA, "damaged" if is_settled and not is_ahead else "note", text)

    def _compare_journal(
        self, point: _SavedPoint, position: _Position, report: JournalReport, *, is_newest: bool
    ) -> None:
        events, steps = position.events, point.session.total_steps
        counted = report.steps_before.get(events)
        if counted not in (None, steps):
            text = f"{counted:,} steps come before event {events:,}, {point.name} says {steps:,}"
            self._add(JOURNAL, "damaged", text)
        if (problem := self._unreadable(position, report)) is not None:
            # Older checkpoints outlive the journal that they would need.
            kind = "damaged" if is_newest else "note"
            self._add(JOURNAL, kind, f"no resume from {point.name}: {problem}")

    def _unreadable(self, position: _Position, report: JournalReport) -> str | None:
        """Why the events that a resume needs cannot be read, or None."""
        journal = self._run.journal
        is_read = {position.needs_from, position.events} <= report.steps_before.keys()
        try:
            if position.rebuild_from is not None:
                begins = [header.first_event for header in journal.headers()]
                if position.rebuild_from not in begins:
                    return f"no segment begins at event {position.rebuild_from:,}"
            if is_read and not report.problems:
                return None
            for _ in journal.read(position.needs_from, position.events):
                pass
        except RunDirectoryError as error:
            return str(error).removeprefix(f"{error.path}: ")
        return None


def _frozen_step(path: Path, step: int) -> None:
    """Check a frozen policy.

    Raises:
        CheckpointCorrupt: It is none, or not of this step.
    """
    state = load_checkpoint(path)
    if state.get("kind") != "opponent" or "weights" not in state:
        raise CheckpointCorrupt(path, "not a frozen policy")
    if state.get("total_steps") != step:
        raise CheckpointCorrupt(path, f"it is of step {state.get('total_steps')}")


def _saved_point(path: Path) -> _SavedPoint:
    """What a checkpoint counts.

    Raises:
        CheckpointCorrupt: It is not a step checkpoint, not of the step in its name, or contradicts itself.
    """
    state = load_checkpoint(path)
    try:
        point = msgspec.convert({**state, "name": path.name}, _SavedPoint)
    except msgspec.ValidationError as error:
        raise CheckpointCorrupt(path, f"not a step checkpoint: {error}") from error
    steps, agent = point.session.total_steps, state.get("agent")
    agent_steps = cast("Mapping[str, Any]", agent).get("total_steps") if isinstance(agent, Mapping) else None
    if layout.steps_of([path.name]) not in ([], [steps]):
        raise CheckpointCorrupt(path, f"it is of step {steps:,}")
    counts_alike = (
        state["session"].get("kept", {}).get("dataset") is None
    )  # else steps are optimization steps
    if counts_alike and agent_steps not in (None, steps):
        raise CheckpointCorrupt(path, f"its agent has {agent_steps} steps, its session {steps:,}")
    return point
