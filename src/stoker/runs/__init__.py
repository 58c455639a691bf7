"""One training's directory: its layout, its lock, its metadata, creating, resuming, forking, reading back."""

from stoker.runs.forking import fork
from stoker.runs.listing import list_runs
from stoker.runs.locking import RunLock
from stoker.runs.metadata import Attempt, EvalEpisodeRow, MetricsRow, RunMetadata, TrainEpisodeRow
from stoker.runs.processes import Holder
from stoker.runs.reading import Columns
from stoker.runs.retention import Retention
from stoker.runs.run import TrainingRun
from stoker.writer import RowReader

__all__ = [
    "Attempt",
    "Columns",
    "EvalEpisodeRow",
    "Holder",
    "MetricsRow",
    "Retention",
    "RowReader",
    "RunLock",
    "RunMetadata",
    "TrainEpisodeRow",
    "TrainingRun",
    "fork",
    "list_runs",
]
