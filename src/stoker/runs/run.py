"""TrainingRun: one run directory, from its creation to reading it back, and the list of all runs.

The process that writes a run has it locked. A session writes it through its writer task; the methods here
write directly, for programs without a session. ``stoker.runs.layout`` shows the files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec
from anyio import to_thread

import stoker.runs.layout as layout
from stoker.errors import ConfigError, RunBroken, RunDirectoryError, RunNotFound
from stoker.plain import LARGEST_INT, check_actor_id, shown
from stoker.recorders import row_value
from stoker.runs.checkpoints import SavedTraining
from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.figures import checked_target, save_figure
from stoker.runs.frames import FrameLibrary, RowKind, frame_of, row_type_of
from stoker.runs.history import read_table
from stoker.runs.metadata import Attempt, RunMetadata, now, read_json, read_metadata, write_json
from stoker.runs.plotting import SMOOTHING, Curves, draw_curves, read_curves
from stoker.runs.rows import (
    ROW_FILES,
    Columns,
    EvalEpisodeRow,
    MetricsRow,
    Row,
    TrainEpisodeRow,
    loss_of,
)
from stoker.runs.smoothing import Smoothing
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActorId, AnyPath
from stoker.writer import RowLog, decode_rows, files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger("stoker.runs")
T = TypeVar("T")


class TrainingRun(SavedTraining):
    """A run directory. Get one from ``create``, ``resume`` or ``open``.

    Reading needs no lock. Writing takes it, and is refused while another process writes, or another
    ``TrainingRun`` of this one.
    """

    def __init__(self, directory: Path, metadata: RunMetadata) -> None:
        super().__init__(directory, metadata)
        self.train_log: RowLog = RowLog(self.directory / ROW_FILES[TrainEpisodeRow])
        self.eval_log: RowLog = RowLog(self.directory / ROW_FILES[EvalEpisodeRow])
        self.metrics_log: RowLog = RowLog(self.directory / ROW_FILES[MetricsRow])
        self.event_log: RowLog = RowLog(self.directory / EVENTS)

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
        return await to_thread.run_sync(cls._create, layout.place_of(name, version, root))

    @classmethod
    def _create(cls, place: Path) -> TrainingRun:
        return cls.create_at(*new_directory(place))

    @classmethod
    def create_at(cls, directory: Path, metadata: RunMetadata) -> TrainingRun:
        """Make a new run with this metadata in a directory that no run is in yet. Blocks."""
        files.make_directory(directory)
        run = cls(directory, metadata)
        write_json(run.metadata_path, metadata)  # first: this file makes the directory a run
        files.make_directory(run.checkpoints_directory)
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
        return await to_thread.run_sync(cls.find, path)

    @classmethod
    def find(cls, path: AnyPath) -> TrainingRun:
        """As ``open``, for programs without an event loop. Blocks."""
        path = layout.absolute(path)
        if layout.is_run(path):
            return cls(path, read_metadata(path))
        candidates = layout.runs_below(path)
        if not candidates:
            around = next(filter(layout.is_run, path.parents[:2]), None)
            way_out = "`stoker ls` lists the runs that there are"
            if around is not None:
                way_out = f"name the one that it is in, {around}"
            raise RunNotFound(path, f"no run there; {way_out}")
        for candidate in reversed(candidates):
            try:
                return cls(candidate, read_metadata(candidate))
            except RunBroken as error:
                _logger.warning("passed over a broken run: %s", error)
        raise RunBroken(path, f"none of the {len(candidates)} runs there can be read")

    @classmethod
    async def resume(cls, path: AnyPath) -> TrainingRun:
        """Find a run to resume, as ``open`` does. Nothing is written yet.

        A session with this run locks it, removes half-written files of a crash, restores the newest
        checkpoint that loads and learns the journal's events behind it. Rows whose events are lost stay in
        their files as an abandoned future: ``read_train_episodes(all_attempts=True)`` reads them.

        Raises:
            RunNotFound, RunBroken: As for ``open``.
        """
        return await cls.open(path)

    def has_begun(self) -> bool:
        """Whether an attempt has begun to train it; one that was only made is still new. Blocks."""
        names = files.files_in(self.directory)
        return EVENTS in names or len(self.metadata.attempts) > 1 or self.has_checkpoint()

    # Config and metadata --------------------------------------------------------------------------

    async def write_config(self, config: Any) -> None:
        """Write ``config.json``: any value that msgspec can turn into JSON."""
        await self.acquire_if_needed()
        await to_thread.run_sync(write_json, self.directory / layout.CONFIG, config)

    @overload
    async def read_config(self) -> Any: ...
    @overload
    async def read_config(self, config_type: type[T]) -> T: ...
    async def read_config(self, config_type: Any = Any) -> Any:
        """The config, as plain values or as the given type.

        Raises:
            RunBroken: It is missing, unreadable or of another type.
        """
        return await to_thread.run_sync(read_json, self.directory / layout.CONFIG, config_type)

    async def update_metadata(self, total_steps: int, total_episodes: int) -> None:
        """Rewrite the metadata with these counters.

        Raises:
            ConfigError: One of them is negative or no integer.
        """
        _check_counts(total_steps=total_steps, total_episodes=total_episodes)
        await self.acquire_if_needed()
        self.metadata = self.on_disk = self.counted(total_steps, total_episodes)
        await to_thread.run_sync(write_json, self.metadata_path, self.metadata)

    def counted(
        self, total_steps: int, total_episodes: int, best: tuple[float, int] | None = None
    ) -> RunMetadata:
        """The metadata with other counters, as of now; nothing is written."""
        value, step = best or (self.metadata.best_value, self.metadata.best_step)
        return msgspec.structs.replace(
            self.metadata,
            total_steps=total_steps,
            total_episodes=total_episodes,
            last_updated=now(),
            best_value=value,
            best_step=step,
        )

    def begin_attempt(
        self,
        from_steps: int,
        from_episodes: int,
        from_events: int = 0,
        from_opt_steps: int | None = None,
        relearned_steps: int = 0,
    ) -> int:
        """Begin an attempt at these counters, and return its number: rows from now on carry it. Blocks.

        Checkpoints beyond that point are renamed to ``<name>.abandoned``.
        """
        self.acquire()
        self.begin_from(from_steps)
        attempts = self.metadata.attempts
        attempt = Attempt(
            number=attempts[-1].number + 1,
            started_at=now(),
            from_steps=from_steps,
            from_episodes=from_episodes,
            from_events=from_events,
            from_opt_steps=from_opt_steps,
            relearned_steps=relearned_steps,
        )
        counted = self.counted(from_steps, from_episodes)
        self.on_disk: RunMetadata = msgspec.structs.replace(counted, attempts=(*attempts, attempt))
        self.metadata: RunMetadata = self.on_disk
        write_json(self.metadata_path, self.metadata)
        return attempt.number

    # Rows -----------------------------------------------------------------------------------------

    async def log_train_episode(
        self, record: EpisodeRecord, *, total_steps: int | None = None, actor_id: ActorId = 0
    ) -> None:
        """Append one training episode, and count it in the metadata that is written next.

        Args:
            record: the episode.
            total_steps: environment steps so far; left out, the sum of the lengths logged here.
            actor_id: the actor that played it.

        Raises:
            InvalidExperience: A number in the record is not finite, or the actor_id cannot be used.
            ConfigError: ``total_steps`` is negative or no integer.
        """
        record = check_record(record)
        check_actor_id(actor_id)
        if total_steps is not None:
            _check_counts(total_steps=total_steps)
        await self.acquire_if_needed()
        steps = self.metadata.total_steps + record.length if total_steps is None else total_steps
        self.metadata = self.counted(steps, self.metadata.total_episodes + 1)
        row = self.train_row(record, steps, self.metadata.total_episodes, actor_id)
        await self.train_log.append_rows([row])

    def train_row(
        self, record: EpisodeRecord, total_steps: int, episode: int, actor_id: ActorId
    ) -> TrainEpisodeRow:
        """The row for a training episode that ended now."""
        return TrainEpisodeRow(
            **msgspec.structs.asdict(record),
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
        record = check_record(record)
        await self.acquire_if_needed()
        await self.eval_log.append_rows([self.eval_row(record, total_steps)])

    def eval_row(self, record: EpisodeRecord, total_steps: int) -> EvalEpisodeRow:
        """The row for an evaluation episode that ended now."""
        return EvalEpisodeRow(
            total_steps_at_eval=total_steps,
            **msgspec.structs.asdict(record),
            time=now(),
            attempt=self.attempt,
        )

    def metrics_row(self, total_steps: int, opt_steps: int, record: Mapping[str, Any]) -> MetricsRow | None:
        """The row for a record of the metrics: its numbers and texts; None if it has none of these."""
        metrics = {key: value for key, found in record.items() if (value := row_value(found)) is not None}
        if not metrics:
            return None
        return MetricsRow(
            total_steps=total_steps,
            opt_steps=opt_steps,
            metrics=metrics,
            time=now(),
            attempt=self.attempt,
        )

    async def read_metrics(self, *, all_attempts: bool = False) -> Columns:
        """The rows of metrics as columns; with ``all_attempts`` also those of an abandoned future."""
        return await to_thread.run_sync(self._read_rows, MetricsRow, all_attempts)

    async def read_train_episodes(self, *, all_attempts: bool = False) -> Columns:
        """The training rows as columns; with ``all_attempts`` also those of an abandoned future."""
        return await to_thread.run_sync(self._read_rows, TrainEpisodeRow, all_attempts)

    async def read_eval_episodes(self, *, all_attempts: bool = False) -> Columns:
        """The evaluation rows as columns; with ``all_attempts`` also those of an abandoned future."""
        return await to_thread.run_sync(self._read_rows, EvalEpisodeRow, all_attempts)

    async def read_events(self) -> list[EventRow]:
        """What happened to the run, in the order in which it was recorded, over all attempts.

        Raises:
            RunBroken: A row is damaged; the message names it.
        """
        return await to_thread.run_sync(decode_rows, self.event_log.path, EventRow)

    def to_frame(
        self, rows: RowKind = "train", *, library: FrameLibrary = "pandas", all_attempts: bool = False
    ) -> Any:
        """The rows as a data frame, with the columns of ``read_train_episodes`` and its like. Blocks.

        Args:
            rows: ``train`` or ``eval`` for episodes, ``metrics`` for records.
            library: ``pandas`` or ``polars``.
            all_attempts: also the rows of an abandoned future.

        Raises:
            ConfigError: There are no such rows, or no such library.
            MissingDependency: The library is not installed.
            RunBroken: A row is damaged; the message names it.
        """
        table, counted = read_table(self.directory, row_type_of(rows), all_attempts=all_attempts)
        return frame_of(table.columns(counted), library)

    def curves(self) -> Curves:
        """The rows that ``plot`` draws. Blocks.

        Raises:
            RunDirectoryError: No episode has ended yet, or a row is damaged.
        """
        return read_curves(self.directory, self.metadata)

    def plot(self, path: AnyPath | None = None, *, title: str = "", smooth: str = str(SMOOTHING)) -> Figure:
        """Draw the run's learning curve, also while it is trained; a notebook displays the figure. Blocks.

        Args:
            path: where to save it, too: a .png, .svg or .pdf file.
            title: what to write above the curve; "": the name of the run.
            smooth: how episodes are smoothed: ``mean:WINDOW`` or ``ema:WEIGHT``.

        Raises:
            ConfigError: The file is of another kind, or there is no such smoothing.
            RunDirectoryError: No episode has ended yet.
            MissingDependency: matplotlib is not installed.
            StokerError: The file cannot be written.
        """
        target = None if path is None else checked_target(Path(path))
        figure = draw_curves([self.curves()], title, Smoothing.parse(smooth))
        if target is not None:
            save_figure(figure, target)
        return figure

    def _read_rows(self, row_type: type[Row], all_attempts: bool = False) -> Columns:
        table, rows = read_table(self.directory, row_type, all_attempts=all_attempts)
        return table.as_columns(rows)

    def lost_rows(self, total_episodes: int, eval_episodes: int, records: int) -> Iterator[str]:
        """Rows that are damaged or missing, one text for each file that has lost some. Blocks.

        Args:
            total_episodes: training episodes that a checkpoint counts.
            eval_episodes: evaluation episodes that it counts.
            records: records of the metrics that it counts.
        """
        counts = (total_episodes, eval_episodes, records)
        for (row_type, name), n_counted in zip(ROW_FILES.items(), counts, strict=True):
            path = self.directory / name
            try:
                rows = decode_rows(path, row_type)
            except RunBroken as error:
                yield str(error)
                continue
            if (lost := loss_of(rows, self.metadata.attempts, n_counted)) is not None:
                yield f"{path}: {lost}"

    async def aclose(self) -> None:
        """Make logged rows durable, close the files and unlock. They open again at the next row."""
        try:
            for log in (self.train_log, self.eval_log, self.metrics_log, self.event_log):
                await log.aclose()
        finally:
            self.release()


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count <= LARGEST_INT:
            raise ConfigError(f"{name}={shown(count)}: give an int of at least 0, and of up to 63 bits")


def new_directory(place: Path) -> tuple[Path, RunMetadata]:
    """Make a directory for a run that starts now; two in one second get two. No metadata is written."""
    started_at = now()
    run_id = stamp = f"{started_at:%Y%m%d_%H%M%S}"
    number = 1
    while not files.make_directory(place / run_id, exclusive=True):
        number += 1
        run_id = f"{stamp}_{number}"
    return place / run_id, RunMetadata(
        name=place.parent.name,
        version=place.name,
        run_id=run_id,
        started_at=started_at,
        last_updated=started_at,
        attempts=(Attempt(number=1, started_at=started_at),),
    )


async def list_runs(root: AnyPath = "runs") -> list[TrainingRun | RunDirectoryError]:
    """Every run below a directory, ordered naturally; a broken one as the error that says why.

    Raises:
        RunNotFound: There is no such directory.
    """
    return await to_thread.run_sync(_list, Path(root))


def _list(root: Path) -> list[TrainingRun | RunDirectoryError]:
    if not root.is_dir():
        raise RunNotFound(root, "no such runs directory")
    found: list[TrainingRun | RunDirectoryError] = []
    for directory in layout.runs_below(root):
        try:
            found.append(TrainingRun(directory, read_metadata(directory)))
        except RunDirectoryError as error:
            found.append(error)
    return found
