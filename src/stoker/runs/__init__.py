"""One training's directory: its layout, its lock, its metadata, creating, resuming, forking, reading back."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.runs.forking import fork as fork
    from stoker.runs.listing import list_runs as list_runs
    from stoker.runs.locking import RunLock as RunLock
    from stoker.runs.metadata import (
        Attempt as Attempt,
        EvalEpisodeRow as EvalEpisodeRow,
        MetricsRow as MetricsRow,
        RunMetadata as RunMetadata,
        TrainEpisodeRow as TrainEpisodeRow,
    )
    from stoker.runs.processes import Holder as Holder
    from stoker.runs.reading import Columns as Columns
    from stoker.runs.retention import Retention as Retention
    from stoker.runs.run import TrainingRun as TrainingRun
    from stoker.writer import RowReader as RowReader
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
