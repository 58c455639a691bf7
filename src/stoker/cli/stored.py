"""A run that is on disk, as a command names it, and what it was trained with. Free of torch."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

from stoker.cli.formats import command, from_here
from stoker.errors import ConfigError, RunBroken, RunNotFound
from stoker.importing import import_named
from stoker.runs import TrainingRun
from stoker.runs.locating import is_run, runs_below
from stoker.runs.naming import LATEST, steps_of
from stoker.runs.run import CONFIG
from stoker.writer import files

if TYPE_CHECKING:
    from stoker.trainer import TrainConfig

__all__ = ["discard", "has_checkpoint", "open_begun", "open_run", "read_train_config"]

logger = logging.getLogger("stoker.cli")


async def open_run(path: str) -> TrainingRun:
    """Find a run to read, as ``TrainingRun.open`` does.

    Raises:
        RunNotFound: There is none; the message says how to list those of the directory that was named.
        RunBroken: It cannot be read.
    """
    try:
        return await TrainingRun.open(path)
    except RunNotFound as error:
        there = [parent for parent in Path(path).parents[:-1] if parent.is_dir()]
        listing = command(["stoker", "ls", *map(str, there[:1])])
        raise RunNotFound(error.path, f"no run there; `{listing}` lists the runs that there are") from error


async def open_begun(path: str) -> TrainingRun:
    """Find a run to go on with: as ``open_run``, but not one that was killed before it began.

    Such a run, without a config and without a checkpoint, is passed over with a warning for the newest one
    that has begun. Where there is none, or where it was named exactly, it is given nevertheless.

    Raises:
        RunNotFound, RunBroken: As for ``open_run``.
    """
    newest = await open_run(path)
    if await to_thread.run_sync(_begun_or_named, newest, Path(path)):
        return newest
    passed = [newest.directory]
    for directory in await to_thread.run_sync(_older, newest.directory, Path(path)):
        try:
            run = await TrainingRun.open(directory)
        except RunBroken as error:
            logger.warning("passed over a broken run: %s", error)
            continue
        if await to_thread.run_sync(_begun_or_named, run, Path(path)):
            for empty in passed:
                logger.warning(
                    "passed over %s, which was killed before it began: it has no %s and no checkpoint",
                    empty,
                    CONFIG,
                )
            return run
        passed.append(directory)
    return newest


def _begun_or_named(run: TrainingRun, path: Path) -> bool:
    """Whether somebody began to train on it, is about to, or it was named exactly."""
    has_files = CONFIG in files.files_in(run.directory) or bool(files.files_in(run.checkpoints_directory))
    return has_files or is_run(path) or run.holder() is not None


def _older(directory: Path, path: Path) -> list[Path]:
    """The runs of the same name that stand before that one, the newest first."""
    before = list(itertools.takewhile(lambda run: run != directory, runs_below(path)))
    return [run for run in reversed(before) if run.parent.parent == directory.parent.parent]


def has_checkpoint(run: TrainingRun) -> bool:
    """Whether there is a checkpoint to go on from, by its name. Blocks."""
    names = files.files_in(run.checkpoints_directory)
    return LATEST in names or bool(steps_of(names))


def discard(run: TrainingRun, with_root: bool) -> None:
    """Remove a new run on which nothing was trained, and its parents if they are empty. Blocks.

    Args:
        run: the run; nobody may write it any more.
        with_root: whether the runs directory was made for it, too.
    """
    shutil.rmtree(run.directory)
    for parent in list(run.directory.parents)[: 3 if with_root else 2]:
        with contextlib.suppress(OSError):  # there are other runs
            parent.rmdir()


async def read_train_config(run: TrainingRun) -> TrainConfig:
    """The config that ``train`` wrote into a run.

    Raises:
        RunBroken: It is missing, or of something that this stoker cannot train, such as an unknown agent.
        ConfigError: A module that it names cannot be imported here.
    """
    from stoker.trainer import config_from

    path = run.directory / CONFIG
    try:
        stored = await run.read_config()
    except RunBroken as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise RunBroken(
                run.directory,
                f"there is no {CONFIG}, which names the agent and the environment: a program with its own "
                "session trained this run, or it was killed before it began. Resume it in that program with "
                "TrainingRun.resume; if its agent and environment can be named, `await "
                "run.write_config(TrainConfig(...))` there lets this command read them",
            ) from error
        raise
    if not isinstance(stored, Mapping):
        raise RunBroken(path, "not the config of a training: it holds no settings by name")
    try:
        config = config_from(cast("Mapping[str, Any]", stored), "config")
    except ConfigError as error:
        raise RunBroken(path, f"cannot be trained or scored by this stoker: {error}") from error
    for what, name, module in _modules_of(config):
        import_named(module, f"{from_here(run.directory)} needs {what}={name!r}")
    return config


def _modules_of(config: TrainConfig) -> Iterator[tuple[str, str, str]]:
    """The modules of the user's that a config names: in which setting, by what name, and the module."""
    for module in config.imports:
        yield "imports", module, module
    for what in ("env", "agent"):
        name: str = getattr(config, what)
        if ":" in name:
            yield what, name, name.rpartition(":")[0]
