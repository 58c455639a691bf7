"""Sweeps: versions whose runs differ in the seed alone, and the file that says which seeds there are.

    runs/<name>/<version>/sweep.json     the seeds, and the config of their runs
                          .lock          held by the process that trains them, as the lock of a run

The file is written before the first run begins, so that a sweep that was killed knows the seeds that have not
begun. Blocks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from stoker.errors import ConfigError, RunBroken
from stoker.nested import difference
from stoker.runs.layout import CONFIG, runs_below
from stoker.runs.locking import RunLock
from stoker.runs.metadata import read_json, read_json_if_there, write_json
from stoker.runs.run import TrainingRun
from stoker.settings import Count, Natural
from stoker.writer import files

SWEEP = "sweep.json"
"""The file of a version that a sweep made."""


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``sweep.json``.

    Attributes:
        seeds: one run each, in the order in which they begin.
        jobs: how many are trained at once.
        config: the config of each run, without ``seed``.
        ended_early: the seeds whose training an evaluation ended before it had all its steps.
    """

    seeds: tuple[Natural, ...]
    jobs: Count = 1
    config: dict[str, Any]
    ended_early: tuple[Natural, ...] = ()

    def config_of(self, seed: int) -> dict[str, Any]:
        """The config of the run with that seed."""
        return {**self.config, "seed": seed}


class SweepVersion:
    """The version of a sweep, locked for this process until ``release``. Get one from ``make`` or ``open``.

    Attributes:
        directory: of the version.
        sweep: the content of its file.
        before: that when it was locked; None: it is new.
        is_new_root: whether the runs directory was made for it, too.
    """

    def __init__(
        self, directory: Path, sweep: Sweep, before: Sweep | None, lock: RunLock, *, is_new_root: bool = False
    ) -> None:
        self.directory: Path = directory
        self.sweep: Sweep = sweep
        self.before: Sweep | None = before
        self.is_new_root: bool = is_new_root
        self._lock = lock

    @classmethod
    def make(cls, name: Path, version: str, sweep: Sweep) -> SweepVersion:
        """Make a version for a sweep, or add the seeds to a sweep with the same config.

        Args:
            name: the directory of its name.
            version: "": v1, or one more than the last; no other process gets the same.
            sweep: what is to be trained.

        Raises:
            ConfigError: The version has runs of another kind, or some of the seeds.
            RunLocked: Another process trains a sweep there.
            WriteFailed: The disk refused.
        """
        is_new_root = not name.parent.exists()
        directory = name / version if version else _new_version(name)
        files.make_directory(directory)
        lock = RunLock.acquire(directory)
        try:
            before = read_sweep(directory)
            sweep = _joined(directory, before, sweep)
            made = cls(directory, sweep, before, lock, is_new_root=is_new_root)
            made.write(sweep)
        except BaseException:
            lock.release()
            raise
        return made

    @classmethod
    def open(cls, directory: Path) -> SweepVersion:
        """Lock the version of a sweep.

        Raises:
            RunBroken: Its file is missing or cannot be read.
            RunLocked: Another process trains it.
        """
        lock = RunLock.acquire(directory)
        try:
            found = read_sweep(directory)
        except BaseException:
            lock.release()
            raise
        if found is None:
            lock.release()
            raise RunBroken(directory / SWEEP, "it is gone")
        return cls(directory, found, found, lock)

    def write(self, sweep: Sweep) -> None:
        """Publish another content of its file.

        Raises:
            WriteFailed: The disk refused.
        """
        write_json(self.directory / SWEEP, sweep)
        self.sweep = sweep

    def release(self) -> None:
        """Unlock it; a second call does nothing."""
        self._lock.release()


def read_sweep(version: Path) -> Sweep | None:
    """The sweep that made a version; None: no sweep did.

    Raises:
        RunBroken: Its file cannot be read.
    """
    way_out = "remove it, and the runs beside it are ordinary ones"
    return read_json_if_there(version / SWEEP, Sweep, way_out)


def _new_version(name: Path) -> Path:
    taken = [re.fullmatch(r"v(\d{1,9})", version) for version in files.directories_in(name)]
    number = 1 + max((int(match[1]) for match in taken if match is not None), default=0)
    while not files.make_directory(name / f"v{number}", exclusive=True):
        number += 1
    return name / f"v{number}"


def _joined(version: Path, before: Sweep | None, more: Sweep) -> Sweep:
    """A new sweep; or the one that is there, with more seeds."""
    place = f"{version.parent.name}/{version.name}"
    if before is None:
        if runs_below(version, levels=1):
            raise ConfigError(
                f"version {place} has runs that are of no sweep: choose another version, or name none for a "
                "new one"
            )
        return more
    if both := [seed for seed in more.seeds if seed in before.seeds]:
        raise ConfigError(f"version {place} has seed {both[0]} already: resume it, or choose other seeds")
    if found := difference(before.config, more.config, "config"):
        raise ConfigError(f"version {place} is a sweep with other settings, there and here: {found}")
    return msgspec.structs.replace(before, seeds=(*before.seeds, *more.seeds), jobs=more.jobs)


def runs_by_seed(version: Path) -> dict[int, TrainingRun]:
    """The newest run of each seed in a version; runs that were killed before they had a config are left out.

    Raises:
        RunBroken: A run or its config cannot be read.
    """
    found: dict[int, TrainingRun] = {}
    for directory in runs_below(version, levels=1):
        if CONFIG not in files.files_in(directory):
            continue
        config = read_json(directory / CONFIG, dict[str, Any])
        if isinstance(seed := config.get("seed"), int):
            found[seed] = TrainingRun.find(directory)
    return found
