"""Learning curves of runs, for ``TrainingRun.plot`` and ``stoker plot``. Free of torch."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, MissingDependency, StokerError
from stoker.runs.averaging import compared
from stoker.runs.rows import Columns, evaluations_of
from stoker.runs.smoothing import Numbers, Smoothing, smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curves", "checked_target", "draw_curves", "draw_means", "running_mean", "save_figure"]

_SUFFIXES = (".png", ".svg", ".pdf")
_WINDOW = 50
Curve: TypeAlias = tuple[Numbers, Numbers]
# Okabe and Ito's colors, which stay apart for color-blind eyes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LOSS = "extras.loss_mean"


class Curves(msgspec.Struct, frozen=True):
    """The rows of one run, as columns."""

    label: str
    train: Columns
    evaluation: Columns


def checked_target(path: Path) -> Path:
    """The path, if a figure can be saved under that name.

    Raises:
        ConfigError: The name has another suffix.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: the name of a figure's file must end with {', '.join(_SUFFIXES)}")
    return path


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure under a name that ``checked_target`` has accepted. Blocks.

    Raises:
        StokerError: The file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StokerError(f"cannot write {path}: {error.strerror or error}") from error


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of each value and up to ``window - 1`` before it, float64 ``[N]``."""
    return smoothed(values, Smoothing("mean", window))


def draw_curves(curves: Sequence[Curves], title: str = "") -> Figure:
    """Draw reward above, and loss or episode length below.

    Each episode is a faint dot, their running mean over 50 a line, each evaluation's mean a ringed dot. A
    notebook displays the figure, whether or not pyplot is imported.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure, above, below = _axes(title)
    has_loss = any(_LOSS in run.train for run in curves)
    for run, color in zip(curves, itertools.cycle(_COLORS), strict=False):
        _draw_reward(above, run, color)
        _draw_line(below, run.train, _LOSS if has_loss else "length", color)
    _label(above, "episode reward", f"dot: episode, line: mean of {_WINDOW} episodes, ring: evaluation")
    below.set_ylabel("loss" if has_loss else "episode length")
    return figure


def draw_means(groups: Mapping[str, Sequence[Curves]], title: str = "") -> Figure:
    """Draw the mean reward of each group of runs, the seeds of one training, above, and their length below.

    A thin line is a run, a thick one the mean of a group, a band its 95 % interval over the runs, as far as
    the picture reaches. The reward is that of evaluations if all runs have at least two, else the running
    mean of training episodes.

    Args:
        groups: the runs by the group's name.
        title: what to write above the curves.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure, above, below = _axes(title)
    every = [run for runs in groups.values() for run in runs]
    is_evaluated = all(len(evaluations_of(run.evaluation)) > 1 for run in every)
    rewards = _evaluated if is_evaluated else partial(_smooth, name="total_reward")
    for (name, runs), color in zip(groups.items(), itertools.cycle(_COLORS), strict=False):
        seeds = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
        _draw_mean(above, [rewards(run) for run in runs], color, f"{name} ({seeds})")
        _draw_mean(below, [_smooth(run, "length") for run in runs], color, name)
    values = "evaluations" if is_evaluated else f"means of {_WINDOW} episodes"
    for axes in (above, below):  # the interval of two or three runs may be much wider than what they reach
        _fit_to_lines(axes)
    _label(above, "mean reward", f"{values}; thin: a run, thick: their mean, band: its 95 % interval")
    below.set_ylabel("episode length")
    return figure


def _axes(title: str) -> tuple[Any, Any, Any]:
    """A figure with two axes over the same environment steps."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "plot") from error
    figure: Any = Figure(figsize=(9, 6.2), layout="constrained")
    figure._repr_png_ = partial(_png, figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    below.set_xlabel("environment steps")
    below.xaxis.set_major_formatter("{x:,.0f}")
    for axes in (above, below):
        axes.grid(axis="y", color="#E6E6E6")
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    return figure, above, below


def _fit_to_lines(axes: Any) -> None:
    values: Any = np.concatenate([line.get_ydata() for line in axes.lines])
    low, high = float(values.min()), float(values.max())
    margin = 0.25 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _label(axes: Any, values: str, signs: str) -> None:
    axes.legend(loc="upper left", frameon=False, fontsize=9, title=signs, title_fontsize=8, alignment="left")
    axes.set_ylabel(values)


def _evaluated(run: Curves) -> Curve:
    found = evaluations_of(run.evaluation)
    steps = np.array([evaluation.total_steps for evaluation in found], np.float64)
    return steps, np.array([evaluation.mean_reward for evaluation in found])


def _smooth(run: Curves, name: str) -> Curve:
    steps, values = run.train["total_steps"], run.train[name]
    return steps.astype(np.float64), running_mean(values.astype(np.float64), _WINDOW)


def _draw_mean(axes: Any, curves: Sequence[Curve], color: str, label: str) -> None:
    for steps, values in curves:
        axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.45)
    found = compared([(label, steps, values) for steps, values in curves])
    axes.plot(found.x, found.mid, color=color, linewidth=2.2, label=label)
    axes.fill_between(found.x, found.low, found.high, color=color, alpha=0.18, linewidth=0)


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def _draw_reward(axes: Any, run: Curves, color: str) -> None:
    steps, rewards = run.train["total_steps"], run.train["total_reward"]
    # As pixels also in SVG and PDF: a hundred thousand dots would make a file too large to open.
    axes.plot(
        steps, rewards, ".", color=color, markersize=3.5, alpha=0.28, markeredgewidth=0, rasterized=True
    )
    axes.plot(steps, running_mean(rewards, _WINDOW), color=color, linewidth=2.0, label=run.label)
    if found := evaluations_of(run.evaluation):
        means = [(evaluation.total_steps, evaluation.mean_reward) for evaluation in found]
        ring = {"markersize": 6, "markerfacecolor": "white", "markeredgewidth": 1.6}
        axes.plot(*zip(*means, strict=True), "o-", color=color, linewidth=0.9, alpha=0.9, **ring)


def _draw_line(axes: Any, rows: Columns, name: str, color: str) -> None:
    if name not in rows:
        return
    known = np.isfinite(rows[name])
    values = rows[name][known].astype(np.float64)
    axes.plot(rows["total_steps"][known], running_mean(values, _WINDOW), color=color, linewidth=1.4)
