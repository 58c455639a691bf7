"""Where the numbers of a training go besides the run directory: records, and the sinks that take them.

Names are imported at their first use; what a sink needs is imported when it opens.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.recorders.console import ConsoleRecorder
    from stoker.recorders.driving import Recording
    from stoker.recorders.jsonl import JsonlRecorder, row_of
    from stoker.recorders.metrics import Metrics
    from stoker.recorders.mlflow import MLflowRecorder
    from stoker.recorders.protocol import (
        ArtifactRecorder,
        Outcome,
        Recorder,
        RunContext,
        flat_params,
    )
    from stoker.recorders.tensorboard import TensorBoardRecorder
    from stoker.recorders.trackio import TrackioRecorder
    from stoker.recorders.values import Histogram, Image, Record, Value, checked_record, row_value
    from stoker.recorders.wandb import WandbRecorder
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.recorders.console": "ConsoleRecorder",
            "stoker.recorders.driving": "Recording",
            "stoker.recorders.jsonl": "JsonlRecorder row_of",
            "stoker.recorders.metrics": "Metrics",
            "stoker.recorders.mlflow": "MLflowRecorder",
            "stoker.recorders.protocol": "ArtifactRecorder Outcome Recorder RunContext flat_params",
            "stoker.recorders.tensorboard": "TensorBoardRecorder",
            "stoker.recorders.trackio": "TrackioRecorder",
            "stoker.recorders.values": "Histogram Image Record Value checked_record row_value",
            "stoker.recorders.wandb": "WandbRecorder",
        },
    )

__all__ = [
    "ArtifactRecorder",
    "ConsoleRecorder",
    "Histogram",
    "Image",
    "JsonlRecorder",
    "MLflowRecorder",
    "Metrics",
    "Outcome",
    "Record",
    "Recorder",
    "Recording",
    "RunContext",
    "TensorBoardRecorder",
    "TrackioRecorder",
    "Value",
    "WandbRecorder",
    "checked_record",
    "flat_params",
    "row_of",
    "row_value",
]
