"""Find the run that a command names, and read its config. Imports no torch."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from stoker.cli.printing import command, from_here
from stoker.envs.protocol import JOINT
from stoker.errors import ConfigError, RunBroken, RunNotFound
from stoker.importing import import_named
from stoker.runs import TrainingRun, list_runs
from stoker.runs.layout import CONFIG, absolute, is_group, is_run, runs_below
from stoker.runs.locking import LOCK
from stoker.runs.metadata import read_json_if_there
from stoker.runs.sweeps import SWEEP, SweepVersion
from stoker.writer import files

if TYPE_CHECKING:
    from stoker.trainer import TrainConfig

_logger = logging.getLogger("stoker.cli")
_NO_CONFIG = (
    f"there is no {CONFIG}, which names the agent and the environment: a program with its own session "
    "trained this run, or it was killed before it began. Resume it in that program with TrainingRun.resume, "
    "or write the config there with `await run.write_config(TrainConfig(...))`"
)


async def open_run(path: str) -> TrainingRun:
    """Find a run to read, as ``TrainingRun.open`` does.

    Raises:
        ConfigError: It is a training of several policies, each of which has a run.
        RunNotFound: There is none; the message says how to list those of the directory that was named.
        RunBroken: It cannot be read.
    """
    if (group := await to_thread.run_sync(group_at, path)) is not None:
        policies = ", ".join(run.name for run in runs_below(group, levels=1))
        first = command([from_here(runs_below(group, levels=1)[0])])
        raise ConfigError(f"{path} is a training of several policies ({policies}): name one, such as {first}")
    try:
        return await TrainingRun.open(path)
    except RunNotFound as error:
        if any(map(is_run, Path(error.path).parents[:2])):
            raise  # it names that one
        there = [parent for parent in Path(path).parents[:-1] if parent.is_dir()]
        listing = command(["stoker", "ls", *map(str, there[:1])])
        raise RunNotFound(error.path, f"no run there; `{listing}` lists the runs that there are") from error


async def written_config(run: TrainingRun, expected: Any = Any) -> Any:
    """The run's config as plain values; None: a program with its own session wrote none.

    Raises:
        RunBroken: It cannot be read, or is of another type.
    """
    return await to_thread.run_sync(read_json_if_there, run.directory / CONFIG, expected)


async def config_of(run: TrainingRun) -> Any:
    """The run's config as plain values; None: there is none, or it cannot be read."""
    try:
        return await written_config(run)
    except RunBroken:
        return None


async def open_trained(path: str) -> tuple[TrainingRun, TrainConfig]:
    """Find a run to resume or score, and read its config; the modules that the config names are imported.

    A run that was killed before it had a config or a checkpoint is passed over with a warning for the newest
    one of the same name that has begun, unless it was named exactly.

    Raises:
        RunNotFound: As for ``open_run``.
        RunBroken: The run or its config cannot be read, or this stoker cannot train it, for example an
            unknown agent.
        ConfigError: A module that the config names cannot be imported here.
    """
    from stoker.trainer import config_from

    run = await _open_begun(path)
    if (stored := await written_config(run, dict[str, Any])) is None:
        raise RunBroken(run.directory, _NO_CONFIG)
    try:
        # A run from before there was a choice had an actor for each environment.
        config = config_from({"vectorize": "none", **stored}, "config")
    except ConfigError as error:
        problem = f"cannot be trained or scored by this stoker: {error}"
        raise RunBroken(run.directory / CONFIG, problem) from error
    named = [("env", config.env.removeprefix(JOINT)), ("agent", config.agent)]
    named += [("imports", name) for name in config.imports]
    named += [("wrapper", wrapper.name) for wrapper in config.wrappers]
    modules = [
        (what, name, name.rpartition(":")[0] or name)
        for what, name in named
        if ":" in name or what == "imports"
    ]
    for what, name, module in modules:
        import_named(module, f"{from_here(run.directory)} needs {what}={name!r}")
    return run, config


def sweep_at(path: str) -> Path | None:
    """The version that a path names, as itself or as its name's newest one, if a sweep made it; else None.

    Blocks.
    """
    return _place_at(path, lambda place: SWEEP in files.files_in(place))


def group_at(path: str) -> Path | None:
    """The group that a path names, as itself or as the newest training of its version or name; else None.

    Blocks.
    """
    return _place_at(path, is_group)


def _place_at(path: str, is_wanted: Callable[[Path], bool]) -> Path | None:
    """The directory that a path names, or the one of the newest run below it, if it is one of these."""
    named = absolute(path)
    if is_wanted(named):
        return named
    if is_run(named) or not (runs := runs_below(named)):
        return None
    return place if is_wanted(place := runs[-1].parent) else None


def policies_at(path: str) -> list[str]:
    """The run of each policy of the group that a path names; without a group, the path itself. Blocks."""
    group = group_at(path)
    return [path] if group is None else [str(run) for run in runs_below(group, levels=1)]


async def _open_begun(path: str) -> TrainingRun:
    newest = await open_run(path)
    if is_run(Path(path)):
        return newest
    runs = [run for run in await list_runs(path) if isinstance(run, TrainingRun)]
    named = [run for run in runs if run.directory.parents[1] == newest.directory.parents[1]]
    passed: list[Path] = []
    for run in reversed(named):
        if await to_thread.run_sync(_has_begun, run):
            for directory in passed:
                _logger.warning("passed over %s, which has neither %s nor a checkpoint", directory, CONFIG)
            return run
        passed.append(run.directory)
    return newest


def _has_begun(run: TrainingRun) -> bool:
    names = files.files_in(run.directory)
    return CONFIG in names or bool(files.files_in(run.checkpoints_directory)) or run.holder() is not None


def discard(run: TrainingRun, with_root: bool) -> None:
    """Remove a new run on which nothing was trained, and its parents if they are empty. Blocks.

    Args:
        run: the run; no process may write it any more.
        with_root: whether the runs directory was made for it, too.
    """
    shutil.rmtree(run.directory)
    for parent in list(run.directory.parents)[: 3 if with_root else 2]:
        with contextlib.suppress(OSError):  # there are other runs
            parent.rmdir()


def discard_version(version: SweepVersion) -> None:
    """Undo the making of a sweep's version, or of more seeds in it, on which nothing was trained. Blocks."""
    if version.before is not None:
        version.write(version.before)
        return
    for path in (version.directory / SWEEP, version.directory / LOCK, *version.directory.glob(".lease.*")):
        path.unlink(missing_ok=True)
    for directory in [version.directory, *version.directory.parents][: 3 if version.is_new_root else 2]:
        with contextlib.suppress(OSError):  # there are other runs
            directory.rmdir()
