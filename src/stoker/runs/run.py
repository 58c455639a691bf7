"""TrainingRun: one directory, from its creation to reading it back.

    runs/<name>/<version>/<YYYYMMDD_HHMMSS>/
        metadata.json  config.json  train_episodes.jsonl  eval_episodes.jsonl
        checkpoints/step_<N>.pt  latest.pt  best.pt

Readable with ``cat``, ``jq`` and ``torch.load(weights_only=True)`` and nothing else. A session writes it
through its writer task; the methods here write directly, for those who have no session.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
from anyio import to_thread

from stoker.errors import CheckpointCorrupt, ConfigError, RunBroken, RunNotFound, StokerError, WriteFailed
from stoker.runs import naming
from stoker.runs.documents import read_json, write_json
from stoker.runs.finding import METADATA, is_run, read_metadata, runs_below
from stoker.runs.metadata import Attempt, EvalEpisodeRow, RunMetadata, TrainEpisodeRow, effective, now
from stoker.runs.reading import Columns, columns_of
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActorId, AnyPath
from stoker.writer import RowLog, decode_rows, files, load_checkpoint, publish_checkpoint

__all__ = ["TrainingRun"]

logger = logging.getLogger("stoker.runs")
T = TypeVar("T")

CONFIG = "config.json"
TRAIN_ROWS = "train_episodes.jsonl"
EVAL_ROWS = "eval_episodes.jsonl"


class TrainingRun:
    """A run directory. Get one from ``create``, ``resume`` or ``open``.

    Used by one process at a time.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        self.directory = directory
        self.metadata = metadata
        """As of the last read or write."""
        self.train_log = RowLog(directory / TRAIN_ROWS)
        self.eval_log = RowLog(directory / EVAL_ROWS)
        self.is_new = False
        """Whether it was created here and nobody has begun to train on it: nothing to go on from."""

    def __repr__(self) -> str:
        return f"TrainingRun({os.fspath(self.directory)!r})"

    # Finding and making ---------------------------------------------------------------------------

    @classmethod
    async def create(cls, name: str, version: str = "v1", *, root: AnyPath = "runs") -> TrainingRun:
        """Make a new run directory below ``root``. Two creates in one second give two directories.

        Raises:
            ConfigError: The name or version would leave ``root``.
            WriteFailed: The directory cannot be made there.
        """
        naming.checked_name("run name", name)
        naming.checked_name("run version", version)
        return await to_thread.run_sync(cls._create, name, version, Path(root))

    @classmethod
    def _create(cls, name: str, version: str, root: Path) -> TrainingRun:
        started_at = now()
        number = 1
        while True:
            directory = root / name / version / naming.run_id_for(started_at, number)
            if files.make_directory(directory, exclusive=True):
                break
            number += 1
        files.make_directory(directory / naming.CHECKPOINTS)
        metadata = RunMetadata(
            name=name,
            version=version,
            run_id=directory.name,
            started_at=started_at,
            last_updated=started_at,
            attempts=(Attempt(number=1, started_at=started_at),),
        )
        run = cls(directory, metadata)
        write_json(run.metadata_path, metadata)
        run.is_new = True
        return run

    @classmethod
    async def open(cls, path: AnyPath) -> TrainingRun:
        """Find a run to read: an exact run, the newest of a version, or the newest of a name.

        Versions and runs are ordered naturally (v10 after v9). A run that is broken is passed over with a
        warning, unless it was named exactly. Nothing is written.

        Raises:
            RunNotFound: There is no run there.
            RunBroken: The run named exactly cannot be read, or all of them.
        """
        return await to_thread.run_sync(cls._open, Path(path))

    @classmethod
    def _open(cls, path: Path) -> TrainingRun:
        if is_run(path):
            return cls(path, read_metadata(path))
        candidates = runs_below(path)
        if not candidates:
            raise RunNotFound(path, "no run there; `stoker ls` lists the runs that there are")
        for candidate in reversed(candidates):
            try:
                return cls(candidate, read_metadata(candidate))
            except RunBroken as error:
                logger.warning("passed over a broken run: %s", error)
        raise RunBroken(path, f"none of the {len(candidates)} runs there can be read")

    @classmethod
    async def resume(cls, path: AnyPath) -> TrainingRun:
        """Find a run to go on with, as ``open`` does, and clear away what a crash left half written.

        The session that is given this run starts from its newest checkpoint that loads.

        Raises:
            RunNotFound, RunBroken: As for ``open``.
        """
        run = await cls.open(path)
        for directory in (run.directory, run.checkpoints_directory):
            await to_thread.run_sync(files.remove_leftovers, directory)
        return run

    # Places ---------------------------------------------------------------------------------------

    @property
    def metadata_path(self) -> Path:
        """``metadata.json``."""
        return self.directory / METADATA

    @property
    def checkpoints_directory(self) -> Path:
        """Where checkpoints lie."""
        return self.directory / naming.CHECKPOINTS

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint at that step lies, or would.

        Raises:
            ConfigError: The step is negative.
        """
        if step < 0:
            raise ConfigError(f"step={step}: a checkpoint is of step 0 or later")
        return self.checkpoints_directory / naming.checkpoint_name(step)

    @property
    def latest_checkpoint_path(self) -> Path:
        """A second name of the newest step checkpoint."""
        return self.checkpoints_directory / "latest.pt"

    @property
    def best_checkpoint_path(self) -> Path:
        """The policy with the highest evaluated mean reward."""
        return self.checkpoints_directory / "best.pt"

    def checkpoint_steps(self) -> list[int]:
        """The steps that there are checkpoints of, ascending."""
        return naming.steps_of(files.files_in(self.checkpoints_directory))

    # Config and metadata --------------------------------------------------------------------------

    async def write_config(self, config: Any) -> None:
        """Keep what the run was started with: any value that msgspec can turn into JSON."""
        await to_thread.run_sync(write_json, self.directory / CONFIG, config)

    @overload
    async def read_config(self) -> Any: ...
    @overload
    async def read_config(self, config_type: type[T]) -> T: ...
    async def read_config(self, config_type: Any = Any) -> Any:
        """The config, as plain values or as the given type.

        Raises:
            RunBroken: It is missing, unreadable or of another type.
        """
        return await to_thread.run_sync(read_json, self.directory / CONFIG, config_type)

    async def update_metadata(self, total_steps: int, total_episodes: int) -> None:
        """Rewrite the metadata with these counters.

        Raises:
            ConfigError: One of them is negative or no integer.
        """
        _check_counts(total_steps=total_steps, total_episodes=total_episodes)
        self.metadata = self.counted(total_steps, total_episodes)
        await to_thread.run_sync(write_json, self.metadata_path, self.metadata)

    def counted(
        self, total_steps: int, total_episodes: int, best: tuple[float, int] | None = None
    ) -> RunMetadata:
        """The metadata with other counters, as of now; nothing is written."""
        changes: dict[str, Any] = {
            "total_steps": total_steps,
            "total_episodes": total_episodes,
            "last_updated": now(),
        }
        if best is not None:
            changes |= {"best_value": best[0], "best_step": best[1]}
        return msgspec.structs.replace(self.metadata, **changes)

    async def begin_attempt(self, from_steps: int, from_episodes: int) -> int:
        """Note that this process goes on from a checkpoint; rows from now on carry the new number."""
        number = self.metadata.attempts[-1].number + 1
        attempt = Attempt(number=number, started_at=now(), from_steps=from_steps, from_episodes=from_episodes)
        self.metadata = msgspec.structs.replace(self.metadata, attempts=(*self.metadata.attempts, attempt))
        await self.update_metadata(from_steps, from_episodes)
        return number

    @property
    def attempt(self) -> int:
        """The number of the present attempt."""
        return self.metadata.attempts[-1].number

    # Rows -----------------------------------------------------------------------------------------

    async def log_train_episode(
        self, record: EpisodeRecord, *, total_steps: int | None = None, actor_id: ActorId = 0
    ) -> None:
        """Append one training episode, and count it in the metadata that is written next.

        Args:
            record: the episode.
            total_steps: environment steps so far; left out, the sum of the lengths logged here.
            actor_id: who played it.

        Raises:
            InvalidExperience: A number in the record is not finite.
        """
        record = check_record(record)
        steps = self.metadata.total_steps + record.length if total_steps is None else total_steps
        self.metadata = self.counted(steps, self.metadata.total_episodes + 1)
        await self.train_log.append([self.train_row(record, steps, self.metadata.total_episodes, actor_id)])

    def train_row(
        self, record: EpisodeRecord, total_steps: int, episode: int, actor_id: ActorId
    ) -> TrainEpisodeRow:
        """The row for a training episode that ended now."""
        return TrainEpisodeRow(
            total_reward=record.total_reward,
            length=record.length,
            status=record.status,
            extras=record.extras,
            total_steps=total_steps,
            episode=episode,
            actor_id=actor_id,
            time=now(),
            attempt=self.attempt,
        )

    async def log_eval_episode(self, record: EpisodeRecord, total_steps: int) -> None:
        """Append one evaluation episode of the policy as it was at ``total_steps``.

        Raises:
            InvalidExperience: A number in the record is not finite.
            ConfigError: ``total_steps`` is negative or no integer.
        """
        _check_counts(total_steps=total_steps)
        await self.eval_log.append([self.eval_row(check_record(record), total_steps)])

    def eval_row(self, record: EpisodeRecord, total_steps: int) -> EvalEpisodeRow:
        """The row for an evaluation episode that ended now."""
        return EvalEpisodeRow(
            total_steps_at_eval=total_steps,
            total_reward=record.total_reward,
            length=record.length,
            status=record.status,
            extras=record.extras,
            time=now(),
            attempt=self.attempt,
        )

    async def read_train_episodes(self, *, all_attempts: bool = False) -> Columns:
        """The training rows as columns; with ``all_attempts`` also those of an abandoned future."""
        return await to_thread.run_sync(self._read_rows, TRAIN_ROWS, TrainEpisodeRow, all_attempts)

    async def read_eval_episodes(self, *, all_attempts: bool = False) -> Columns:
        """The evaluation rows as columns; with ``all_attempts`` also those of an abandoned future."""
        return await to_thread.run_sync(self._read_rows, EVAL_ROWS, EvalEpisodeRow, all_attempts)

    def _read_rows(self, file_name: str, row_type: Any, all_attempts: bool) -> Columns:
        rows = decode_rows(self.directory / file_name, row_type)
        attempts = read_metadata(self.directory).attempts
        return columns_of(rows if all_attempts else effective(rows, attempts), row_type)

    async def aclose(self) -> None:
        """Make what was logged durable and close the files. They open again at the next row."""
        await self.train_log.aclose()
        await self.eval_log.aclose()

    # Checkpoints ----------------------------------------------------------------------------------

    def publish_step(self, staged: Mapping[str, Any], step: int, keep: int | None) -> None:
        """Write a staged checkpoint, name it ``latest`` too, and prune. Blocks: for the writer's thread."""
        publish_checkpoint(staged, self.checkpoint_path(step))
        files.link_atomically(self.checkpoint_path(step), self.latest_checkpoint_path)
        if keep is not None:
            self._prune(keep)

    def publish_best(self, staged: Mapping[str, Any]) -> None:
        """Write the staged weights of the best policy. Blocks: for the writer's thread."""
        publish_checkpoint(staged, self.best_checkpoint_path)

    async def prune_checkpoints(self, keep: int) -> list[int]:
        """Remove all step checkpoints but the newest ``keep``; never ``latest`` or ``best``.

        One that cannot be removed does not keep the others from being removed.

        Returns:
            The steps that were removed.

        Raises:
            ConfigError: ``keep`` is negative.
            WriteFailed: Some could not be removed; raised when all have been tried.
        """
        if keep < 0:
            raise ConfigError(f"keep={keep}: keep 0 or more checkpoints")
        return await to_thread.run_sync(self._prune, keep)

    def _prune(self, keep: int) -> list[int]:
        removed: list[int] = []
        refusals: list[WriteFailed] = []
        for step in naming.doomed_steps(self.checkpoint_steps(), keep):
            try:
                files.remove(self.checkpoint_path(step))
            except WriteFailed as refusal:
                refusals.append(refusal)
            else:
                removed.append(step)
        if refusals:
            raise refusals[0]
        return removed

    def load_newest(self) -> dict[str, Any] | None:
        """The newest checkpoint that loads, or None where there is none. Blocks.

        Newer ones that do not load are renamed to ``<name>.broken`` and told, so that they neither are
        tried again nor count as the newest.

        Raises:
            CheckpointCorrupt: There are checkpoints, but none loads.
        """
        candidates = [self.checkpoint_path(step) for step in reversed(self.checkpoint_steps())]
        if self.latest_checkpoint_path.name in files.files_in(self.checkpoints_directory):
            candidates.append(self.latest_checkpoint_path)
        problem: StokerError | None = None
        for path in candidates:
            try:
                return load_checkpoint(path)
            except StokerError as error:
                problem = error
                if path != self.latest_checkpoint_path:
                    aside = files.move_aside(path, ".broken")
                    logger.warning("%s; set aside as %s, trying the one before", error, aside.name)
        if problem is not None:
            raise problem
        return None

    def load_best_score(self) -> tuple[float, int] | None:
        """The value of ``best`` and the steps behind it, or None where there is none. Blocks.

        They are read from the file itself, which a crash cannot leave out of step with its weights. One
        that does not load is renamed to ``best.pt.broken`` and told; then the metadata says what to beat.
        """
        path = self.best_checkpoint_path
        if path.name not in files.files_in(self.checkpoints_directory):
            return None
        try:
            best = load_checkpoint(path)["best"]
        except (CheckpointCorrupt, KeyError) as error:
            aside = files.move_aside(path, ".broken")
            logger.warning("%s; set aside as %s, its value is taken from the metadata", error, aside.name)
            value, step = self.metadata.best_value, self.metadata.best_step
            return None if value is None or step is None else (value, step)
        return best["value"], best["total_steps"]


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise ConfigError(f"{name}={count!r}: give an int of at least 0")
