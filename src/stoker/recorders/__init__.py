"""Recorders: destinations for the metrics of a training besides the run directory.

Names are imported at their first use, and a recorder's package when the recorder opens.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.recorders.metrics import Metrics as Metrics
    from stoker.recorders.mlflow import MLflowRecorder as MLflowRecorder
    from stoker.recorders.protocol import (
        ArtifactRecorder as ArtifactRecorder,
        Outcome as Outcome,
        Recorder as Recorder,
        RunContext as RunContext,
        flat_params as flat_params,
    )
    from stoker.recorders.recording import Recording as Recording
    from stoker.recorders.tensorboard import TensorBoardRecorder as TensorBoardRecorder
    from stoker.recorders.text import ConsoleRecorder as ConsoleRecorder, JsonlRecorder as JsonlRecorder
    from stoker.recorders.values import (
        Histogram as Histogram,
        Image as Image,
        Record as Record,
        Value as Value,
        checked_record as checked_record,
        finite_values as finite_values,
        row_value as row_value,
    )
    from stoker.recorders.wandb import TrackioRecorder as TrackioRecorder, WandbRecorder as WandbRecorder
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
