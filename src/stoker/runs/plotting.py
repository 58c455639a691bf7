"""Learning curves of runs, for ``TrainingRun.plot`` and ``stoker plot``. Free of torch.

A picture has no more points than it has columns, however long the runs are: curves are smoothed over all
their points and then reduced to buckets, whose lowest and highest values stay visible as a band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import RunDirectoryError
from stoker.runs.bucketing import bucketed
from stoker.runs.figures import Look, caption, legend, looks, new_figure
from stoker.runs.history import read_table
from stoker.runs.metadata import RunMetadata
from stoker.runs.rows import Columns, EvalEpisodeRow, TrainEpisodeRow
from stoker.runs.smoothing import Numbers, Smoothing, smoothed
from stoker.stats.intervals import t_quantile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = Smoothing("mean", 50)
"""How training curves are smoothed, unless another smoothing is asked for."""

_COLUMNS = 1000
"""How many buckets a picture has room for."""
_MOST_DOTS = 1500
"""Above this many episodes, a band takes the place of their dots."""
_MOST_RAW = 3
"""Of more runs than this, single episodes would hide each other."""
_LOSS = "extras.loss_mean"
STEPS = "steps"
"""The name of the x axis."""


class Curves(msgspec.Struct, frozen=True):
    """The rows of one run, as columns.

    Attributes:
        version: name and version of the run, as ``CartPole-v1/v1``.
        run_id: its place below these.
        train: what is drawn of its training episodes.
        evaluation: what is drawn of its evaluation episodes.
        total_steps: environment steps that it has done.
    """

    version: str
    run_id: str
    train: Columns
    evaluation: Columns
    total_steps: int

    @property
    def label(self) -> str:
        """``CartPole-v1/v1/20260101_120000``."""
        return f"{self.version}/{self.run_id}"


class Evaluations(msgspec.Struct, frozen=True):
    """The evaluations of a run: the step of each, the mean reward, and half of its 95 % interval."""

    steps: Numbers
    means: Numbers
    halves: Numbers


def read_curves(directory: Path, metadata: RunMetadata) -> Curves:
    """Read what is drawn of a run. Blocks.

    Raises:
        RunDirectoryError: No episode has ended yet.
        RunBroken: A row is damaged; the message names it.
    """
    table, rows = read_table(directory, TrainEpisodeRow, fields=("total_reward", "length", "extras"))
    names = ("total_steps", "total_reward", "length", _LOSS)
    train = {name: table.column(name)[rows] for name in names if name in table.names}
    table, rows = read_table(directory, EvalEpisodeRow, fields=("total_reward",))
    evaluation = {name: table.column(name)[rows] for name in ("total_steps_at_eval", "total_reward")}
    if not len(train["length"]) and not len(evaluation["total_reward"]):
        raise RunDirectoryError(directory, "no episode has ended yet: there is nothing to plot")
    version = f"{metadata.name}/{metadata.version}"
    return Curves(version, metadata.run_id, train, evaluation, metadata.total_steps)


def draw_curves(curves: Sequence[Curves], title: str = "", smoothing: Smoothing = SMOOTHING) -> Figure:
    """Draw reward above, and loss or episode length below.

    Each episode is a faint dot; of long runs, a band reaches from the lowest to the highest. A line is the
    smoothed reward, a ring the mean of an evaluation with its 95 % interval, a filled one the best.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    has_loss = any(_LOSS in run.train for run in curves)
    below_name = "loss" if has_loss else "episode length"
    common = curves[0].version if len({run.version for run in curves}) == 1 else ""
    if len(curves) == 1:
        common = curves[0].label
    figure, above, below = new_figure(title or common, x=STEPS, above="episode reward", below=below_name)
    signs: dict[str, None] = {}
    lines: list[Any] = []
    for run, look in zip(curves, looks(), strict=False):
        if len(curves) <= _MOST_RAW:
            signs[_draw_episodes(above, run, look.color)] = None
        lines.append(_draw_smooth(above, run.train, "total_reward", look, smoothing))
        if _draw_evaluations(above, evaluated(run), look):
            signs["ring: evaluation, 95 % interval (filled: the best)"] = None
        _draw_smooth(below, run.train, _LOSS if has_loss else "length", look, smoothing)
    if len(curves) > 1:
        names = [run.run_id if run.version == common else run.label for run in curves]
        legend(figure, names, lines)
    caption(figure, ", ".join([*signs, f"line: {in_words(smoothing)}"]))
    return figure


def evaluated(run: Curves) -> Evaluations:
    """The evaluations of a run, in the order of their steps."""
    rows = run.evaluation
    steps, place, n = np.unique(rows["total_steps_at_eval"], return_inverse=True, return_counts=True)
    rewards = np.asarray(rows["total_reward"], np.float64)
    means = np.bincount(place, rewards, len(steps)) / n
    variances = np.bincount(place, (rewards - means[place]) ** 2, len(steps)) / np.maximum(n - 1, 1)
    factors = {k: t_quantile(int(k) - 1) if k > 1 else 0.0 for k in np.unique(n).tolist()}
    halves = np.array([factors[k] for k in n.tolist()]) * np.sqrt(variances / n)
    return Evaluations(steps.astype(np.float64), means, halves)


def _draw_episodes(axes: Any, run: Curves, color: str) -> str:
    """Draw the single episodes; return what the sign means."""
    steps, rewards = run.train["total_steps"], run.train["total_reward"]
    if len(rewards) <= _MOST_DOTS:
        axes.plot(steps, rewards, ".", color=color, markersize=5, alpha=0.35, markeredgewidth=0, zorder=1.5)
        return "dot: episode"
    found = bucketed(steps, rewards, n_points=_COLUMNS)
    axes.fill_between(found.x, found.min, found.max, color=color, alpha=0.16, linewidth=0.3, zorder=1.5)
    return "faint: lowest and highest episodes"


def _draw_smooth(axes: Any, rows: Columns, name: str, look: Look, smoothing: Smoothing) -> Any:
    """Draw a smoothed column of training rows, without its gaps; return the line."""
    at, line = _without_gaps(rows, name, smoothing)
    if len(at) > _COLUMNS:
        found = bucketed(at, line, n_points=_COLUMNS)
        at, line = found.x, found.mean
    drawn: Any = axes.plot(
        at, line, color=look.color, linestyle=look.dashes, linewidth=1.8, solid_joinstyle="round"
    )
    return drawn[0]


def _without_gaps(rows: Columns, name: str, smoothing: Smoothing) -> tuple[NDArray[Any], NDArray[Any]]:
    if name not in rows:
        return np.empty(0), np.empty(0)
    line = smoothed(rows[name], smoothing)
    is_known = np.isfinite(line)
    return rows["total_steps"][is_known], line[is_known]


def _draw_evaluations(axes: Any, found: Evaluations, look: Look) -> bool:
    """Draw the mean of each evaluation and its interval; return whether there are any."""
    if not len(found.steps):
        return False
    ring: Any = {"markersize": 5.5, "markeredgewidth": 1.5, "zorder": 4}
    is_crowded = len(found.steps) > 40
    axes.errorbar(
        found.steps,
        found.means,
        yerr=found.halves,
        fmt="-" if is_crowded else "o-",
        color=look.color,
        linewidth=0.9,
        elinewidth=1.1,
        alpha=0.95,
        markerfacecolor="white",
        **ring,
    )
    best = int(np.argmax(found.means))
    axes.plot(found.steps[best], found.means[best], "o", color=look.color, **(ring | {"zorder": 5}))
    return True


def in_words(smoothing: Smoothing) -> str:
    """A smoothing of episodes as the caption says it."""
    if smoothing.kind == "mean":
        return f"mean of {smoothing.amount:,.0f} episodes" if smoothing.amount > 1 else "each episode"
    return f"exponential mean, weight {smoothing.amount:g}"
