"""The step checkpoints of a run: published, pruned, and found again by what verifies.

    checkpoints/step_<N>.pt   the training at exactly N steps
                latest.pt     a second name of the newest one, for people and ``torch.load``

``latest.pt`` is for convenience only: a kill may leave it one behind. The names and the checksums of the step
files say which one is the newest. Where ``latest.pt`` is a separate file, as in a copy of the run, it is one
more checkpoint, of the step that it holds. Everything here blocks: it is for threads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import stoker.runs.naming as naming
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, WriteFailed
from stoker.runs.retention import Retention
from stoker.writer import files, load_checkpoint, publish_checkpoint, verify_checkpoint

__all__ = ["Checkpoints", "remove_all", "step_of"]

logger = logging.getLogger("stoker.runs")
Candidate = tuple[Path, dict[str, Any]]


class Checkpoints:
    """The step checkpoints in one directory.

    Args:
        directory: where they lie; it need not be there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._needs: dict[int, int | None] = {}  # step -> first event of the journal that a resume reads
        self._verified: dict[str, tuple[int, int]] = {}  # name -> size and time of what was verified
        self._broken: set[Path] = set()  # what did not load, until a resume has taken another one
        self._own: tuple[tuple[int, int], float] | None = None  # signature and step of a separate latest.pt

    def path(self, step: int) -> Path:
        """Where the checkpoint at that step lies, or would.

        Raises:
            ConfigError: The step is negative.
        """
        if step < 0:
            raise ConfigError(f"step={step}: a checkpoint is of step 0 or later")
        return self.directory / naming.checkpoint_name(step)

    @property
    def latest_name(self) -> Path:
        """``latest.pt``."""
        return self.directory / naming.LATEST

    @property
    def latest(self) -> Path:
        """The newest checkpoint whose checksum is right; ``latest.pt`` where there is none."""
        for path, _ in self._newest_first():
            try:
                self._verify(path)
            except (CheckpointCorrupt, CheckpointNotFound):
                continue
            return path
        return self.latest_name

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        return naming.steps_of(files.files_in(self.directory))

    def publish(self, staged: Mapping[str, Any], step: int, retention: Retention) -> None:
        """Write a staged checkpoint, name it ``latest`` too, and remove those that are no longer kept.

        Raises:
            WriteFailed: The disk refused; if it refused the checkpoint, nothing was removed.
        """
        path = self.path(step)
        publish_checkpoint(staged, path)
        self._broken.discard(path)
        self._needs[step] = _needs_from(staged)
        self._note_verified(path)
        self._mark_published()
        files.link_atomically(path, self.latest_name)
        steps = self.steps()
        self._forget_all_but({*steps, step})
        remove_all(map(self.path, retention.doomed(steps)))

    def prune(self, retention: Retention) -> list[int]:
        """Remove the step checkpoints that are not kept; never ``latest``.

        Returns:
            The steps that were removed.

        Raises:
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        doomed = retention.doomed(self.steps())
        remove_all(map(self.path, doomed))
        return doomed

    def candidates(self) -> Iterator[Candidate]:
        """The checkpoints that a resume may begin from, with their contents, the newest first.

        Those that do not load are logged, and stay where they are: ``begin_from`` sets them aside once
        another one was good. So a resume that fails can be tried again, with the same result.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads. It is about the newest.
        """
        self._broken.clear()
        problem: CheckpointCorrupt | None = None
        given: set[float] = set()
        for path, step in self._newest_first():
            if step in given:  # a copy: it would fare no better
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
            if path != self.latest_name:
                self._needs[naming.steps_of([path.name])[0]] = _needs_from(state)
                self._note_verified(path)
            given.add(step)
            yield path, state
        if problem is not None and not given:
            problem.add_note(
                f"none of the {len(self._broken)} checkpoints in {self.directory} loads, and all are left as "
                "they are: put a whole copy of one back, or start a new run with `stoker train`"
            )
            raise problem

    def begin_from(self, step: int) -> None:
        """Note that the training goes on from that step: what lies beyond it belongs to an abandoned future.

        Of the last ``candidates``, those that did not load are renamed to ``<name>.broken``; checkpoints
        beyond the step to ``<name>.abandoned``, so that they do not count as the newest. ``latest`` becomes a
        name of the one at that step, if there is one.
        """
        for path in sorted(path for path in self._broken if path.exists()):
            logger.warning("set aside %s: it did not load", files.move_aside(path, ".broken").name)
        self._broken.clear()
        own = self._own_latest(self.steps())
        if own is not None and step < own < math.inf:
            aside = files.move_aside(self.latest_name, ".abandoned")
            logger.warning("the training goes on from step %d: set aside %s", step, aside.name)
        steps = self.steps()
        for beyond in (other for other in steps if other > step):
            aside = files.move_aside(self.path(beyond), ".abandoned")
            logger.warning("the training goes on from step %d: set aside %s", step, aside.name)
        self._forget_all_but({known for known in (*steps, *self._needs) if known <= step})
        if step in steps and not self._is_latest(self.path(step)):
            files.link_atomically(self.path(step), self.latest_name)

    def needed_from(self, retention: Retention, *, load: bool) -> int | None:
        """The first event of the journal that a resume from one of the newest checkpoints reads.

        Args:
            retention: says which are kept for being the newest; others do not count.
            load: read those that this process has neither written nor read.

        Returns:
            None where that is not known, or none of them reads the journal.
        """
        needs: list[int] = []
        newest = retention.newest(self.steps())
        if not newest and not self._needs and load and self.latest_name.exists():
            return _needs_from(load_checkpoint(self.latest_name))
        for step in newest or sorted(self._needs)[-1:]:
            if step not in self._needs:
                if not load:
                    return None
                self._needs[step] = _needs_from(load_checkpoint(self.path(step)))
            if (need := self._needs[step]) is not None:
                needs.append(need)
        return min(needs, default=None)

    def _newest_first(self) -> list[tuple[Path, float]]:
        """Files and their steps; a ``latest.pt`` of its own behind the step file of the same step."""
        steps = self.steps()
        ordered: list[tuple[Path, float]] = [(self.path(step), step) for step in steps]
        if (own := self._own_latest(steps)) is not None:
            ordered.append((self.latest_name, own))
        return sorted(ordered, key=lambda one: one[1], reverse=True)

    def _own_latest(self, steps: Collection[int]) -> float | None:
        """The step of ``latest.pt`` where it is no second name; infinity: it does not load, so nobody knows.

        One that is no step checkpoint comes before all others: -1.
        """
        signature = _signature(self.latest_name)
        if signature is None or any(self._is_latest(self.path(step)) for step in steps):
            return None
        if self._own is None or self._own[0] != signature:
            try:
                step = step_of(load_checkpoint(self.latest_name))
            except CheckpointNotFound:
                return None
            except CheckpointCorrupt:
                return math.inf
            self._own = signature, step
        return self._own[1]

    def _mark_published(self) -> None:
        if naming.PUBLISHED not in files.files_in(self.directory):
            files.write_atomically(self.directory / naming.PUBLISHED, lambda file: file.write(b""))

    def _is_latest(self, path: Path) -> bool:
        latest, other = _identity(self.latest_name), _identity(path)
        return latest is not None and latest == other

    def _verify(self, path: Path) -> None:
        if self._verified.get(path.name) != _signature(path):
            verify_checkpoint(path)
            self._note_verified(path)

    def _forget_all_but(self, steps: Collection[int]) -> None:
        """What an abandoned or removed checkpoint needed must not count for those that there are."""
        names = set(map(naming.checkpoint_name, steps))
        self._needs = {step: need for step, need in self._needs.items() if step in steps}
        self._verified = {name: what for name, what in self._verified.items() if name in names}

    def _note_verified(self, path: Path) -> None:
        if (signature := _signature(path)) is not None:
            self._verified[path.name] = signature


def step_of(state: Mapping[str, Any]) -> int:
    """The step of a checkpoint by its content; -1: it is no step checkpoint."""
    session = state.get("session")
    step = cast("Mapping[str, Any]", session).get("total_steps") if isinstance(session, Mapping) else None
    return step if isinstance(step, int) and state.get("kind", "step") == "step" else -1


def remove_all(paths: Iterable[Path]) -> None:
    """Remove files; one that cannot be removed does not keep the others from being removed.

    Raises:
        WriteFailed: Some could not be removed; raised when all have been tried.
    """
    refusals: list[WriteFailed] = []
    for path in paths:
        try:
            files.remove(path)
        except WriteFailed as refusal:
            refusals.append(refusal)
    if refusals:
        raise refusals[0]


def _signature(path: Path) -> tuple[int, int] | None:
    found = files.stat_of(path)
    return None if found is None else (found.st_size, found.st_mtime_ns)


def _identity(path: Path) -> tuple[int, int] | None:
    found = files.stat_of(path)
    return None if found is None else (found.st_dev, found.st_ino)


def _needs_from(state: Mapping[str, Any]) -> int | None:
    position = cast("Mapping[str, Any] | None", state.get("journal"))
    return None if position is None else int(position["needs_from"])
