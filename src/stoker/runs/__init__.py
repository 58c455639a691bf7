"""One training's directory: its layout, its metadata, creating, resuming and reading it back."""

from stoker.runs.listing import list_runs
from stoker.runs.metadata import Attempt, EvalEpisodeRow, RunMetadata, TrainEpisodeRow
from stoker.runs.reading import Columns
from stoker.runs.run import TrainingRun

__all__ = [
    "Attempt",
    "Columns",
    "EvalEpisodeRow",
    "RunMetadata",
    "TrainEpisodeRow",
    "TrainingRun",
    "list_runs",
]
