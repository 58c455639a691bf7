"""The saved training of a run: its step checkpoints, its best policies and its journal.

    checkpoints/step_<N>.pt   the training at exactly N steps
                latest.pt     a second name of the newest one, for people and ``torch.load``

A kill may leave ``latest.pt`` one behind, so the names and checksums of the step files say which one is the
newest. Where ``latest.pt`` is a separate file, as in a copy of the run, it is one more checkpoint. Calls that
are not awaited block: they are for the threads of the session and its writer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from anyio import to_thread

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError
from stoker.journal import Journal, segment_name
from stoker.runs.bests import Bests, best_names
from stoker.runs.directory import RunDirectory
from stoker.runs.metadata import RunMetadata
from stoker.settings import Count, Natural, Settings
from stoker.writer import AppendLog, files, load_checkpoint, publish_checkpoint, verify_checkpoint

_logger = logging.getLogger("stoker.runs")


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


_ALL = Retention(last=None, all_journal=True)


class SavedTraining(RunDirectory):
    """A run directory with what a resume reads; the process that has it locked writes it, others only read.

    Args:
        directory: of the run.
        metadata: as it was read.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        super().__init__(directory, metadata)
        self.best_checkpoint_path: Path = self.checkpoints_directory / layout.BEST
        """The policy with the highest evaluated mean reward."""
        self._latest_name = self.checkpoints_directory / layout.LATEST
        # Step -> first event of the journal that a resume reads. Removed and abandoned checkpoints must not
        # count for the others.
        self._needs: dict[int, int | None] = {}
        self._broken: set[Path] = set()  # files that did not load, until a resume begins from another
        self._bests = Bests(self.checkpoints_directory, lambda: self.is_acquired)

    # Step checkpoints -----------------------------------------------------------------------------

    def checkpoint_path(self, step: int) -> Path:
        """The path of the checkpoint at that step, which need not exist.

        Raises:
            ConfigError: The step is negative.
        """
        if step < 0:
            raise ConfigError(f"step={step}: a checkpoint is of step 0 or later")
        return self.checkpoints_directory / layout.checkpoint_name(step)

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

    def has_checkpoint(self) -> bool:
        """Whether there is a step checkpoint, by its name."""
        names = files.files_in(self.checkpoints_directory)
        return layout.LATEST in names or bool(layout.steps_of(names))

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
        fails can be tried again, with the same result. A run that never had a checkpoint yields none, and
        starts from the beginning.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads. It names the newest.
            CheckpointNotFound: There is none, and there was one.
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
                _logger.warning("%s; passed over", error)
                continue
            if path != self._latest_name:
                self._needs[int(step)] = _needs_from(state)
            given.add(step)
            yield path, state
        if given:
            return
        directory = self.checkpoints_directory
        if problem is not None:
            problem.add_note(
                f"none of the {len(self._broken)} checkpoints in {directory} loads, and all are left as they "
                "are: put a whole copy of one back, or start a new run with `stoker train`"
            )
            raise problem
        if (sign := self.sign_of_lost_checkpoints()) is not None:
            raise CheckpointNotFound(
                f"{directory} has no step checkpoint any more: {sign}; put one back, or start a new run with "
                "`stoker train`"
            )

    def sign_of_lost_checkpoints(self) -> str | None:
        """Describe the evidence that a run without step checkpoints had some; None: there is none. Blocks.

        ``best.pt`` is none: an evaluation may come before the first checkpoint.
        """
        if self.has_checkpoint():
            return None
        names = files.files_in(self.checkpoints_directory)
        for attempt in reversed(self.metadata.attempts):
            if attempt.checkpoint_step:
                return f"attempt {attempt.number} began with one of step {attempt.checkpoint_step}"
        if self.metadata.forked_at_step is not None:
            return f"it was forked with one of step {self.metadata.forked_at_step}"
        if aside := sorted(filter(layout.SET_ASIDE.fullmatch, names)):
            return f"{aside[-1]} is what was set aside"
        return "some were written" if layout.PUBLISHED in names else None

    def publish_step(self, staged: Mapping[str, Any], step: int, retention: Retention = _ALL) -> int:
        """Write a staged checkpoint, link ``latest`` to it, and remove what is not kept.

        That is old step checkpoints, and parts of the journal that none of the newest needs.

        Returns:
            The size of the checkpoint, in bytes.
        """
        path = self.checkpoint_path(step)
        publish_checkpoint(staged, path)
        n_bytes = path.stat().st_size
        self._broken.discard(path)
        self._needs[step] = _needs_from(staged)
        if layout.PUBLISHED not in files.files_in(self.checkpoints_directory):
            mark = self.checkpoints_directory / layout.PUBLISHED
            files.write_atomically(mark, lambda file: file.write(b""))
        files.link_atomically(path, self._latest_name)
        steps = self.checkpoint_steps()
        self._needs = {known: need for known, need in self._needs.items() if known in {*steps, step}}
        files.remove_all(map(self.checkpoint_path, retention.doomed(steps)))
        self.prune_journal(retention)
        return n_bytes

    def begin_from(self, step: int) -> None:
        """Make that step the newest, and ``best.pt`` the best policy.

        Checkpoints beyond it belong to an abandoned future and are renamed to ``<name>.abandoned``, those of
        the last ``candidates`` that did not load to ``<name>.broken``. ``latest`` becomes a name of the
        checkpoint at that step, if there is one.
        """
        for path in sorted(path for path in self._broken if path.exists()):
            _logger.warning("set aside %s: it did not load", files.move_aside(path, ".broken").name)
        self._broken.clear()
        for path, beyond in reversed(self.step_files()):
            if step < beyond < math.inf:
                aside = files.move_aside(path, ".abandoned")
                _logger.warning("the training resumes from step %d: set aside %s", step, aside.name)
        steps = self.checkpoint_steps()
        self._needs = {known: need for known, need in self._needs.items() if known <= step}
        if step in steps and not self._is_latest(self.checkpoint_path(step)):
            files.link_atomically(self.checkpoint_path(step), self._latest_name)
        self._bests.relink()

    def step_files(self) -> list[tuple[Path, float]]:
        """Checkpoints and their steps, the newest first; ``latest.pt`` only where it is a separate file.

        Its step is infinity if it does not load, and -1 if it is not a step checkpoint.
        """
        steps = self.checkpoint_steps()
        found: list[tuple[Path, float]] = [(self.checkpoint_path(step), step) for step in steps]
        latest = self._latest_name
        if files.stat_of(latest) is not None and not any(self._is_latest(path) for path, _ in found):
            with contextlib.suppress(CheckpointNotFound):
                try:
                    found.append((latest, step_of(load_checkpoint(latest))))
                except CheckpointCorrupt:
                    found.append((latest, math.inf))
        return sorted(found, key=lambda one: one[1], reverse=True)

    def _is_latest(self, path: Path) -> bool:
        latest, other = files.stat_of(self._latest_name), files.stat_of(path)
        return latest is not None and other is not None and os.path.samestat(latest, other)

    async def prune_checkpoints(self, keep: int, every: int = 0) -> list[int]:
        """Remove all step checkpoints but the newest ``keep``; never ``latest`` or ``best``.

        Args:
            keep: how many.
            every: also keep those at multiples of this many steps; 0: none.

        Returns:
            The steps that were removed.

        Raises:
            ConfigError: A number is negative.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: keep 0 or more checkpoints")
        await self.acquire_if_needed()
        doomed = Retention(last=keep, every=every).doomed(self.checkpoint_steps())
        await to_thread.run_sync(files.remove_all, list(map(self.checkpoint_path, doomed)))
        return doomed

    # Best policies --------------------------------------------------------------------------------

    def publish_best(self, staged: Mapping[str, Any], retention: Retention = _ALL) -> None:
        """Write the staged weights of an evaluated policy, if it is one of the best that are kept."""
        self._bests.publish(staged, retention.best)

    def bests(self) -> list[tuple[float, int]]:
        """Value and step of the best policies, the best first."""
        return self._bests.scores()

    def load_best_score(self) -> tuple[float, int] | None:
        """The value and step of ``best``, or None if there is none.

        They are read from the file. If it does not load or is gone, a warning is logged, and they come from
        the metadata.
        """
        names = files.files_in(self.checkpoints_directory)
        if scores := self.bests():
            return scores[0]
        value, step = self.metadata.best_value, self.metadata.best_step
        if value is None or step is None:
            return None
        if not best_names(names):
            policy = f"the policy of step {step} with mean reward {value:g}"
            advice = "only a higher one is saved as best; put a copy back if there is one"
            _logger.warning("%s is gone, %s: %s", self.best_checkpoint_path, policy, advice)
        return value, step

    # Journal --------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """What the run's journal holds, without the abandoned futures of its attempts."""
        starts = [(attempt.number, attempt.from_events) for attempt in self.metadata.attempts]
        return Journal(self.journal_directory, starts)

    def begin_journal(self) -> None:
        """Make room for the present attempt's segments. Blocks.

        Segments of this attempt or later ones come from a process whose metadata was lost: they are renamed
        to ``<name>.abandoned``.
        """
        files.make_directory(self.journal_directory)
        for segment in self.journal.segments():
            if segment.attempt >= self.attempt:
                files.move_aside(segment.path, ".abandoned")

    def open_segment(self, first_event: int) -> AppendLog:
        """The file for the journal's events from that number on, in the present attempt."""
        return AppendLog(self.journal_directory / segment_name(self.attempt, first_event))

    def prune_journal(self, retention: Retention) -> list[Path]:
        """Remove the segments that none of the newest checkpoints needs, and return them. Blocks.

        Checkpoints that are kept for their number or as ``best`` do not count. As long as this object has
        neither written nor read one of the newest, nothing is removed.
        """
        return files.remove_all(self._doomed_segments(retention, load=False))

    def _doomed_segments(self, retention: Retention, *, load: bool) -> list[Path]:
        """Segments that no resume from one of the newest checkpoints reads.

        With ``load``, checkpoints are read that this process has neither written nor read. Without it,
        nothing is returned while the needs of one of them are unknown.
        """
        if retention.all_journal:
            return []
        newest = retention.newest(self.checkpoint_steps()) or sorted(self._needs)[-1:]
        for step in newest:
            if step not in self._needs:
                if not load:
                    return []
                self._needs[step] = _needs_from(load_checkpoint(self.checkpoint_path(step)))
        needs = [self._needs[step] for step in newest]
        if not newest and load and self._latest_name.exists():
            needs = [_needs_from(load_checkpoint(self._latest_name))]
        needed = min((need for need in needs if need is not None), default=None)
        return [] if needed is None else self.journal.doomed(needed)

    def doomed(self, retention: Retention) -> list[Path]:
        """The files that ``prune`` would remove: step checkpoints, then segments. Blocks."""
        steps = retention.doomed(self.checkpoint_steps())
        return [*map(self.checkpoint_path, steps), *self._doomed_segments(retention, load=True)]

    def prune(self, retention: Retention) -> list[Path]:
        """Remove step checkpoints that are not kept, and segments that none of the newest needs. Blocks.

        Checkpoints are read if it is not known what they need of the journal.

        Returns:
            The removed files.

        Raises:
            RunLocked: Another process writes the run.
            CheckpointCorrupt: One of the newest does not load; nothing was removed.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        self.acquire()
        return files.remove_all(self.doomed(retention))


def step_of(state: Mapping[str, Any]) -> int:
    """The step of a checkpoint by its content; -1, before all others: it is not a step checkpoint."""
    session = state.get("session")
    step = cast("Mapping[str, Any]", session).get("total_steps") if isinstance(session, Mapping) else None
    return step if isinstance(step, int) and state.get("kind", "step") == "step" else -1


def _needs_from(state: Mapping[str, Any]) -> int | None:
    position = cast("Mapping[str, Any] | None", state.get("journal"))
    return None if position is None else int(position["needs_from"])
