"""Whether the files of a run are whole and agree with one another. Reads only.

Every byte of checkpoints, rows and journal is checked against its checksum. What a kill leaves behind, such
as a torn last row, is reported and is no damage: checkpoints say how much must be there at least. This module
checks each file; ``stoker.runs.agreement`` checks that they agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import stoker.runs.naming as naming
from stoker.errors import CheckpointNotFound, RunDirectoryError, StokerError
from stoker.journal import JournalReport
from stoker.runs.agreement import Finding, Rows, SavedPoint, saved_point, what_disagrees
from stoker.runs.bests import Score, best_of
from stoker.runs.documents import read_json
from stoker.runs.locating import METADATA, read_metadata
from stoker.runs.metadata import EvalEpisodeRow, MetricsRow, RunMetadata, TrainEpisodeRow, effective
from stoker.runs.run import CONFIG, EVAL_ROWS, METRICS_ROWS, TRAIN_ROWS, TrainingRun
from stoker.writer import check_rows, decode_rows, files, load_checkpoint

__all__ = ["Finding", "verify_run"]

Row = TypeVar("Row", TrainEpisodeRow, EvalEpisodeRow, MetricsRow)
_LEFT = {
    ".tmp": "left half written by a process that was killed; the next resume removes it",
    ".torn": "what a killed process left half written, set aside",
    ".broken": "set aside by a resume: it did not load",
    ".abandoned": "set aside by a resume that went on from an earlier point",
}


def verify_run(run: TrainingRun) -> list[Finding]:
    """Look at every file of a run, and at what they say together. Blocks, and loads torch.

    A run that is being written meanwhile is checked as far as it stands still.
    """
    return _Verification(run).findings()


class _Verification:
    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._is_live = run.holder() is not None
        self._found: list[Finding] = []
        self._metadata: RunMetadata | None = None
        self._points: list[SavedPoint] = []
        self._best: Score | None = None
        self._rows: Rows = (None, None, None)
        self._journal: JournalReport | None = None

    def findings(self) -> list[Finding]:
        """One for each file, then what they disagree on."""
        run = self._run
        if self._is_live:
            self._tell("", 0, "note", f"being written by {run.holder()}: checked as far as it stands still")
        # In this order: what a checkpoint counts was durable before it, and a live run only adds to that.
        self._check_checkpoints()
        self._check_documents()
        if self._metadata is not None:
            run = TrainingRun(run.directory, self._metadata)
            self._rows = (
                self._check_rows(TRAIN_ROWS, TrainEpisodeRow),
                self._check_rows(EVAL_ROWS, EvalEpisodeRow),
                self._check_rows(METRICS_ROWS, MetricsRow),
            )
            self._check_journal(run)
        self._check_leftovers()
        self._is_live = self._is_live or run.holder() is not None
        if self._metadata is not None:
            points = [point for point in self._points if not self._is_live or self._is_there(point)]
            self._found += what_disagrees(
                run, self._metadata, points, self._best, self._rows, self._journal, is_live=self._is_live
            )
        return self._found

    def _tell(self, name: str, size: int, kind: Any, text: str) -> None:
        self._found.append(Finding(name, size, kind, text))

    def _is_there(self, point: SavedPoint) -> bool:
        return point.name in files.files_in(self._run.checkpoints_directory)

    # Files ----------------------------------------------------------------------------------------

    def _check_documents(self) -> None:
        sizes = files.sizes_in(self._run.directory)
        try:
            self._metadata = read_metadata(self._run.directory)
            if (problem := _attempts_problem(self._metadata)) is not None:
                self._metadata = None
        except RunDirectoryError as error:
            problem = str(error)
        self._tell(METADATA, sizes.get(METADATA, 0), *_verdict(problem, "attempts and counters"))
        if CONFIG not in sizes:
            self._tell(
                CONFIG, 0, "note", "there is none; `stoker resume` needs one, a session of your own not"
            )
            return
        problem = None
        try:
            read_json(self._run.directory / CONFIG, Any)
        except RunDirectoryError as error:
            problem = str(error)
        self._tell(CONFIG, sizes[CONFIG], *_verdict(problem, "settings"))

    def _check_checkpoints(self) -> None:
        directory = self._run.checkpoints_directory
        sizes = files.sizes_in(directory)
        names = [naming.checkpoint_name(step) for step in naming.steps_of(sizes)]
        for name in names:
            self._check_checkpoint(directory / name, sizes[name])
        if naming.LATEST in sizes:
            self._check_latest(directory / naming.LATEST, sizes[naming.LATEST], names)
        bests = [naming.best_name(step) for step in naming.best_steps_of(sizes)]
        for name in [*bests, *([naming.BEST] if naming.BEST in sizes else [])]:
            self._check_best(directory / name, sizes[name])

    def _check_checkpoint(self, path: Path, size: int) -> SavedPoint | None:
        try:
            point = saved_point(path, load_checkpoint(path))
        except CheckpointNotFound:  # pruned since, by a run that is live
            return None
        except (StokerError, OSError) as error:
            self._tell(_in_checkpoints(path), size, "damaged", _reason(error))
            return None
        self._points.append(point)
        text = f"step {point.total_steps:,}, {point.total_episodes:,} episodes: checksum and counters agree"
        self._tell(_in_checkpoints(path), size, "ok", text)
        return point

    def _check_latest(self, path: Path, size: int, steps: list[str]) -> None:
        """``latest.pt`` is a second name of a step file, or a separate checkpoint, as in a copy of the run.

        A resume begins from it if it is newer than every step file that is whole.
        """
        if not steps:
            self._check_checkpoint(path, size)
            return
        newest = path.with_name(steps[-1])
        try:
            if path.samefile(newest):
                self._tell(_in_checkpoints(path), size, "ok", f"a second name of {newest.name}")
                return
            found = saved_point(path, load_checkpoint(path))
        except (FileNotFoundError, CheckpointNotFound):
            return
        except (StokerError, OSError) as error:
            self._tell(_in_checkpoints(path), size, "damaged", _reason(error))
            return
        step = found.total_steps
        last = max(self._points, key=lambda point: point.total_steps, default=None)
        if last is None or last.total_steps < step:
            self._points.append(found)
            why = "no step file is whole" if last is None else f"{last.name} is older"
            self._tell(
                _in_checkpoints(path), size, "note", f"of step {step:,}: a resume begins from it, since {why}"
            )
        elif last.total_steps == step:
            self._tell(_in_checkpoints(path), size, "ok", f"a copy of {last.name}")
        else:
            text = f"of step {step:,}, not of {last.name}, which is what a resume begins from"
            self._tell(_in_checkpoints(path), size, "note", text)

    def _check_best(self, path: Path, size: int) -> None:
        try:
            value, step = best_of(load_checkpoint(path))
        except CheckpointNotFound:
            return
        except (StokerError, OSError, KeyError, TypeError, ValueError) as error:
            self._tell(_in_checkpoints(path), size, "damaged", _reason(error))
            return
        if path.name == naming.BEST:
            self._best = (value, step)
        elif naming.best_steps_of([path.name]) != [step]:
            self._tell(_in_checkpoints(path), size, "damaged", f"it holds the policy of step {step:,}")
            return
        self._tell(_in_checkpoints(path), size, "ok", f"the policy of step {step:,}, mean reward {value:g}")

    def _check_rows(self, name: str, row_type: type[Row]) -> list[Row] | None:
        path = self._run.directory / name
        report = check_rows(path)
        size = files.sizes_in(self._run.directory).get(name, 0)
        if report.problems:
            self._tell(name, size, "damaged", "; ".join(_bare(text, name) for text in report.problems))
            return None
        try:
            rows = decode_rows(path, row_type)
        except StokerError as error:
            self._tell(name, size, "damaged", _reason(error))
            return None
        if report.torn_bytes:
            behind = f"{report.n_rows:,} whole rows, then a torn tail of {report.torn_bytes:,} bytes"
            after = "being written" if self._is_live else "the next resume sets it aside"
            self._tell(name, size, "torn", f"{behind}; {after}")
        elif name in files.files_in(self._run.directory):
            self._tell(name, size, "ok", f"{report.n_rows:,} rows")
        attempts = () if self._metadata is None else self._metadata.attempts
        known = {attempt.number for attempt in attempts}
        if not self._is_live and (strange := sorted({row.attempt for row in rows} - known)):
            self._tell(name, size, "damaged", f"rows of attempts that the run does not know of: {strange}")
        return effective(rows, attempts)

    def _check_journal(self, run: TrainingRun) -> None:
        journal = run.journal
        segments = journal.segments()
        if not segments:
            return
        events = {point.events for point in self._points if point.events is not None}
        report = self._journal = journal.check(events)
        problems: dict[str, list[str]] = {}
        for problem in report.problems:
            name = next((one.path.name for one in segments if one.path.name in problem), "")
            problems.setdefault(name, []).append(_bare(problem, name))
        directory = journal.directory.name
        there = files.files_in(journal.directory)
        for segment in segments:
            name = segment.path.name
            if name not in there:  # pruned since, by a run that is live
                problems.pop(name, None)
                continue
            said = "; ".join(problems.pop(name, [])) or None
            text = f"attempt {segment.attempt}, from event {segment.first_event:,} on"
            self._tell(f"{directory}/{name}", segment.size, *_verdict(said, text))
        for said in problems.values():
            self._tell(directory, 0, "damaged", "; ".join(said))
        if report.torn_bytes:
            why = (
                "being written" if self._is_live else "where processes were killed; a resume passes them over"
            )
            self._tell(directory, 0, "torn", f"torn tails of {report.torn_bytes:,} bytes: {why}")

    def _check_leftovers(self) -> None:
        run = self._run
        for directory in (run.directory, run.checkpoints_directory, run.journal_directory):
            place = "" if directory == run.directory else f"{directory.name}/"
            for name, size in sorted(files.sizes_in(directory).items()):
                if said := _left(name):
                    self._tell(place + name, size, "note", said)


def _left(name: str) -> str | None:
    """What a file is that is no part of a run any more, or None."""
    return _LEFT.get(Path(name.rstrip("0123456789")).suffix)


def _attempts_problem(metadata: RunMetadata) -> str | None:
    numbers = [attempt.number for attempt in metadata.attempts]
    if not numbers or numbers != sorted(set(numbers)):
        return f"its attempts are numbered {numbers}"
    counts = [metadata.total_steps, metadata.total_episodes]
    counts += [
        count for one in metadata.attempts for count in (one.from_steps, one.from_episodes, one.from_events)
    ]
    return "a counter is negative" if min(counts) < 0 else None


def _verdict(problem: str | None, text: str) -> Iterator[str]:
    """Kind and text of a finding."""
    yield from ("ok", text) if problem is None else ("damaged", problem)


def _in_checkpoints(path: Path) -> str:
    return f"{naming.CHECKPOINTS}/{path.name}"


def _reason(error: Exception) -> str:
    """What is wrong, without the path that the finding names already."""
    if isinstance(error, KeyError):
        return f"it holds no {error}"
    path = getattr(error, "path", None)
    return str(error).removeprefix(f"{path}: ") if path else f"{type(error).__name__}: {error}"


def _bare(text: str, name: str) -> str:
    """A problem without the file's name in front."""
    return text.rpartition(f"{name}")[2].lstrip(": ") if name and text.count(name) == 1 else text
