"""``stoker plot``: learning curves of one or several runs, drawn with matplotlib. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

from stoker.cli.driving import run_async
from stoker.cli.parsing import parse, required
from stoker.cli.stored import open_run
from stoker.errors import ConfigError
from stoker.runs.plotting import Curves, checked_target, draw_curves, save_figure

__all__ = ["PlotArguments", "plot"]


class PlotArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker plot`` says."""

    runs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ] = ()
    """Directories of runs, or of versions or names: then their newest run."""

    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(required)")] = (
        ""
    )
    """Where to draw to: a .png, .svg or .pdf file."""

    title: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: none)")] = ""
    """What to write above the curves."""


def plot(args: Sequence[str]) -> int:
    """Run ``stoker plot`` and return its exit code.

    Raises:
        ConfigError: The file is of another kind.
        RunNotFound, RunBroken, RunDirectoryError: A run is missing, broken or has no rows yet.
        MissingDependency: matplotlib is not installed.
        StokerError: The file cannot be written.
    """
    arguments = parse("plot", PlotArguments, args, "Draw learning curves: reward over environment steps.")
    example = "runs/CartPole-v1 -o curve.png"
    required(" ".join(arguments.runs), "plot", "the runs to plot", example)
    output = Path(required(arguments.output, "plot", "the file to draw to", example))
    try:
        checked_target(output)
    except ConfigError as error:
        raise ConfigError(f"-o {error}") from error
    save_figure(draw_curves(run_async(_read, arguments.runs), arguments.title), output)
    print(output)
    return 0


async def _read(paths: Sequence[str]) -> list[Curves]:
    return [await (await open_run(path)).read_curves() for path in paths]
