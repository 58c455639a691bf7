"""Learning curves of runs, for ``TrainingRun.plot`` and ``stoker plot``. Free of torch."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError, MissingDependency, StokerError
from stoker.runs.rows import Columns, evaluations_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curves", "checked_target", "draw_curves", "running_mean", "save_figure"]

_SUFFIXES = (".png", ".svg", ".pdf")
_WINDOW = 50
# Okabe and Ito's colors, which stay apart for color-blind eyes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_INK = "#333333"


class Curves(msgspec.Struct, frozen=True):
    """The rows of one run, as columns."""

    label: str
    train: Columns
    evaluation: Columns

    @property
    def is_empty(self) -> bool:
        """Whether no episode has ended yet."""
        return not len(self.train["length"]) and not len(self.evaluation["length"])


def checked_target(path: Path) -> Path:
    """The path, if a figure can be saved under that name.

    Raises:
        ConfigError: The name has another suffix.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: the name of a figure's file must end with {', '.join(_SUFFIXES)}")
    return path


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure. Blocks.

    Raises:
        ConfigError: The name has another suffix than .png, .svg or .pdf.
        StokerError: The file cannot be written.
    """
    try:
        figure.savefig(checked_target(path), dpi=150)
    except OSError as error:
        raise StokerError(f"cannot write {path}: {error.strerror or error}") from error


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of each value and up to ``window - 1`` before it, float64 ``[N]``."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_curves(curves: Sequence[Curves], title: str = "") -> Figure:
    """Draw reward above, and loss or episode length below.

    Each episode is a faint dot, their running mean over 50 a line, each evaluation's mean a ringed dot. A
    notebook displays the figure, whether or not pyplot is imported.

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
    figure._repr_png_ = partial(_png, figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    has_loss = any("extras.loss_mean" in run.train for run in curves)
    has_epsilon = any("extras.epsilon" in run.train for run in curves)
    shares: Any = below.twinx() if has_epsilon else None
    paired = list(zip(curves, itertools.cycle(_COLORS), strict=False))
    for run, color in paired:
        _draw_reward(above, run, color)
        _draw_line(below, run.train, "extras.loss_mean" if has_loss else "length", color)
        if shares is not None and "extras.epsilon" in run.train:
            steps, epsilon = run.train["total_steps"], run.train["extras.epsilon"]
            shares.plot(steps, epsilon, color=color, linewidth=1.0, linestyle=":", alpha=0.9)
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
    names = [Line2D([], [], color=color, linewidth=2.2) for _, color in paired]
    legend = above.legend(names, [run.label for run in curves], loc="upper left", frameon=False, fontsize=9)
    above.add_artist(legend)
    _explain(above, Line2D, has_evaluations=any(len(run.evaluation["length"]) for run in curves))
    return figure


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
    axes.plot(steps, running_mean(rewards, _WINDOW), color=color, linewidth=2.0)
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
