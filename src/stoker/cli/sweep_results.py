"""What came of a sweep: a line per seed, and the mean and interquartile mean over those that are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from stoker.cli.driving import STOPPED
from stoker.cli.printing import columns, command, counted, from_here, labeled, say
from stoker.cli.sweep_views import FAILED, WAITING, SeedRun
from stoker.errors import RunBroken
from stoker.runs import TrainingRun
from stoker.runs.rows import evaluations_of
from stoker.stats.intervals import bootstrap_interval, interquartile_mean, interquartile_means, mean_interval
from stoker.trainer.views.text import duration, number

_UNFINISHED = {WAITING, FAILED, *(word.lower() for word in STOPPED)}
_VALUES = {"best_eval_reward": "best evaluation", "last_eval_reward": "last evaluation"}
"""What is averaged over seeds, and what it is called."""


class SeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed.

    Attributes:
        seed: the seed.
        run: the directory of its run; None: it has not begun.
        state: how it ended, in a word or two.
        exit_code: that of its process; None: it had nothing to do, or has not begun.
        failure: how and why it failed, or why its run cannot be read; "": neither is so.
        total_steps, total_episodes: over all attempts.
        best_eval_reward, last_eval_reward: mean rewards of the best and the last evaluation, if any.
    """

    seed: int
    run: str | None
    state: str
    exit_code: int | None
    failure: str
    total_steps: int = 0
    total_episodes: int = 0
    best_eval_reward: float | None = None
    last_eval_reward: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to resume."""
        return self.state not in _UNFINISHED


class Aggregate(msgspec.Struct, frozen=True):
    """A value over seeds: its mean and its interquartile mean, each with the 95 % interval."""

    n: int
    mean: float
    low: float
    high: float
    iqm: float
    iqm_low: float
    iqm_high: float

    def __str__(self) -> str:
        if self.n == 1:
            return f"{number(self.mean)}, of one seed"
        return (
            f"mean {number(self.mean)} [{number(self.low)}, {number(self.high)}], "
            f"IQM {number(self.iqm)} [{number(self.iqm_low)}, {number(self.iqm_high)}], of {self.n} seeds"
        )


def aggregate(values: Sequence[float | None]) -> Aggregate | None:
    """The aggregate of the values that there are; None without one."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    of_mean, of_iqm = mean_interval(known), bootstrap_interval(known, interquartile_means)
    mean, iqm = sum(known) / len(known), interquartile_mean(known)
    return Aggregate(len(known), mean, of_mean.low, of_mean.high, iqm, of_iqm.low, of_iqm.high)


async def results_of(seeds: Sequence[SeedRun]) -> list[SeedResult]:
    """What is on disk of each seed."""
    return [await _result_of(seed) for seed in seeds]


async def _result_of(seed: SeedRun) -> SeedResult:
    place = None if seed.run is None else str(seed.run)
    failure = seed.failure if seed.state == FAILED else ""
    result = SeedResult(
        seed=seed.seed, run=place, state=seed.state, exit_code=seed.exit_code, failure=failure
    )
    if seed.run is None:
        return result
    try:
        run = await TrainingRun.open(seed.run)
        evaluations = evaluations_of(await run.read_eval_episodes())
    except RunBroken as error:
        return msgspec.structs.replace(result, failure=failure or str(error))
    return msgspec.structs.replace(
        result,
        total_steps=run.metadata.total_steps,
        total_episodes=run.metadata.total_episodes,
        best_eval_reward=run.metadata.best_value,
        last_eval_reward=evaluations[-1].mean_reward if evaluations else None,
    )


def _aggregates(results: Sequence[SeedResult]) -> Mapping[str, Aggregate | None]:
    """Over the seeds that are done, since the values of the others are lower."""
    return {
        name: aggregate([getattr(result, name) for result in results if result.is_finished])
        for name in _VALUES
    }


def sweep_facts(version: Path, results: Sequence[SeedResult]) -> dict[str, Any]:
    """The line of JSON that ends a sweep."""
    return {"version": str(version), "runs": results, **_aggregates(results)}


def say_results(results: Sequence[SeedResult], took_s: float, version: Path, file: IO[str] | None) -> None:
    """Print the result; None: to standard output."""
    n_done = sum(result.is_finished for result in results)
    failed = [result for result in results if result.state == FAILED]
    n_seeds, took = len(results), duration(took_s)
    if n_done == n_seeds:
        print(f"Done: {counted(n_seeds, 'seed')} in {took}", file=file)
    else:
        head = "Failed" if failed else "Interrupted"
        print(f"{head}: {n_done} of {n_seeds} seeds are done, after {took}", file=file)
    names = ("seed", "run", "state", "steps", "episodes", "best", "last evaluation")
    table = columns(names, numbers=(0, *range(3, 7)))
    for result in results:
        counts = (result.total_steps, result.total_episodes, result.best_eval_reward, result.last_eval_reward)
        run = "-" if result.run is None else Path(result.run).name
        table.add_row(str(result.seed), run, result.state, *map(number, counts))
    say(table, file)
    path, averages = str(version), _aggregates(results)
    rows = [(label, str(averages[name])) for name, label in _VALUES.items() if averages[name] is not None]
    rows += [(f"seed {result.seed} failed", result.failure) for result in failed]
    rows.append(("version", from_here(version)))
    if n_done:
        rows.append(
            ("see the curves", command(["stoker", "plot", path, "--group-by", "version", "-o", "curves.png"]))
        )
    if n_done < len(results):
        rows.append(("resume", command(["stoker", "resume", path])))
    print("\n".join(labeled(dict(rows))), file=file)
