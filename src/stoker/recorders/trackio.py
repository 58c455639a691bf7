"""Records in Trackio's local store, which ``trackio show`` shows; no network and no account."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.recorders.optional import imported, require
from stoker.recorders.protocol import Outcome, RunContext
from stoker.recorders.values import Record, logged_values

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
        self._run.log(logged_values(record, self._image, self._trackio.Histogram), step=step)
        self._step = step

    def flush(self) -> None:
        """Trackio's own thread writes by itself."""

    def close(self, status: Outcome) -> None:
        """Note the outcome and wait until all is written."""
        self._run.log({"stoker/status": status}, step=self._step)
        self._run.finish()

    def _image(self, pixels: NDArray[np.uint8]) -> Any:
        return self._trackio.Image(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
