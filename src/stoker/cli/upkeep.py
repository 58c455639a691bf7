"""``stoker verify``, ``fork`` and ``prune``: check, copy and thin out the files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from anyio import to_thread
from rich.filesize import decimal as size
from rich.text import Text

from stoker.cli.options import Flag
from stoker.cli.parsing import RunCommand
from stoker.cli.printing import columns, command, counted, from_here, say, say_json
from stoker.cli.stored import open_run, policies_at
from stoker.errors import RunBroken
from stoker.runs import Retention, TrainingRun, fork as fork_run
from stoker.runs.verifying import Finding, verify_run
from stoker.settings import Natural
from stoker.trainer.views.text import number


class Verify(RunCommand, frozen=True, kw_only=True):
    """Check every file of a run: checksums, rows, journal, agreement of counters.

    What a kill leaves behind is reported and does not count as damage. Nothing is changed. Of a training of
    several policies, the run of each is checked. Exit code 1 if a file is damaged.
    """

    async def __call__(self) -> int:
        paths = await to_thread.run_sync(policies_at, self.run)
        return max([await self._verify(path) for path in paths])

    async def _verify(self, path: str) -> int:
        try:
            run = await open_run(path)
        except RunBroken as error:
            directory, findings = _of_broken(error)
        else:
            directory = run.directory
            findings = await to_thread.run_sync(verify_run, run, abandon_on_cancel=True)
        is_damaged = any(finding.kind == "damaged" for finding in findings)
        if self.json:
            say_json({"run": str(directory), "whole": not is_damaged, "findings": findings})
        else:
            _print_findings(directory, findings)
        return int(is_damaged)


def _of_broken(error: RunBroken) -> tuple[Path, list[Finding]]:
    """The finding about the metadata of a run that cannot be opened; nothing else can be checked then."""
    path = Path(error.path)
    if path.is_dir():  # none of several runs can be read
        raise error
    n_bytes = path.stat().st_size if path.exists() else 0
    return path.parent, [Finding(path.name, n_bytes, "damaged", str(error).removeprefix(f"{path}: "))]


_STYLES = {"ok": "green", "torn": "yellow", "damaged": "bold red", "note": "cyan"}


def _print_findings(directory: Path, findings: Sequence[Finding]) -> None:
    table = columns([""] * 4, numbers=[1], folds=3)
    for finding in findings:
        n_bytes = size(finding.size) if finding.size else ""
        kind = Text("DAMAGED" if finding.kind == "damaged" else finding.kind, _STYLES[finding.kind])
        table.add_row(Text(finding.file or "run"), n_bytes, kind, Text(finding.text))
    say(table)
    damaged = sorted({finding.file or "run" for finding in findings if finding.kind == "damaged"})
    verdict = f"DAMAGED: {', '.join(damaged)}" if damaged else "whole"
    if not damaged and any(finding.kind == "torn" for finding in findings):
        verdict += ", but for the torn end that a kill leaves"
    print(f"{from_here(directory)}: {verdict}")


class Fork(RunCommand, frozen=True, kw_only=True):
    """Make a new run that begins with a checkpoint of another one: its history, config and replay.

    The other run is only read: it may be training. `stoker resume` continues the new one.
    """

    at_step: Annotated[Natural, Flag(metavar="STEP", missing="the step of a checkpoint")]
    """Which checkpoint to begin with; `stoker show` lists them."""

    name: Annotated[str, Flag(metavar="NAME", missing="the new run")]
    """Name of the new run."""

    run_version: Annotated[str, Flag(metavar="VERSION")] = "v1"
    """Version of the new run: it goes to RUNS-DIR/NAME/VERSION."""

    runs_dir: Annotated[str, Flag(metavar="DIR")] = "runs"
    """The directory of all runs."""

    without_replay: bool = False
    """Begin with an empty replay; needs no journal."""

    async def __call__(self) -> int:
        source = await open_run(self.run)
        place, with_replay = (self.name, self.run_version), not self.without_replay
        forked = await fork_run(source, self.at_step, *place, root=self.runs_dir, with_replay=with_replay)
        if self.json:
            say_json({"run": str(forked.directory), **msgspec.structs.asdict(forked.metadata)})
            return 0
        print(f"run      {from_here(forked.directory)}")
        print(f"from     {from_here(source.directory)}, step {number(self.at_step)}")
        print(f"resume   {command(['stoker', 'resume', str(forked.directory)])}")
        return 0


class Prune(RunCommand, frozen=True, kw_only=True):
    """Remove old step checkpoints, and what none of the newest needs of the journal.

    Never latest.pt or the best policies. Refused while the run is training.
    """

    keep: Natural = 3
    """How many of the newest step checkpoints stay; 0: only latest.pt."""

    every: Natural = 0
    """Also keep step checkpoints at multiples of this many steps; 0: none."""

    all_journal: bool = False
    """Keep the whole journal, from which the training can be replayed."""

    dry_run: bool = False
    """Only show what would be removed."""

    async def __call__(self) -> int:
        run = await open_run(self.run)
        retention = Retention(last=self.keep, every=self.every, all_journal=self.all_journal)
        removed = await to_thread.run_sync(_prune, run, retention, self.dry_run)
        freed = sum(file["freed_bytes"] for file in removed)
        if self.json:
            head = {"run": str(run.directory), "dry_run": self.dry_run, "freed_bytes": freed}
            say_json({**head, "removed": removed})
            return 0
        print(f"run      {from_here(run.directory)}")
        width = max((len(file["file"]) for file in removed), default=0)
        for file in removed:
            second = "" if file["freed_bytes"] or not file["bytes"] else "   (has another name, which stays)"
            print(f"  {file['file']:<{width}}  {size(file['bytes']):>9}{second}")
        count = counted(len(removed), "file")
        if not removed:
            print("nothing to remove")
        elif self.dry_run:
            print(f"would remove {count} and free {size(freed)}; leave --dry-run out to do so")
        else:
            print(f"removed {count}, freed {size(freed)}")
        return 0


def _prune(run: TrainingRun, retention: Retention, dry_run: bool) -> list[dict[str, Any]]:
    """Measure the files that go, and remove them unless this is a dry run. Blocks."""
    if not dry_run:
        run.acquire()
    try:
        removed: list[dict[str, Any]] = []
        for path in run.doomed(retention):
            stat = path.stat()
            freed = stat.st_size if stat.st_nlink == 1 else 0  # else it has a second name
            file = str(path.relative_to(run.directory))
            removed.append({"file": file, "bytes": stat.st_size, "freed_bytes": freed})
        if not dry_run:
            run.prune(retention)
    finally:
        run.release()
    return removed
