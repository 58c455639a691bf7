"""Groups of runs, such as the seeds of one training, drawn as one curve each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stoker.runs.averaging import Comparison, LabeledCurve, Statistic, compared
from stoker.runs.configs import LeftOut
from stoker.runs.figures import FAINT, Look, caption, legend, looks, new_figure, new_panels
from stoker.runs.plotting import SMOOTHING, STEPS, Curves, evaluated, in_words
from stoker.runs.smoothing import Smoothing, smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHORT = 0.02
"""A part of the x axis on which a change of the number of runs is not worth a change of the line."""

_MOST_COUNTS = 4
"""How many numbers of runs fit beside the name of a panel."""


class CurveGroup(msgspec.Struct, frozen=True):
    """Runs that are one curve.

    Attributes:
        value: what they have in common, as ``agent=dqn``.
        env: their environment.
        runs: at least one.
    """

    value: str
    env: str
    runs: Sequence[Curves]


def draw_groups(
    groups: Sequence[CurveGroup],
    title: str = "",
    statistic: Statistic = "mean",
    smoothing: Smoothing = SMOOTHING,
) -> tuple[Figure, tuple[LeftOut, ...]]:
    """Draw each group of runs as one curve: reward above, length below.

    A thin line is a run, a thick one the mean or the interquartile mean, a band its 95 % interval over the
    runs, as far as the picture reaches; where some of the runs have not begun or have ended, the line is
    dashed. The reward is that of evaluations if all runs have at least two, else that of training episodes,
    smoothed. Groups of several environments get one picture for each environment, of rewards alone.

    Args:
        groups: the groups, at least one.
        title: what to write above the curves.
        statistic: ``mean`` or ``iqm``.
        smoothing: of training episodes.

    Returns:
        The figure, and the runs that are not in it.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    is_evaluated = all(len(evaluated(run).steps) > 1 for group in groups for run in group.runs)
    y = f"{'evaluation' if is_evaluated else 'episode'} reward"
    envs = list(dict.fromkeys(group.env for group in groups))
    look_of = dict(zip(dict.fromkeys(group.value for group in groups), looks(), strict=False))
    below: Any = None
    if len(envs) == 1:
        figure, above, below = new_figure(title, x=STEPS, above=y, below="episode length")
        axes_of = {envs[0]: above}
    else:
        figure, panels = new_panels(title, envs, x=STEPS, y=y)
        axes_of = dict(zip(envs, panels, strict=True))
    lines: dict[str, Any] = {}
    counts: dict[str, dict[str, tuple[int, int]]] = {env: {} for env in envs}
    left_out: list[LeftOut] = []
    for group in groups:
        look = look_of[group.value]
        if is_evaluated:
            curves = [_evaluation_curve(run) for run in group.runs]
        else:
            curves = [_training_curve(run, "total_reward", smoothing) for run in group.runs]
        strata = [run.version for run in group.runs]
        found = compared(curves, statistic, strata=strata)
        left_out += found.left_out
        if not len(found.x):
            continue
        line = _draw_group(axes_of[group.env], found, look)
        n = counts[group.env][group.value] = _counts(found)
        runs = f" ({_range(n)} run{'s' if max(n) > 1 else ''})" if len(envs) == 1 else ""
        lines[f"{group.value}{runs}"] = line
        if below is not None:
            lengths = [_training_curve(run, "length", smoothing) for run in group.runs]
            _draw_group(below, compared(lengths, statistic, strata=strata), look)
    for env, own in counts.items():
        if len(envs) > 1 and own:
            _write_counts(axes_of[env], [own[value] for value in look_of if value in own])
    for axes in figure.axes:
        _fit_to_lines(axes)
    legend(figure, list(lines), list(lines.values()))
    values = "evaluations" if is_evaluated else in_words(smoothing)
    name = "mean" if statistic == "mean" else "interquartile mean"
    interval = "Student's t" if statistic == "mean" else "bootstrap"
    caption(figure, f"{values}; thin: a run, thick: {name}, band: its 95 % interval ({interval})")
    return figure, tuple(left_out)


def _evaluation_curve(run: Curves) -> LabeledCurve:
    found = evaluated(run)
    return run.label, found.steps, found.means


def _training_curve(run: Curves, name: str, smoothing: Smoothing) -> LabeledCurve:
    """The smoothed values of training episodes, up to the step that the run has reached.

    The last episodes of the seeds of one training end at different steps, behind which their smoothed values
    stay what they are. Without that, the last of them would look like the mean of all.
    """
    steps, values = run.train["total_steps"], smoothed(run.train[name], smoothing)
    if len(steps) and run.total_steps > steps[-1]:
        steps, values = np.append(steps, run.total_steps), np.append(values, values[-1])
    return run.label, steps, values


def _draw_group(axes: Any, found: Comparison, look: Look) -> Any:
    """Draw a group; return its line."""
    for curve in found.curves if len(found.curves) > 1 else ():
        axes.plot(found.x, curve, color=look.color, linewidth=0.8, alpha=0.35, zorder=2)
    axes.fill_between(found.x, found.low, found.high, color=look.color, alpha=0.16, linewidth=0, zorder=1.5)
    is_dashed = _fewer_than_most(found)
    thick: Any = {"color": look.color, "linewidth": 2.2, "solid_joinstyle": "round", "zorder": 3}
    if is_dashed.any():
        # Each stretch reaches to the points beside it, so that the line has no hole.
        beside = is_dashed | np.append(is_dashed[1:], False) | np.append(False, is_dashed[:-1])
        axes.plot(found.x, np.where(beside, found.mid, np.nan), linestyle=(0, (1.6, 1.2)), **thick)
    drawn: Any = axes.plot(found.x, np.where(is_dashed, np.nan, found.mid), linestyle=look.dashes, **thick)
    return drawn[0]


def _fewer_than_most(found: Comparison) -> Any:
    """Whether, at each point, some of the runs are missing; short stretches do not count."""
    is_fewer = found.n < found.n.max(initial=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_fewer, [False]]).astype(int)))
    last = len(found.x) - 1
    for first, behind in zip(edges[::2], edges[1::2], strict=True):
        width = found.x[min(behind, last)] - found.x[max(first - 1, 0)]  # with the lines to both sides of it
        if width < _SHORT * (found.x[-1] - found.x[0]):
            is_fewer[first:behind] = False
    return is_fewer


def _write_counts(axes: Any, counts: Sequence[tuple[int, int]]) -> None:
    """Write how many runs the curves of a panel have, in the order of the legend."""
    if len(counts) > _MOST_COUNTS or len({*counts}) == 1:
        counts = [(min(fewest for fewest, _ in counts), max(most for _, most in counts))]
    axes.set_title(f"n = {', '.join(map(_range, counts))}", loc="right", fontsize=8, color=FAINT)


def _fit_to_lines(axes: Any) -> None:
    """Show all lines, and of the bands only what is near: the interval of two runs may be huge."""
    lines: Any = axes.lines
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    margin = 0.12 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _counts(found: Comparison) -> tuple[int, int]:
    """The fewest and the most runs, as far as the line shows it."""
    most = int(found.n.max())
    return (int(found.n.min()) if _fewer_than_most(found).any() else most), most


def _range(counts: tuple[int, int]) -> str:
    fewest, most = counts
    return f"{most}" if fewest == most else f"{fewest}\N{EN DASH}{most}"
