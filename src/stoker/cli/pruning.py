"""``stoker prune``: remove the checkpoints and the parts of the journal that nobody needs any more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro
from anyio import to_thread

from stoker.cli.driving import run_async
from stoker.cli.formats import from_here, size
from stoker.cli.parsing import parse, required
from stoker.errors import ConfigError

if TYPE_CHECKING:
    from stoker.runs import Retention, TrainingRun

__all__ = ["PruneArguments", "prune_command"]

_DESCRIPTION = """Remove old step checkpoints, and what none of the newest needs of the journal.

Never latest.pt or the best policies. Refused while the run is training.
"""


class PruneArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker prune`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    keep: int = 3
    """How many of the newest step checkpoints stay; 0: only latest.pt."""

    every: int = 0
    """Those at multiples of so many steps stay as well; 0: none."""

    all_journal: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the whole journal, from which the training can be replayed."""

    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only show what would be removed."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one line of JSON instead of the list."""


class _Doomed(msgspec.Struct, frozen=True):
    """A file to remove, its size, and what that frees: nothing where it has a second name."""

    file: str
    bytes: int
    freed_bytes: int


def prune_command(args: Sequence[str]) -> int:
    """Run ``stoker prune`` and return its exit code.

    Raises:
        StokerError: There is no such run, it is training, or something cannot be read or removed.
    """
    arguments = parse("prune", PruneArguments, args, _DESCRIPTION)
    required(arguments.run, "prune", "a run", "runs/CartPole-v1")
    for flag, number in (("--keep", arguments.keep), ("--every", arguments.every)):
        if number < 0:
            raise ConfigError(f"{flag} {number}: give 0 or more (see `stoker prune --help`)")
    return run_async(_prune, arguments)


async def _prune(arguments: PruneArguments) -> int:
    from stoker.cli.stored import open_run
    from stoker.runs import Retention

    retention = Retention(last=arguments.keep, every=arguments.every, all_journal=arguments.all_journal)
    run = await open_run(arguments.run)
    if arguments.dry_run:
        _report(arguments, run, await to_thread.run_sync(_doomed, run, retention))
        return 0
    await to_thread.run_sync(run.acquire)
    try:
        doomed = await to_thread.run_sync(_doomed, run, retention)
        await to_thread.run_sync(run.prune, retention)
    finally:
        run.release()
    _report(arguments, run, doomed)
    return 0


def _doomed(run: TrainingRun, retention: Retention) -> list[_Doomed]:
    return [_measured(path, run.directory) for path in run.doomed(retention)]


def _measured(path: Path, root: Path) -> _Doomed:
    stat = path.stat()
    freed = stat.st_size if stat.st_nlink == 1 else 0
    return _Doomed(str(path.relative_to(root)), stat.st_size, freed)


def _report(arguments: PruneArguments, run: TrainingRun, doomed: Sequence[_Doomed]) -> None:
    freed = sum(file.freed_bytes for file in doomed)
    if arguments.json:
        head = {"run": str(run.directory), "dry_run": arguments.dry_run, "freed_bytes": freed}
        print(json.dumps({**head, "removed": msgspec.to_builtins(doomed)}))
        return
    print(f"run      {from_here(run.directory)}")
    width = max((len(file.file) for file in doomed), default=0)
    for file in doomed:
        second = "" if file.freed_bytes or not file.bytes else "   (has another name, which stays)"
        print(f"  {file.file:<{width}}  {size(file.bytes):>7}{second}")
    if not doomed:
        print("nothing to remove")
    elif arguments.dry_run:
        print(f"would remove {_count(doomed)} and free {size(freed)}; leave --dry-run out to do so")
    else:
        print(f"removed {_count(doomed)}, freed {size(freed)}")


def _count(doomed: Sequence[_Doomed]) -> str:
    return f"{len(doomed)} file{'s' * (len(doomed) != 1)}"
