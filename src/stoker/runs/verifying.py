"""Whether the files of a run are whole and agree with one another. Reads only.

Every byte of checkpoints, rows and journal is checked against its checksum. What a kill leaves behind, such
as a torn last row, is reported and does not count as damage: checkpoints say how much must be there at least.
This module checks each file; ``stoker.runs.agreement`` checks that they agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import stoker.runs.layout as layout
from stoker.errors import CheckpointNotFound, RunDirectoryError, StokerError
from stoker.journal import JournalReport
from stoker.runs.agreement import Finding, SavedPoint, checked_rows, disagreements, problem_of, saved_point
from stoker.runs.bests import Score, best_of
from stoker.runs.layout import CONFIG, METADATA
from stoker.runs.metadata import RunMetadata, read_json, read_metadata
from stoker.runs.rows import ROW_FILES, Row, effective
from stoker.runs.run import TrainingRun
from stoker.writer import files, load_checkpoint

__all__ = ["Finding", "verify_run"]

T = TypeVar("T")
_LEFTOVERS = {
    ".tmp": "left half written by a process that was killed; the next resume removes it",
    ".torn": "what a killed process left half written, set aside",
    ".broken": "set aside by a resume: it did not load",
    ".abandoned": "set aside by a resume from an earlier point",
}


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
        self._points: list[SavedPoint] = []
        self._best: Score | None = None
        self._journal: JournalReport | None = None

    def findings(self) -> list[Finding]:
        """One for each file, then the disagreements."""
        if self._is_live:
            self._add("", "note", f"being written by {self._run.holder()}: checked as far as it stands still")
        # In this order: what a checkpoint counts was durable before it, and a live run only adds to that.
        self._check_checkpoints()
        metadata = self._checked_metadata()
        self._check_config()
        if metadata is None:
            self._check_leftovers()
            return self._found
        run = TrainingRun(self._run.directory, metadata)
        checked = {row_type: self._check_rows(row_type, metadata) for row_type in ROW_FILES}
        rows = {row_type: found for row_type, found in checked.items() if found is not None}
        self._check_journal(run)
        self._check_leftovers()
        is_live = self._is_live or run.holder() is not None
        names = files.files_in(run.checkpoints_directory)
        points = [point for point in self._points if not is_live or point.name in names]
        self._found += disagreements(run, metadata, points, self._best, rows, self._journal, is_live=is_live)
        return self._found

    def _add(self, file: str | Path, kind: Literal["ok", "torn", "damaged", "note"], text: str) -> None:
        path = self._run.directory / file
        stat = files.stat_of(path) if path.is_file() else None
        name = "" if file == "" else str(path.relative_to(self._run.directory))
        self._found.append(Finding(name, 0 if stat is None else stat.st_size, kind, text))

    # Documents ------------------------------------------------------------------------------------

    def _checked_metadata(self) -> RunMetadata | None:
        try:
            metadata = read_metadata(self._run.directory)
        except RunDirectoryError as error:
            self._add(METADATA, "damaged", str(error))
            return None
        attempts = metadata.attempts
        numbers = [attempt.number for attempt in attempts]
        counts = [metadata.total_steps, metadata.total_episodes]
        for attempt in attempts:
            counts += (attempt.from_steps, attempt.from_episodes, attempt.from_events)
        if not numbers or numbers != sorted(set(numbers)):
            self._add(METADATA, "damaged", f"its attempts are numbered {numbers}")
        elif min(counts) < 0:
            self._add(METADATA, "damaged", "a counter is negative")
        else:
            self._add(METADATA, "ok", "attempts and counters")
            return metadata
        return None

    def _check_config(self) -> None:
        if CONFIG not in files.files_in(self._run.directory):
            self._add(CONFIG, "note", "there is none; `stoker resume` needs one, your own session does not")
            return
        try:
            read_json(self._run.directory / CONFIG, Any)
        except RunDirectoryError as error:
            self._add(CONFIG, "damaged", str(error))
        else:
            self._add(CONFIG, "ok", "settings")

    # Checkpoints ----------------------------------------------------------------------------------

    def _check_checkpoints(self) -> None:
        directory = self._run.checkpoints_directory
        names = files.files_in(directory)
        steps = [directory / layout.checkpoint_name(step) for step in layout.steps_of(names)]
        for path in steps:
            self._check_step(path)
        if layout.LATEST in names:
            latest = directory / layout.LATEST
            if steps:
                self._check_latest(latest, steps[-1])
            else:
                self._check_step(latest)
        bests = [layout.best_name(step) for step in layout.best_steps_of(names)]
        for name in [*bests, *({layout.BEST} & set(names))]:
            self._check_best(directory / name)

    def _loaded(self, path: Path, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """The result of ``read`` for a checkpoint; None: it is damaged, which is reported, or was pruned."""
        try:
            return read(load_checkpoint(path))
        except CheckpointNotFound:
            return None
        except (StokerError, OSError, KeyError, TypeError, ValueError) as error:
            problem = f"it holds no {error}" if isinstance(error, KeyError) else problem_of(error)
            self._add(path, "damaged", problem)
            return None

    def _check_step(self, path: Path) -> None:
        if (point := self._loaded(path, partial(saved_point, path))) is not None:
            self._points.append(point)
            counts = f"step {point.session.total_steps:,}, {point.session.total_episodes:,} episodes"
            self._add(path, "ok", f"{counts}: checksum and counters agree")

    def _check_latest(self, path: Path, newest: Path) -> None:
        """``latest.pt`` is a second name of a step file, or a separate checkpoint, as in a copy of the run.

        A resume begins from it if it is newer than every step file that is whole.
        """
        if path.exists() and newest.exists() and path.samefile(newest):
            self._add(path, "ok", f"a second name of {newest.name}")
            return
        if (found := self._loaded(path, partial(saved_point, path))) is None:
            return
        step = found.session.total_steps
        last = max(self._points, key=lambda point: point.session.total_steps, default=None)
        if last is None or last.session.total_steps < step:
            self._points.append(found)
            why = "no step file is whole" if last is None else f"{last.name} is older"
            self._add(path, "note", f"of step {step:,}: a resume begins from it, since {why}")
        elif last.session.total_steps == step:
            self._add(path, "ok", f"a copy of {last.name}")
        else:
            self._add(path, "note", f"of step {step:,}, not of {last.name}, from which a resume begins")

    def _check_best(self, path: Path) -> None:
        if (score := self._loaded(path, best_of)) is None:
            return
        value, step = score
        if path.name == layout.BEST:
            self._best = score
        elif path.name != layout.best_name(step):
            self._add(path, "damaged", f"it holds the policy of step {step:,}")
            return
        self._add(path, "ok", f"the policy of step {step:,}, mean reward {value:g}")

    # Rows and journal -----------------------------------------------------------------------------

    def _check_rows(self, row_type: type[Row], metadata: RunMetadata) -> list[Row] | None:
        path = self._run.directory / ROW_FILES[row_type]
        try:
            rows, report = checked_rows(path, row_type)
        except StokerError as error:
            self._add(path, "damaged", problem_of(error))
            return None
        if report.torn_bytes:
            behind = f"{report.n_rows:,} whole rows, then a torn tail of {report.torn_bytes:,} bytes"
            after = "being written" if self._is_live else "the next resume sets it aside"
            self._add(path, "torn", f"{behind}; {after}")
        elif path.exists():
            self._add(path, "ok", f"{report.n_rows:,} rows")
        known = {attempt.number for attempt in metadata.attempts}
        if not self._is_live and (unknown := sorted({row.attempt for row in rows} - known)):
            self._add(path, "damaged", f"rows of attempts that the run does not have: {unknown}")
        return effective(rows, metadata.attempts)

    def _check_journal(self, run: TrainingRun) -> None:
        journal = run.journal
        segments = journal.segments()
        if not segments:
            return
        events = {point.journal.events for point in self._points if point.journal is not None}
        report = self._journal = journal.check(events)
        problems: defaultdict[str, list[str]] = defaultdict(list)
        names = [segment.path.name for segment in segments]
        for problem in report.problems:
            name = next((name for name in names if name in problem), "")
            text = problem.rpartition(name)[2].lstrip(": ") if problem.count(name) == 1 else problem
            problems[name].append(text)
        for segment in segments:
            found = "; ".join(problems.pop(segment.path.name, []))
            if segment.path.exists():  # a live run may have pruned it since
                text = f"attempt {segment.attempt}, from event {segment.first_event:,} on"
                self._add(segment.path, "damaged" if found else "ok", found or text)
        for others in problems.values():
            self._add(journal.directory, "damaged", "; ".join(others))
        if report.torn_bytes:
            why = "where processes were killed; a resume ignores them"
            torn = f"torn tails of {report.torn_bytes:,} bytes"
            self._add(journal.directory, "torn", f"{torn}: {'being written' if self._is_live else why}")

    def _check_leftovers(self) -> None:
        run = self._run
        for directory in (run.directory, run.checkpoints_directory, run.journal_directory):
            for name in sorted(files.files_in(directory)):
                if text := _LEFTOVERS.get(Path(name.rstrip("0123456789")).suffix):
                    self._add(directory / name, "note", text)
