"""``stoker train --seeds``, and the resume of a version that it made: which seeds to train, what to say."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread

from stoker.cli.driving import DONE, STOPPED
from stoker.cli.fitting import fitted
from stoker.cli.limits import TrainingCommand
from stoker.cli.printing import command, from_here, say_json
from stoker.cli.seeds import text_of
from stoker.cli.stored import discard_version
from stoker.cli.sweep_messages import Order
from stoker.cli.sweep_results import results_of, say_results, sweep_facts
from stoker.cli.sweep_views import FAILED, SeedRun
from stoker.cli.sweeping import Sweeper
from stoker.errors import ConfigError, RunBroken, StokerError
from stoker.runs.event_rows import EVENTS
from stoker.runs.sweeps import SWEEP, Sweep, SweepVersion, runs_by_seed
from stoker.trainer.config import TrainConfig, config_from, name_of
from stoker.writer import files


async def train_seeds(
    flags: TrainingCommand, training: TrainConfig, seeds: Sequence[int], jobs: int, name: Path, version: str
) -> int:
    """Make a version, and train a run of each seed in it; the exit code.

    Args:
        flags: how to train.
        training: the settings.
        seeds: the seeds; that of the settings is not used.
        jobs: how many are trained at once.
        name: the directory of the runs' name.
        version: of the runs; "": a new one.

    Raises:
        ConfigError: The settings cannot be used, or not in that version; nothing is left behind.
        RunLocked: Another process trains this sweep.
        StokerError: No seed could begin; nothing is left behind.
    """
    from stoker.trainer.vectorizing import LEAST_ENVS

    with Sweeper(flags) as sweeper, contextlib.ExitStack() as ending:
        config, said = await fitted(training)  # before a process is started: a wrong name is reported at once
        sweeper.begin()
        sweep = Sweep(seeds=tuple(seeds), jobs=jobs, config=_without_seed(config))
        made = await to_thread.run_sync(SweepVersion.make, name, version, sweep)
        ending.callback(made.release)
        sweeper.say(f"training {_counted(config, seeds, jobs)}; version: {from_here(made.directory)}")
        if config.offline or (training.vectorize == "auto" and config.num_envs >= LEAST_ENVS):
            sweeper.say("\n".join(said))
        runs = [SeedRun(seed, _train_order(flags, made, seed)) for seed in seeds]
        return await _carry_out(sweeper, runs, made, is_json=flags.json)


async def resume_seeds(
    flags: TrainingCommand,
    directory: Path,
    jobs: int | None,
    change: Callable[[TrainConfig], TrainConfig],
    fields: dict[str, Any],
) -> int:
    """Train the seeds of a version that have not all their steps; the exit code.

    Args:
        flags: how to train.
        directory: of the version.
        jobs: how many are trained at once; None: as many as before.
        change: what the flags of ``resume`` change in the settings.
        fields: these flags, for each run that is resumed.

    Raises:
        ConfigError: ``-n`` is no more than what all of them have.
        RunBroken: A file of the version, or of a run in it, cannot be read.
        RunLocked: Another process trains this sweep.
        StokerError: No seed could begin.
    """
    if flags.metrics_port is not None:
        raise ConfigError(
            f"--metrics-port {flags.metrics_port}: the seeds are processes, which cannot share it"
        )
    with Sweeper(flags) as sweeper, contextlib.ExitStack() as ending:
        sweeper.begin()
        version = await to_thread.run_sync(SweepVersion.open, directory)
        ending.callback(version.release)
        sweep, n_wanted = version.sweep, fields["total_timesteps"]
        try:
            config = change(config_from(sweep.config_of(sweep.seeds[0])))
        except ConfigError as error:
            raise RunBroken(directory / SWEEP, f"cannot be trained by this stoker: {error}") from error
        jobs = jobs or sweep.jobs
        sweep = msgspec.structs.replace(sweep, jobs=jobs, config=_without_seed(config))
        there = await to_thread.run_sync(runs_by_seed, directory)
        reached = {seed: run.newest_step() for seed, run in there.items()}
        wanted = [
            seed
            for seed in sweep.seeds
            if reached.get(seed, 0) < config.total_timesteps
            and (n_wanted is not None or seed not in sweep.ended_early)
        ]
        if wanted:
            await to_thread.run_sync(version.write, sweep)
            done = f"; {len(sweep.seeds) - len(wanted)} of {len(sweep.seeds)} are done"
            text = f"resuming {_counted(config, wanted, jobs)}; version: {from_here(directory)}"
            sweeper.say(text + done * (len(wanted) < len(sweep.seeds)))
            runs: list[SeedRun] = []
            for seed in sweep.seeds:
                order = _train_order(flags, version, seed)
                if (run := there.get(seed)) is not None:
                    order = Order("resume", {**fields, **_shared(flags), "run": str(run.directory)})
                directory_of = None if run is None else run.directory
                runs.append(SeedRun(seed, order if seed in wanted else None, directory_of))
            return await _carry_out(sweeper, runs, version, is_json=flags.json)
    most = max(reached.values())
    if n_wanted is not None:
        raise ConfigError(f"-n {n_wanted}: the runs have {most} steps; give more than that")
    again = command(["stoker", "resume", str(directory), "-n", str(max(2 * most, config.total_timesteps))])
    text = f"{from_here(directory)}: all {len(sweep.seeds)} seeds are done; to continue: {again}"
    print(text, file=sys.stderr if flags.json else sys.stdout)
    if flags.json:
        runs = [SeedRun(seed, None, there[seed].directory) for seed in sweep.seeds]
        say_json(sweep_facts(directory, await results_of(runs)))
    return 0


def _without_seed(config: TrainConfig) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(config)
    del plain["seed"]
    return plain


def _train_order(flags: TrainingCommand, version: SweepVersion, seed: int) -> Order:
    place = version.directory
    fields = {"name": place.parent.name, "run_version": place.name, "runs_dir": str(place.parents[1])}
    return Order("train", {**fields, **_shared(flags), "training": version.sweep.config_of(seed)})


def _shared(flags: TrainingCommand) -> dict[str, Any]:
    """The flags that each seed has as well."""
    return {"grace": flags.grace, "export_best": flags.export_best}


def _counted(config: TrainConfig, seeds: Sequence[int], jobs: int) -> str:
    """What is trained, with which seeds; and a hint if the processors are few for that."""
    of, jobs = f"{config.agent} on {name_of(config)}", min(jobs, len(seeds))
    if len(seeds) == 1:
        return f"{of}, seed {seeds[0]}"
    at_once = "one after the other" if jobs == 1 else f"{jobs} at once"
    n_threads = jobs * config.torch_threads
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hint = f" ({n_threads} torch threads on {processors} processors)" if n_threads > processors > 0 else ""
    return f"{of}, {len(seeds)} seeds ({text_of(seeds)}), {at_once}{hint}"


async def _carry_out(
    sweeper: Sweeper, seeds: Sequence[SeedRun], version: SweepVersion, *, is_json: bool
) -> int:
    """Train, and print what came of it; the exit code."""
    began, directory = time.monotonic(), version.directory
    await sweeper.train(directory, seeds, version.sweep.jobs)
    tried = [seed for seed in seeds if seed.order is not None]
    if not await to_thread.run_sync(_have_begun, tried):
        await to_thread.run_sync(discard_version, version)
        if sweeper.refused:
            raise ConfigError(sweeper.refused)
        if failed := [seed for seed in tried if seed.state == FAILED]:
            raise StokerError(f"no seed has begun: {failed[0].failure}")
        if not sweeper.is_stopping:
            raise StokerError(
                f"--max-time of {sweeper.limits.max_s:g} s: no seed has begun in it; give it more"
            )
        print("stoker: interrupted", file=sys.stderr)
        return 130
    early = {seed.seed for seed in seeds if seed.report.ended not in ("", DONE, *STOPPED)}
    early |= set(version.sweep.ended_early) - {seed.seed for seed in tried}
    sweep = msgspec.structs.replace(version.sweep, ended_early=tuple(sorted(early)))
    await to_thread.run_sync(version.write, sweep)
    results = await results_of(seeds)
    say_results(results, time.monotonic() - began, directory, sys.stderr if is_json else None)
    if is_json:
        say_json(sweep_facts(directory, results))
    return 1 if any(result.state == FAILED for result in results) else 0


def _have_begun(seeds: Sequence[SeedRun]) -> bool:
    """Whether one of them was trained; new runs on which nothing was trained are removed."""
    has_begun = False
    for seed in seeds:
        if seed.run is None:
            continue
        if EVENTS in files.files_in(seed.run):
            has_begun = True
        elif seed.order is not None and seed.order.command == "train":
            shutil.rmtree(seed.run, ignore_errors=True)
            seed.run = None
    return has_begun
