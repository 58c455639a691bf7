"""``stoker ls``: the runs of a runs directory. Imports no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from rich.text import Text

from stoker.cli.parsing import Command, Flag
from stoker.cli.printing import ago, columns, say, say_json
from stoker.runs import TrainingRun, list_runs
from stoker.runs.status import status_of
from stoker.trainer.views.text import number

__all__ = ["Ls"]

_STYLES = {"live": "bold green", "stalled": "bold yellow", "stopped": "yellow", "crashed": "red"}


class Ls(Command, frozen=True, kw_only=True):
    """List the runs of a runs directory, the newest first."""

    dir: Annotated[str, Flag(metavar="DIR", is_positional=True)] = "runs"
    """The runs directory, or the directory of a name or version in it."""

    json: bool = False
    """Print one JSON object per line and run."""

    async def __call__(self) -> int:
        found = await list_runs(self.dir)
        runs = [(run, status_of(run)) for run in found if isinstance(run, TrainingRun)]
        runs.sort(key=lambda row: row[0].metadata.started_at, reverse=True)
        broken = [(Path(error.path).parent, error) for error in found if not isinstance(error, TrainingRun)]
        if self.json:
            for run, status in runs:
                says = {"status": status.name, "reason": status.reason}
                say_json({"run": str(run.directory), **says, **msgspec.structs.asdict(run.metadata)})
            for directory, error in broken:
                say_json({"run": str(directory), "status": "broken", "reason": str(error)})
            return 0
        if not found:
            print(f"no runs in {self.dir}; `stoker train CartPole-v1` makes one")
            return 0
        names = ("name", "version", "run", "steps", "episodes", "best", "updated", "status")
        table = columns(names, numbers=range(3, 7))
        now = datetime.now(UTC)
        for run, status in runs:
            metadata = run.metadata
            counts = map(number, (metadata.total_steps, metadata.total_episodes, metadata.best_value))
            place = (metadata.name, metadata.version, metadata.run_id)
            style = _STYLES.get(status.name, "")
            table.add_row(*place, *counts, ago(metadata.last_updated, now), Text(status.name, style))
        for directory, _ in broken:
            place = (*("", "", ""), *directory.parts)[-3:]
            table.add_row(*place, *"----", Text("broken", "bold red"))
        say(table)
        for _, error in broken:
            print(f"broken: {error}")
        return 0
