"""The directory of a training of several policies: a run for each, and where all of them stand together.

    runs/<name>/<version>/<stamp>/group.json     the last commit, and the config of the training
                                  .lock          held by the process that trains the group
                                  <policy>/      an ordinary run

``group.json`` is written last when a group is made, and replaced whole at each commit, which names the place
in the journal of every run at one joint step. A resume goes forward exactly to there in each of them, so that
all policies stand at one joint step; what a run holds behind it becomes an abandoned future.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread

import stoker.runs.layout as layout
from stoker.errors import ConfigError, RunNotFound
from stoker.runs.locking import RunLock
from stoker.runs.metadata import read_json, write_json
from stoker.runs.run import TrainingRun, new_directory
from stoker.settings import Natural
from stoker.types import AnyPath

_POLICY = re.compile(r"[A-Za-z][\w-]{0,39}")
_RESERVED = ("checkpoints", "journal")


class GroupPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where one policy stands at a commit.

    Attributes:
        events: events in its journal, over all attempts.
        steps: environment steps that it has consumed.
    """

    events: Natural = 0
    steps: Natural = 0


class GroupCommit(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``group.json``.

    Attributes:
        joint_steps: joint steps, over all environments and attempts.
        policies: where each policy stood then, by name.
        config: what the training was made from, as plain values; None: a program made it.
    """

    joint_steps: Natural = 0
    policies: dict[str, GroupPosition]
    config: Any = None


class TrainingGroup:
    """The directory of several policies that learn together. Get one from ``create`` or ``resume``.

    Attributes:
        directory: its absolute path.
        runs: the run of each policy, by name.
        committed: the last commit.
    """

    def __init__(self, directory: Path, runs: Mapping[str, TrainingRun], committed: GroupCommit) -> None:
        self.directory = directory
        self.runs: dict[str, TrainingRun] = dict(runs)
        self.committed: GroupCommit = committed
        self._lock: RunLock | None = None

    def __repr__(self) -> str:
        return f"TrainingGroup({str(self.directory)!r})"

    @classmethod
    async def create(
        cls,
        name: str,
        version: str = "v1",
        *,
        policies: Iterable[str],
        root: AnyPath = "runs",
        config: Any = None,
    ) -> TrainingGroup:
        """Make a new directory below ``root``, with a run for each policy.

        Args:
            name: of the group's directory, as for ``TrainingRun.create``.
            version: likewise.
            policies: their names, such as ``["red", "blue"]``.
            root: the runs directory.
            config: kept in ``group.json``, for whoever resumes it.

        Raises:
            ConfigError: A name cannot be used.
            WriteFailed: The directory cannot be made there.
        """
        names = checked_policies(policies)
        place = layout.place_of(name, version, root)
        return await to_thread.run_sync(cls._create, place, names, config)

    @classmethod
    def _create(cls, place: Path, names: list[str], config: Any) -> TrainingGroup:
        directory, metadata = new_directory(place)
        runs = {
            name: TrainingRun.create_at(
                directory / name, msgspec.structs.replace(metadata, version=f"{metadata.version}/{name}")
            )
            for name in names
        }
        committed = GroupCommit(policies={name: GroupPosition() for name in names}, config=config)
        write_json(directory / layout.GROUP, committed)  # last: this file makes the directory a group
        return cls(directory, runs, committed)

    @classmethod
    async def resume(cls, path: AnyPath) -> TrainingGroup:
        """Find a group to resume: an exact one, or the newest of a version or name. Nothing is written yet.

        Raises:
            RunNotFound: There is none.
            RunBroken: It cannot be read.
        """
        return await to_thread.run_sync(cls.find, path)

    @classmethod
    def find(cls, path: AnyPath) -> TrainingGroup:
        """As ``resume``, for programs without an event loop. Blocks."""
        path = layout.absolute(path)
        if not layout.is_group(path):
            parents = (run.parent for run in reversed(layout.runs_below(path)))
            found = next(filter(layout.is_group, parents), None)
            if found is None:
                raise RunNotFound(
                    path, "no group of policies there; `stoker ls` lists the runs that there are"
                )
            path = found
        committed = read_commit(path)
        runs = {name: TrainingRun.find(path / name) for name in committed.policies}
        return cls(path, runs, committed)

    def acquire(self) -> None:
        """Lock the group for this process, and read its last commit again. Blocks.

        Raises:
            RunLocked: Another process trains it; the message names it.
            RunBroken: ``group.json`` cannot be read.
        """
        if self._lock is not None and self._lock.is_held:
            return
        lock = RunLock.acquire(self.directory)
        try:
            self.committed = read_commit(self.directory)
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def release(self) -> None:
        """Unlock the group; if it is not locked, nothing happens."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def commit(self, joint_steps: int, policies: Mapping[str, GroupPosition]) -> None:
        """Replace ``group.json``, whole or not at all; when this returns, that is durable. Blocks.

        Everything up to these positions must be durable in the runs already.

        Raises:
            WriteFailed: The disk refused; the commit before holds.
        """
        committed = msgspec.structs.replace(self.committed, joint_steps=joint_steps, policies=dict(policies))
        write_json(self.directory / layout.GROUP, committed)
        self.committed = committed


def checked_policies(policies: Iterable[str]) -> list[str]:
    """The names of policies, if each can name a directory.

    Raises:
        ConfigError: There is none, two are equal, or one cannot.
    """
    names = list(policies)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"policies={names!r}: give at least one name, and each once")
    for name in names:
        if not _POLICY.fullmatch(name) or name in _RESERVED:
            raise ConfigError(
                f"policy {name!r} cannot name a directory of its run: begin with a letter, continue with "
                f"letters, digits, '_' or '-', at most 40, and neither {' nor '.join(_RESERVED)}"
            )
    return names


def read_commit(directory: Path) -> GroupCommit:
    """The last commit of a group. Blocks.

    Raises:
        RunBroken: It cannot be read.
    """
    way_out = "each policy can still be resumed by itself, from its own newest checkpoint"
    return read_json(directory / layout.GROUP, GroupCommit, way_out)
