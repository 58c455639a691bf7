"""Records as a run of Weights & Biases; without network and account unless asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.recorders.optional import imported, require
from stoker.recorders.protocol import Outcome, RunContext
from stoker.recorders.values import Record, logged_values
from stoker.types import AnyPath

__all__ = ["WandbRecorder"]

_STEP = "global_step"
_BINS = 64
_EXIT_CODE: Mapping[Outcome, int] = {"finished": 0, "failed": 1, "stopped": 255}
_NO_ID = re.compile(r"[^\w-]+")


class WandbRecorder:
    """Writes wandb's own files; ``wandb sync DIRECTORY`` sends them to a server later.

    The x axis is environment steps, ``global_step``: wandb's own step could not go back when a run is
    resumed. A resumed run has the same id, so that what is synced is one run. Numbers, texts and images are
    such; arrays and histograms are histograms; times are texts.

    Args:
        project: its name; None: the run's name.
        directory: where to; None: ``wandb`` in the run's directory.
        mode: ``"offline"``, or ``"online"``, which needs an account.
        settings: further fields of ``wandb.Settings``.

    Raises:
        MissingDependency: wandb is not installed.
        ConfigError: An unknown mode.
    """

    name = "wandb"

    def __init__(
        self,
        project: str | None = None,
        *,
        directory: AnyPath | None = None,
        mode: Literal["offline", "online"] = "offline",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        require("wandb", "wandb")
        if mode not in ("offline", "online"):
            raise ConfigError(f"mode={mode!r} is none of 'offline', 'online'")
        self._project = project
        self._directory = None if directory is None else Path(directory).absolute()
        self._mode = mode
        self._settings = dict(settings or {})
        self._wandb: Any = None
        self._run: Any = None

    def open(self, context: RunContext) -> None:
        """Begin the run, or go on with it.

        Raises:
            ConfigError: Neither this recorder nor the run has a directory.
        """
        directory = context.directory if self._directory is None else self._directory
        if directory is None:
            raise ConfigError("the run has no directory: use WandbRecorder(directory=...)")
        self._wandb = wandb = imported("wandb")
        settings = {
            "mode": self._mode,
            "root_dir": os.fspath(directory),
            "console": "off",  # standard output is not ours to capture
            "silent": True,
            **self._settings,
        }
        parts = (context.name, context.version, context.run_id)
        self._run = wandb.init(
            project=self._project or context.name,
            name=" ".join(filter(None, parts[1:])) or None,
            id=_NO_ID.sub("-", "-".join(filter(None, parts))) if context.run_id else None,
            # Without a server there is nothing to ask whether the run exists.
            resume="allow" if self._mode == "online" else None,
            config=dict(context.params),
            tags=[f"{key}:{value}" for key, value in context.tags.items()] or None,
            settings=wandb.Settings(**settings),
            reinit="create_new",  # a run that the caller has open is not ours to end
        )
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def write(self, step: int, record: Record) -> None:
        """Log the record as one row."""
        self._run.log({_STEP: step, **logged_values(record, self._wandb.Image, self._histogram)})

    def flush(self) -> None:
        """Wandb's own process writes by itself."""

    def close(self, status: Outcome) -> None:
        """Finish the run with that outcome."""
        self._run.summary["stoker/status"] = status
        self._run.finish(exit_code=_EXIT_CODE[status])

    def _histogram(self, values: NDArray[np.float64]) -> Any:
        return self._wandb.Histogram(np_histogram=np.histogram(values, _BINS))
