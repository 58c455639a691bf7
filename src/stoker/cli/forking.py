"""``stoker fork``: a new run that begins with a checkpoint of another one. The other one is only read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import msgspec
import tyro

from stoker.cli.driving import run_async
from stoker.cli.formats import command, from_here
from stoker.cli.parsing import parse, required
from stoker.errors import ConfigError
from stoker.trainer.views.numbers import number

__all__ = ["ForkArguments", "fork_command"]

_DESCRIPTION = """Make a new run that begins with a checkpoint of another one: its history, config and replay.

The other run is only read: it may be training. `stoker resume` continues the new one.
"""


class ForkArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker fork`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    at_step: Annotated[int | None, tyro.conf.arg(metavar="STEP", help_behavior_hint="(required)")] = None
    """Which checkpoint to begin with; `stoker show` lists them."""

    name: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="(required)")] = ""
    """Name of the new run."""

    run_version: Annotated[str, tyro.conf.arg(metavar="VERSION")] = "v1"
    """Version of the new run: it goes to RUNS-DIR/NAME/VERSION."""

    runs_dir: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs"
    """The directory of all runs."""

    without_replay: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin with an empty replay; needs no journal."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one line of JSON instead of the report."""


def fork_command(args: Sequence[str]) -> int:
    """Run ``stoker fork`` and return its exit code.

    Raises:
        StokerError: There is no such run or checkpoint, or it cannot be copied.
    """
    arguments = parse("fork", ForkArguments, args, _DESCRIPTION)
    required(arguments.run, "fork", "a run", "runs/CartPole-v1 --at-step 10000 --name variant")
    if arguments.at_step is None or arguments.at_step < 0:
        said = "" if arguments.at_step is None else f" {arguments.at_step}"
        raise ConfigError(f"--at-step{said}: name the step of a checkpoint (see `stoker fork --help`)")
    if not arguments.name:
        raise ConfigError("--name: name the new run (see `stoker fork --help`)")
    return run_async(_fork, arguments)


async def _fork(arguments: ForkArguments) -> int:
    from stoker.cli.stored import open_run
    from stoker.runs import fork

    source = await open_run(arguments.run)
    forked = await fork(
        source,
        arguments.at_step or 0,
        arguments.name,
        arguments.run_version,
        root=arguments.runs_dir,
        with_replay=not arguments.without_replay,
    )
    metadata = forked.metadata
    if arguments.json:
        fields = {"run": str(forked.directory), **msgspec.to_builtins(metadata)}
        del fields["attempts"]
        print(json.dumps(fields))
        return 0
    print(f"run      {from_here(forked.directory)}")
    print(f"from     {from_here(source.directory)}, step {number(metadata.total_steps)}")
    print(f"go on    {command(['stoker', 'resume', str(forked.directory)])}")
    return 0
