"""``stoker ls``: the runs of a runs directory, the newest first. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import tyro
from anyio import to_thread
from rich.table import Table
from rich.text import Text

from stoker.cli.driving import run_async
from stoker.cli.formats import ago
from stoker.cli.parsing import parse
from stoker.cli.tables import say
from stoker.errors import RunBroken, RunDirectoryError
from stoker.runs import TrainingRun, list_runs
from stoker.trainer.views.numbers import number

__all__ = ["LsArguments", "list_command", "status_of"]

_STYLES = {"live": "bold green", "done": "", "stopped": "yellow", "ended": "", "broken": "bold red"}


class LsArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker ls`` says."""

    dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = "runs"
    """The runs directory, or the directory of a name or version in it."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object per line and run."""


def list_command(args: Sequence[str]) -> int:
    """Run ``stoker ls`` and return its exit code.

    Raises:
        RunNotFound: There is no such directory.
    """
    arguments = parse("ls", LsArguments, args, "List the runs of a runs directory, the newest first.")
    return run_async(_list, arguments)


async def _list(arguments: LsArguments) -> int:
    found = await list_runs(arguments.dir)
    runs = [run for run in found if isinstance(run, TrainingRun)]
    runs.sort(key=lambda run: run.metadata.started_at, reverse=True)
    broken = [error for error in found if isinstance(error, RunDirectoryError)]
    statuses = [await status_of(run) for run in runs]
    if arguments.json:
        for run, status in zip(runs, statuses, strict=True):
            print(json.dumps(_as_json(run, status)))
        for error in broken:
            print(
                json.dumps({"run": str(Path(error.path).parent), "status": "broken", "problem": str(error)})
            )
        return 0
    if not found:
        print(f"no runs in {arguments.dir}; `stoker train CartPole-v1` makes one")
        return 0
    say(_table(runs, statuses, broken))
    for error in broken:
        print(f"broken: {error}")
    return 0


async def status_of(run: TrainingRun) -> str:
    """``live`` (a session writes it now), ``done`` (all its steps), ``stopped`` (fewer), or ``ended``.

    ``ended`` is a run without a config that says how many steps it was to have, as a session writes it.
    """
    if await to_thread.run_sync(run.holder) is not None:
        return "live"
    try:
        config = await run.read_config()
        total = cast("dict[str, Any]", config).get("total_timesteps") if isinstance(config, dict) else None
    except RunBroken:  # a session without the command line need not write one
        total = None
    if not isinstance(total, int):
        return "ended"
    return "done" if run.metadata.total_steps >= total else "stopped"


def _as_json(run: TrainingRun, status: str) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(run.metadata)
    del fields["attempts"]
    return {"run": str(run.directory), "status": status, **fields}


def _table(runs: list[TrainingRun], statuses: list[str], broken: list[RunDirectoryError]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("name", "version", "run"):
        table.add_column(name, no_wrap=name != "name", overflow="fold")
    for name in ("steps", "episodes", "best", "updated"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    now = datetime.now(UTC)
    for run, status in zip(runs, statuses, strict=True):
        metadata = run.metadata
        table.add_row(
            metadata.name,
            metadata.version,
            metadata.run_id,
            number(metadata.total_steps),
            number(metadata.total_episodes),
            number(metadata.best_value),
            ago(metadata.last_updated, now),
            Text(status, style=_STYLES[status]),
        )
    for error in broken:
        directory = Path(error.path).parent
        place = (*("", "", ""), *directory.parts)[-3:]
        table.add_row(*place, "-", "-", "-", "-", Text("broken", style=_STYLES["broken"]))
    return table
