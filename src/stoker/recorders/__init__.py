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
            "ArtifactRecorder": "stoker.recorders.protocol",
            "ConsoleRecorder": "stoker.recorders.console",
            "Histogram": "stoker.recorders.values",
            "Image": "stoker.recorders.values",
            "JsonlRecorder": "stoker.recorders.jsonl",
            "MLflowRecorder": "stoker.recorders.mlflow",
            "Metrics": "stoker.recorders.metrics",
            "Outcome": "stoker.recorders.protocol",
            "Record": "stoker.recorders.values",
            "Recorder": "stoker.recorders.protocol",
            "Recording": "stoker.recorders.driving",
            "RunContext": "stoker.recorders.protocol",
            "TensorBoardRecorder": "stoker.recorders.tensorboard",
            "TrackioRecorder": "stoker.recorders.trackio",
            "Value": "stoker.recorders.values",
            "WandbRecorder": "stoker.recorders.wandb",
            "checked_record": "stoker.recorders.values",
            "flat_params": "stoker.recorders.protocol",
            "row_of": "stoker.recorders.jsonl",
            "row_value": "stoker.recorders.values",
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
