"""``stoker ls``: the runs of a runs directory, in lines or in groups. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from anyio import to_thread
from rich.text import Text

from stoker.cli.listing import Condition, Listed, RunGroup, SortKey, grouped, listed, ordered, selected
from stoker.cli.options import Flag
from stoker.cli.parsing import Command
from stoker.cli.printing import ago, columns, say, say_json
from stoker.runs import list_runs
from stoker.trainer.views.text import number

_STYLES = {
    "live": "bold green",
    "stalled": "bold yellow",
    "stopped": "yellow",
    "crashed": "red",
    "broken": "bold red",
}


class Ls(Command, frozen=True, kw_only=True):
    """List the runs of a runs directory, the newest first.

    --filter takes conditions on name, version, run, status, steps, episodes, best, best_step, attempts, and
    any setting of config.json, such as --filter agent=ppo --filter 'env=ALE/*' --filter 'best>=400'; quotes
    keep the shell from reading > and *. A run is listed if all conditions hold.
    """

    dir: Annotated[str, Flag(metavar="DIR", is_positional=True)] = "runs"
    """The runs directory, or the directory of a name or version in it."""

    sort: SortKey = "started"
    """What comes first: the highest best or steps, the latest started or updated, the first name, or the live
    runs and those that need attention (status)."""

    filter: Annotated[tuple[str, ...], Flag(metavar="KEY=VALUE", repeats=True)] = ()
    """List only runs with this value: =, !=, >=, <=, > or <; repeat it for more conditions."""

    group: bool = False
    """One line for the runs of each name and version, such as the seeds of a sweep, with the mean of their
    best values and its 95 % interval."""

    json: bool = False
    """Print one JSON object per line and run, or per group."""

    async def __call__(self) -> int:
        conditions = [Condition.parse(text) for text in self.filter]
        found = await list_runs(self.dir)
        runs = selected(await to_thread.run_sync(listed, found), conditions)
        groups = [RunGroup(*run.place[:2], (run,)) for run in runs]
        if self.group:
            groups = await to_thread.run_sync(grouped, runs)
        groups = ordered(groups, self.sort)
        if self.json:
            for group in groups:
                say_json(_group_facts(group) if self.group else _facts(group.runs[0]))
        elif not found:
            print(f"no runs in {self.dir}; `stoker train CartPole-v1` makes one")
        elif not runs:
            print(f"none of the {len(found)} runs in {self.dir} is selected by {' '.join(self.filter)}")
        elif self.group:
            _say_groups(groups)
        else:
            _say_runs([group.runs[0] for group in groups])
        return 0


def _facts(run: Listed) -> dict[str, Any]:
    facts = {"run": str(run.directory), "status": run.status.name, "reason": run.status.reason}
    if run.metadata is None:
        return facts
    return {**facts, **msgspec.structs.asdict(run.metadata), "config": run.config}


def _group_facts(group: RunGroup) -> dict[str, Any]:
    steps, interval = [run.total_steps for run in group.known], group.interval
    return {
        "name": group.name,
        "version": group.version,
        "runs": [str(run.directory) for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        "n_seeds": group.n_seeds,
        "statuses": group.statuses,
        "min_steps": min(steps, default=None),
        "max_steps": max(steps, default=None),
        "n_best": len(group.bests),
        "mean_best": group.best,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "last_updated": max((run.last_updated for run in group.known), default=None),
    }


def _say_runs(runs: Sequence[Listed]) -> None:
    names = ("name", "version", "run", "seed", "steps", "best", "updated", "status")
    table, now = columns(names, numbers=range(3, 7)), datetime.now(UTC)
    for run in runs:
        status = Text(run.status.name, _STYLES.get(run.status.name, ""))
        if (found := run.metadata) is None:
            table.add_row(*run.place, *"----", status)
            continue
        seed = "-" if run.seed is None else str(run.seed)
        counts = map(number, (found.total_steps, found.best_value))
        table.add_row(*run.place, seed, *counts, ago(found.last_updated, now), status)
    say(table)
    _say_broken(runs)


def _say_groups(groups: Sequence[RunGroup]) -> None:
    names = ("name", "version", "runs", "steps", "best", "updated", "status")
    table, now = columns(names, numbers=range(2, 6)), datetime.now(UTC)
    for group in groups:
        counts, steps = group.statuses, [run.total_steps for run in group.known]
        text = ", ".join(f"{count} {name}" for name, count in counts.items())
        style = next((_STYLES[name] for name in counts if name in _STYLES), "")
        updated = [ago(max(run.last_updated for run in group.known), now)] if group.known else ["-"]
        n_runs, n_seeds = len(group.runs), group.n_seeds or 0
        runs = str(n_runs) if n_runs >= n_seeds else f"{n_runs} of {n_seeds}"
        cells = (runs, _span(steps), _best_of(group), *updated)
        table.add_row(group.name, group.version, *cells, Text(text, style))
    say(table)
    _say_broken([run for group in groups for run in group.runs])


def _span(steps: Sequence[int]) -> str:
    if not steps:
        return "-"
    low, high = min(steps), max(steps)
    return number(high) if low == high else f"{number(low)} to {number(high)}"


def _best_of(group: RunGroup) -> str:
    """The mean of the best values and half its interval; and of how many runs, where some have none."""
    text, interval = number(group.best), group.interval
    if interval is not None:
        text += f" ± {number((interval.high - interval.low) / 2)}"
    return text if len(group.bests) in (0, len(group.runs)) else f"{text} of {len(group.bests)}"


def _say_broken(runs: Sequence[Listed]) -> None:
    for run in runs:
        if run.metadata is None:
            print(f"broken: {run.status.reason}")
