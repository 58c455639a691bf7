"""``stoker plot``: pictures of learning curves, of single runs or of groups of seeds. Imports no torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from anyio import to_thread

from stoker.cli.options import Flag
from stoker.cli.parsing import Command
from stoker.cli.stored import open_run, written_config
from stoker.errors import ConfigError, RunBroken, RunDirectoryError
from stoker.runs import TrainingRun, list_runs
from stoker.runs.configs import Facts, flat_settings, grouped
from stoker.runs.figures import checked_target, save_figure
from stoker.runs.group_plotting import CurveGroup, draw_groups
from stoker.runs.layout import is_run
from stoker.runs.plotting import SMOOTHING, Curves, draw_curves
from stoker.runs.smoothing import Smoothing

_logger = logging.getLogger("stoker.cli")
_EXAMPLE = "such as `stoker plot runs/CartPole-v1 -o curve.png`"


class Plot(Command, frozen=True, kw_only=True):
    """Draw learning curves: reward over environment steps.

    With --group-by or --statistic, the runs of a group, such as five seeds, are one curve with its 95 %
    interval, and the directory of a name or version means all of its runs.
    """

    runs: Annotated[
        tuple[str, ...],
        Flag(
            metavar="RUN [RUN ...]", missing=f"the runs to plot, {_EXAMPLE}", is_positional=True, repeats=True
        ),
    ]
    """Directories of runs, or of versions or names: then their newest run."""

    output: Annotated[str, Flag(short="-o", metavar="FILE", missing=f"the file to draw to, {_EXAMPLE}")]
    """Where to draw to: a .png, .svg or .pdf file."""

    group_by: Annotated[str | None, Flag(metavar="KEY", default="with --statistic: version")] = None
    """What the runs of a group have in common: version, or a setting of config.json, such as agent or
    agent_settings.learning_rate."""

    statistic: Annotated[Literal["mean", "iqm"] | None, Flag(default="with --group-by: mean")] = None
    """What the line of a group is: the mean, with Student's interval, or the interquartile mean, which one
    lucky seed cannot carry, with a stratified bootstrap interval."""

    smooth: Annotated[str, Flag(metavar="mean:WINDOW|ema:WEIGHT")] = str(SMOOTHING)
    """How training episodes are smoothed."""

    title: str = ""
    """What to write above the curves."""

    async def __call__(self) -> int:
        target, smoothing = checked_target(Path(self.output)), Smoothing.parse(self.smooth)
        is_grouped = self.group_by is not None or self.statistic is not None
        found = [await _all_runs(path) if is_grouped else [await open_run(path)] for path in self.runs]
        runs = list({run.directory: run for runs in found for run in runs}.values())  # each once
        if is_grouped:
            figure = await self._groups(runs, smoothing)
        else:
            curves = [await to_thread.run_sync(run.curves) for run in runs]
            figure = draw_curves(curves, self.title, smoothing)
        save_figure(figure, target)
        print(target)
        return 0

    async def _groups(self, runs: list[TrainingRun], smoothing: Smoothing) -> Any:
        facts = [
            Facts(f"{run.metadata.name}/{run.metadata.version}", flat_settings(await written_config(run)))
            for run in runs
        ]
        key = self.group_by or "version"
        groups, absent = grouped(facts, key)
        firsts = {group.label: facts[group.members[0]].settings.get(key) for group in groups}
        if all(isinstance(value, int | float) for value in firsts.values()):
            groups.sort(key=lambda group: cast("float", firsts[group.label]))
        for place in absent:
            _logger.warning("%s is left out: its config has no %s", runs[place].directory, key)
        found: list[CurveGroup] = []
        for group in groups:
            members = [runs[place] for place in group.members]
            if curves := [read for run in members if (read := await _curves_of(run)) is not None]:
                found.append(CurveGroup(group.value, group.env, curves))
        if not found:
            raise ConfigError("no episode has ended yet in any of these runs: there is nothing to plot")
        figure, left_out = draw_groups(found, self.title, self.statistic or "mean", smoothing)
        for left in left_out:
            _logger.warning("%s is left out: %s", left.label, left.reason)
        return figure


async def _curves_of(run: TrainingRun) -> Curves | None:
    """What to draw of a run; None: nothing yet, which is logged."""
    try:
        return await to_thread.run_sync(run.curves)
    except RunBroken:
        raise
    except RunDirectoryError as error:
        _logger.warning("%s", error)
        return None


async def _all_runs(path: str) -> list[TrainingRun]:
    """All runs below a directory; a broken one is left out with a warning."""
    if is_run(Path(path)) or not (found := await list_runs(path)):
        return [await open_run(path)]
    for error in found:
        if not isinstance(error, TrainingRun):
            _logger.warning("left out: %s", error)
    return [run for run in found if isinstance(run, TrainingRun)]
