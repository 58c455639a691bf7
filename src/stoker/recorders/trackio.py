"""Records in Trackio's local store, which ``trackio show`` shows; no network and no account."""

from __future__ import annotations

from typing import Any

import numpy as np

from stoker.recorders.optional import imported, require
from stoker.recorders.protocol import Outcome, RunContext
from stoker.recorders.values import Histogram, Image, Record, Value, row_value

__all__ = ["TrackioRecorder"]


class TrackioRecorder:
    """Writes to the store that Trackio has for its user: ``TRACKIO_DIR``, by default in its cache directory.

    A resumed run goes on under its name. Numbers, texts and images are such; arrays and histograms are
    histograms; times are texts. Trackio writes from its own thread, twice a second, and warns of what it
    cannot write. It knows no outcomes: the last row says how the run ended, as ``stoker/status``.

    Args:
        project: its name; None: the run's name.

    Raises:
        MissingDependency: trackio is not installed.
    """

    name = "trackio"

    def __init__(self, project: str | None = None) -> None:
        require("trackio", "trackio")
        self._project = project
        self._trackio: Any = None
        self._run: Any = None
        self._step = 0

    def open(self, context: RunContext) -> None:
        """Begin the run, or go on with it."""
        self._trackio = imported("trackio")
        self._step = context.total_steps
        self._run = self._trackio.init(
            project=self._project or context.name,
            name="-".join(filter(None, (context.name, context.version, context.run_id))),
            resume="allow" if context.run_id else "never",
            config={**context.tags, **context.params},
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def write(self, step: int, record: Record) -> None:
        """Log the record as one row."""
        found = {key: self._logged(value) for key, value in record.items()}
        self._run.log({key: value for key, value in found.items() if value is not None}, step=step)
        self._step = step

    def flush(self) -> None:
        """Trackio's own thread writes by itself."""

    def close(self, status: Outcome) -> None:
        """Note the outcome and wait until all is written."""
        self._run.log({"stoker/status": status}, step=self._step)
        self._run.finish()

    def _logged(self, value: Value) -> Any:
        """The value as Trackio takes it; None for a histogram of nothing."""
        match value:
            case Image():
                return self._trackio.Image(
                    value.pixels.squeeze(-1) if value.pixels.shape[-1] == 1 else value.pixels
                )
            case Histogram():
                return self._histogram(value)
            case np.ndarray():
                return self._histogram(Histogram(value))
            case bool() | int() | float():
                return value
            case _:
                return row_value(value)

    def _histogram(self, histogram: Histogram) -> Any:
        return self._trackio.Histogram(histogram.values) if len(histogram.finite()) else None
