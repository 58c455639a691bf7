"""Run directories: layout, lock, metadata, checkpoints, rows; creating, resuming, forking, reading."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.runs.checkpoints import Retention as Retention
    from stoker.runs.event_rows import EventRow as EventRow
    from stoker.runs.forking import fork as fork
    from stoker.runs.groups import (
        GroupCommit as GroupCommit,
        GroupPosition as GroupPosition,
        TrainingGroup as TrainingGroup,
    )
    from stoker.runs.history import RunHistory as RunHistory
    from stoker.runs.holders import Holder as Holder
    from stoker.runs.locking import RunLock as RunLock
    from stoker.runs.metadata import Attempt as Attempt, RunMetadata as RunMetadata
    from stoker.runs.rows import (
        Columns as Columns,
        EvalEpisodeRow as EvalEpisodeRow,
        MetricsRow as MetricsRow,
        TrainEpisodeRow as TrainEpisodeRow,
    )
    from stoker.runs.run import TrainingRun as TrainingRun, list_runs as list_runs
    from stoker.runs.status import RunStatus as RunStatus, status_of as status_of
    from stoker.runs.tables import RowTable as RowTable
    from stoker.writer import RowReader as RowReader
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
