"""The step checkpoints of a run: published, pruned, and the newest that is whole found again. Blocks.

    checkpoints/step_<N>.pt   the training at exactly N steps
                latest.pt     a second name of the newest one, for people and ``torch.load``

A kill may leave ``latest.pt`` one behind, so the names and checksums of the step files say which one is the
newest. Where ``latest.pt`` is a separate file, as in a copy of the run, it is one more checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, WriteFailed
from stoker.settings import Count, Natural, Settings
from stoker.writer import files, load_checkpoint, publish_checkpoint, verify_checkpoint

__all__ = ["Retention", "StepCheckpoints", "remove_all", "step_of"]

logger = logging.getLogger("stoker.runs")


class Retention(Settings, frozen=True, kw_only=True):
    """How many checkpoints a run keeps.

    Attributes:
        last: how many of the newest step checkpoints; None: all; 0: only ``latest``, the newest one's
            second name (with ``every`` it would lose its only name: then 1).
        every: always keep those at multiples of this many steps; 0: none.
        best: how many of the best evaluated policies, at least 1.
        all_journal: keep the whole journal, not only what the newest checkpoints need.

    Raises:
        ConfigError: A number is below what it may be.
    """

    last: Natural | None = 3
    every: Natural = 0
    best: Count = 1
    all_journal: bool = False

    def newest(self, steps: Sequence[int]) -> list[int]:
        """The newest ``last``, ascending: a resume may begin from these."""
        ordered = sorted(steps)
        if self.last is None:
            return ordered
        last = max(self.last, 1) if self.every else self.last
        return ordered[max(0, len(ordered) - last) :]

    def doomed(self, steps: Sequence[int]) -> list[int]:
        """Those that are not kept, ascending."""
        old = sorted(set(steps).difference(self.newest(steps)))
        return [step for step in old if not self.every or step % self.every]


class StepCheckpoints:
    """The step checkpoints of a run, for the process that has it locked; others only read.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        """The absolute path of the run; symbolic links in it are kept."""
        # Step -> first event of the journal that a resume reads. Removed and abandoned checkpoints must not
        # count for the others.
        self._needs: dict[int, int | None] = {}
        self._broken: set[Path] = set()  # files that did not load, until a resume begins from another

    def checkpoint_path(self, step: int) -> Path:
        """The path of the checkpoint at that step, which need not exist.

        Raises:
            ConfigError: The step is negative.
        """
        if step < 0:
            raise ConfigError(f"step={step}: a checkpoint is of step 0 or later")
        return self.checkpoints_directory / layout.checkpoint_name(step)

    @property
    def checkpoints_directory(self) -> Path:
        """The directory of checkpoints."""
        return self.directory / layout.CHECKPOINTS

    @property
    def _latest_name(self) -> Path:
        return self.checkpoints_directory / layout.LATEST

    @property
    def latest_checkpoint_path(self) -> Path:
        """The newest checkpoint whose checksum is right; ``latest.pt`` if there is none."""
        for path, _ in self.step_files():
            with contextlib.suppress(CheckpointCorrupt, CheckpointNotFound):
                verify_checkpoint(path)
                return path
        return self._latest_name

    def checkpoint_steps(self) -> list[int]:
        """The steps of the checkpoints, ascending."""
        return layout.steps_of(files.files_in(self.checkpoints_directory))

    def _publish_step(self, staged: Mapping[str, Any], step: int, retention: Retention) -> None:
        path = self.checkpoint_path(step)
        publish_checkpoint(staged, path)
        self._broken.discard(path)
        self._needs[step] = _needs_from(staged)
        if layout.PUBLISHED not in files.files_in(self.checkpoints_directory):
            files.write_atomically(
                self.checkpoints_directory / layout.PUBLISHED, lambda file: file.write(b"")
            )
        files.link_atomically(path, self._latest_name)
        steps = self.checkpoint_steps()
        self._needs = {known: need for known, need in self._needs.items() if known in {*steps, step}}
        remove_all(map(self.checkpoint_path, retention.doomed(steps)))

    def newest_step(self) -> int:
        """The step of the newest checkpoint, by its file name if it has one; 0: there is none.

        Raises:
            CheckpointCorrupt: There is only a ``latest.pt``, and it does not load.
        """
        if steps := self.checkpoint_steps():
            return steps[-1]
        return max(0, step_of(load_checkpoint(self._latest_name))) if self._latest_name.exists() else 0

    def candidates(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The checkpoints that a resume may begin from, with their contents, the newest first.

        Those that do not load are logged, and keep their names until ``begin_from``, so that a resume that
        fails can be tried again, with the same result.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads. It names the newest.
        """
        self._broken.clear()
        problem: CheckpointCorrupt | None = None
        given: set[float] = set()
        for path, step in self.step_files():
            if step in given:  # a copy
                continue
            try:
                state = load_checkpoint(path)
            except CheckpointNotFound:  # pruned since
                continue
            except CheckpointCorrupt as error:
                problem = problem or error
                self._broken.add(path)
                logger.warning("%s; passed over", error)
                continue
            if path != self._latest_name:
                self._needs[int(step)] = _needs_from(state)
            given.add(step)
            yield path, state
        if problem is not None and not given:
            problem.add_note(
                f"none of the {len(self._broken)} checkpoints in {self.checkpoints_directory} loads, and all "
                "are left as they are: put a whole copy of one back, or start a new run with `stoker train`"
            )
            raise problem

    def begin_from(self, step: int) -> None:
        """Make that step the newest: checkpoints beyond it belong to an abandoned future.

        Those are renamed to ``<name>.abandoned``, and those of the last ``candidates`` that did not load to
        ``<name>.broken``. ``latest`` becomes a name of the checkpoint at that step, if there is one.
        """
        for path in sorted(path for path in self._broken if path.exists()):
            logger.warning("set aside %s: it did not load", files.move_aside(path, ".broken").name)
        self._broken.clear()
        for path, beyond in reversed(self.step_files()):
            if step < beyond < math.inf:
                aside = files.move_aside(path, ".abandoned")
                logger.warning("the training resumes from step %d: set aside %s", step, aside.name)
        steps = self.checkpoint_steps()
        self._needs = {known: need for known, need in self._needs.items() if known <= step}
        if step in steps and not self._is_latest(self.checkpoint_path(step)):
            files.link_atomically(self.checkpoint_path(step), self._latest_name)

    def _needed_from(self, retention: Retention, *, load: bool) -> int | None:
        """The first event of the journal that a resume from one of the newest checkpoints reads.

        With ``load``, checkpoints are read that this process has neither written nor read. None: that is not
        known, or none of them reads the journal.
        """
        needs: list[int] = []
        newest = retention.newest(self.checkpoint_steps())
        if not newest and not self._needs and load and self._latest_name.exists():
            return _needs_from(load_checkpoint(self._latest_name))
        for step in newest or sorted(self._needs)[-1:]:
            if step not in self._needs:
                if not load:
                    return None
                self._needs[step] = _needs_from(load_checkpoint(self.checkpoint_path(step)))
            if (need := self._needs[step]) is not None:
                needs.append(need)
        return min(needs, default=None)

    def step_files(self) -> list[tuple[Path, float]]:
        """Checkpoints and their steps, the newest first; ``latest.pt`` only where it is a separate file."""
        steps = self.checkpoint_steps()
        found: list[tuple[Path, float]] = [(self.checkpoint_path(step), step) for step in steps]
        if (own := self._own_latest(steps)) is not None:
            found.append((self._latest_name, own))
        return sorted(found, key=lambda one: one[1], reverse=True)

    def _own_latest(self, steps: Collection[int]) -> float | None:
        """The step of ``latest.pt`` if it is a separate file; infinity if it does not load."""
        if files.stat_of(self._latest_name) is None or any(
            self._is_latest(self.checkpoint_path(step)) for step in steps
        ):
            return None
        try:
            return step_of(load_checkpoint(self._latest_name))
        except CheckpointNotFound:
            return None
        except CheckpointCorrupt:
            return math.inf

    def _is_latest(self, path: Path) -> bool:
        latest, other = files.stat_of(self._latest_name), files.stat_of(path)
        return latest is not None and other is not None and os.path.samestat(latest, other)


def step_of(state: Mapping[str, Any]) -> int:
    """The step of a checkpoint by its content; -1, before all others: it is not a step checkpoint."""
    session = state.get("session")
    step = cast("Mapping[str, Any]", session).get("total_steps") if isinstance(session, Mapping) else None
    return step if isinstance(step, int) and state.get("kind", "step") == "step" else -1


def remove_all(paths: Iterable[Path]) -> list[Path]:
    """Remove files and return them; if one cannot be removed, the others are removed all the same.

    Raises:
        WriteFailed: Some could not be removed; raised when all have been tried.
    """
    removed, refusals = list(paths), list[WriteFailed]()
    for path in removed:
        try:
            files.remove(path)
        except WriteFailed as refusal:
            refusals.append(refusal)
    if refusals:
        raise refusals[0]
    return removed


def _needs_from(state: Mapping[str, Any]) -> int | None:
    position = cast("Mapping[str, Any] | None", state.get("journal"))
    return None if position is None else int(position["needs_from"])
