"""``stoker plot``: learning curves of one or several runs, drawn with matplotlib. Free of torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
import numpy as np
import tyro
from numpy.typing import NDArray

from stoker.cli.driving import run_async
from stoker.cli.parsing import parse, required
from stoker.cli.showing import evaluations_of
from stoker.cli.stored import open_run
from stoker.errors import ConfigError, MissingDependency, RunDirectoryError, StokerError
from stoker.runs import Columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curves", "PlotArguments", "draw_curves", "plot", "running_mean"]

SUFFIXES = (".png", ".svg", ".pdf")
_WINDOW = 50
# Okabe and Ito's colours, which stay apart for colour-blind eyes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_INK = "#333333"


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


class Curves(msgspec.Struct, frozen=True):
    """The rows of one run, as columns."""

    label: str
    train: Columns
    evaluation: Columns


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
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"-o {arguments.output}: the file's name must end with {', '.join(SUFFIXES)}")
    figure: Any = draw_curves(run_async(_read, arguments.runs), arguments.title)
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise StokerError(f"cannot write {output}: {error.strerror or error}") from error
    print(output)
    return 0


async def _read(paths: Sequence[str]) -> list[Curves]:
    found: list[Curves] = []
    for path in paths:
        run = await open_run(path)
        train, evaluation = await run.read_train_episodes(), await run.read_eval_episodes()
        if not len(train["total_reward"]) and not len(evaluation["total_reward"]):
            raise RunDirectoryError(run.directory, "no episode has ended yet: there is nothing to plot")
        metadata = run.metadata
        found.append(Curves(f"{metadata.name}/{metadata.version}/{metadata.run_id}", train, evaluation))
        await anyio.lowlevel.checkpoint()
    return found


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of each value and up to ``window - 1`` before it, float64 ``[N]``."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_curves(curves: Sequence[Curves], title: str = "") -> Figure:
    """Draw reward above, and loss or episode length below.

    Each episode is a faint dot, their running mean over 50 a line, each evaluation's mean a ringed dot.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise MissingDependency("matplotlib", "plot") from error
    figure: Any = Figure(figsize=(9, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    has_loss = any("extras.loss_mean" in run.train for run in curves)
    has_epsilon = any("extras.epsilon" in run.train for run in curves)
    shares: Any = below.twinx() if has_epsilon else None
    for run, colour in zip(curves, itertools.cycle(_COLOURS), strict=False):
        _draw_reward(above, run, colour)
        _draw_line(below, run.train, "extras.loss_mean" if has_loss else "length", colour)
        if shares is not None and "extras.epsilon" in run.train:
            steps, epsilon = run.train["total_steps"], run.train["extras.epsilon"]
            shares.plot(steps, epsilon, color=colour, linewidth=1.0, linestyle=":", alpha=0.9)
    above.set_ylabel("episode reward")
    below.set_ylabel("loss" if has_loss else "episode length")
    below.set_xlabel("environment steps")
    below.xaxis.set_major_formatter("{x:,.0f}")
    if shares is not None:
        shares.set_ylabel("epsilon (dotted)")
        shares.set_ylim(-0.03, 1.03)
    for axes in (above, below, *([] if shares is None else [shares])):
        _tidy(axes, right=axes is shares)
    if title:
        figure.suptitle(title, color=_INK, fontsize=13)
    names = [Line2D([], [], color=colour, linewidth=2.2) for _, colour in _paired(curves)]
    legend = above.legend(names, [run.label for run in curves], loc="upper left", frameon=False, fontsize=9)
    above.add_artist(legend)
    _explain(above, Line2D, has_evaluations=any(len(run.evaluation["length"]) for run in curves))
    return figure


def _paired(curves: Sequence[Curves]) -> list[tuple[Curves, str]]:
    return list(zip(curves, itertools.cycle(_COLOURS), strict=False))


def _draw_reward(axes: Any, run: Curves, colour: str) -> None:
    steps, rewards = run.train["total_steps"], run.train["total_reward"]
    # As pixels also in SVG and PDF: a hundred thousand dots would make a file that nobody can open.
    axes.plot(
        steps, rewards, ".", color=colour, markersize=3.5, alpha=0.28, markeredgewidth=0, rasterized=True
    )
    axes.plot(steps, running_mean(rewards, _WINDOW), color=colour, linewidth=2.0)
    found = evaluations_of(run.evaluation)
    if found:
        axes.plot(
            [evaluation.total_steps for evaluation in found],
            [evaluation.mean_reward for evaluation in found],
            "o-",
            color=colour,
            linewidth=0.9,
            alpha=0.9,
            markersize=6,
            markerfacecolor="white",
            markeredgewidth=1.6,
        )


def _draw_line(axes: Any, rows: Columns, name: str, colour: str) -> None:
    if name not in rows:
        return
    known = np.isfinite(rows[name])
    values = rows[name][known].astype(np.float64)
    axes.plot(rows["total_steps"][known], running_mean(values, _WINDOW), color=colour, linewidth=1.4)


def _tidy(axes: Any, *, right: bool = False) -> None:
    for side in ("top", "left" if right else "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "right", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    axes.tick_params(colors=_INK, length=3, labelsize=9)
    axes.yaxis.label.set_color(_INK)
    axes.xaxis.label.set_color(_INK)
    if not right:
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)


def _explain(axes: Any, line: Any, *, has_evaluations: bool) -> None:
    """What dots, line and rings mean, in grey."""
    grey = "#777777"
    signs = [
        line([], [], color=grey, marker=".", linestyle="", markersize=5, alpha=0.5),
        line([], [], color=grey, linewidth=2.0),
    ]
    names = ["episode", f"mean of {_WINDOW} episodes"]
    if has_evaluations:
        signs.append(line([], [], color=grey, marker="o", markerfacecolor="white", linewidth=0.9))
        names.append("evaluation")
    axes.legend(signs, names, loc="lower right", frameon=False, fontsize=8, labelcolor=grey)
