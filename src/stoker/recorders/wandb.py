"""Records as a run of Weights & Biases or of Trackio; without network and account unless asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stoker.errors import ConfigError
from stoker.recorders.protocol import BaseRecorder, Outcome, RunContext, imported
from stoker.recorders.values import Histogram, Image, Record, finite_values, row_value
from stoker.types import AnyPath

_STEP = "global_step"
_EXIT_CODE: Mapping[Outcome, int] = {"finished": 0, "failed": 1, "stopped": 255}
_NOT_IN_ID = re.compile(r"[^\w-]+")


class _RunRecorder(BaseRecorder):
    """Logs numbers, texts and images as such, arrays and histograms as histograms, times as texts.

    Scalars that are not finite stay; a histogram without finite values is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._module: Any = None
        self._run: Any = None

    def _logged(self, record: Record) -> dict[str, Any]:
        logged: dict[str, Any] = {}
        for key, value in record.items():
            match value:
                case Image(pixels=pixels):
                    logged[key] = self._module.Image(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)
                case Histogram() | np.ndarray():
                    if len(found := finite_values(value)):
                        logged[key] = self._module.Histogram(found)
                case bool() | int() | float():
                    logged[key] = value
                case _:
                    logged[key] = row_value(value)
        return logged


class WandbRecorder(_RunRecorder):
    """Writes wandb's own files; ``wandb sync DIRECTORY`` sends them to a server later.

    The x axis is environment steps, ``global_step``: wandb's own step cannot go back, as it must when a run
    is resumed. A resumed run has the same id, so that the synced files are one run.

    Args:
        project: the project's name; None: the run's name.
        directory: the destination; None: ``wandb`` in the run's directory.
        mode: ``"offline"``, or ``"online"``, which needs an account.
        settings: further fields of ``wandb.Settings``.

    Raises:
        MissingDependency: wandb is not installed.
        ConfigError: An unknown mode.
    """

    name = package = "wandb"

    def __init__(
        self,
        project: str | None = None,
        *,
        directory: AnyPath | None = None,
        mode: Literal["offline", "online"] = "offline",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("offline", "online"):
            raise ConfigError(f"mode={mode!r}: give 'offline' or 'online'")
        self._project = project
        self._directory = None if directory is None else Path(directory).absolute()
        self._mode = mode
        self._settings = dict(settings or {})

    def open(self, context: RunContext) -> None:
        """Begin or continue the run.

        Raises:
            ConfigError: Neither this recorder nor the run has a directory.
        """
        directory = self._directory or context.need_directory("WandbRecorder(directory=...)")
        self._module = wandb = imported("wandb")
        settings = {
            "mode": self._mode,
            "root_dir": os.fspath(directory),
            "console": "off",  # wandb must not capture standard output
            "silent": True,
            **self._settings,
        }
        parts = (context.name, context.version, context.run_id)
        self._run = wandb.init(
            project=self._project or context.name,
            name=" ".join(filter(None, parts[1:])) or None,
            id=_NOT_IN_ID.sub("-", "-".join(filter(None, parts))) if context.run_id else None,
            # Without a server wandb cannot find out whether the run exists.
            resume="allow" if self._mode == "online" else None,
            config=dict(context.params),
            tags=[f"{key}:{value}" for key, value in context.tags.items()] or None,
            settings=wandb.Settings(**settings),
            reinit="create_new",  # leaves a run that the caller has open as it is
        )
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("*", step_metric=_STEP)

    def write(self, step: int, record: Record) -> None:
        """Log the record as one row, which wandb's own process writes."""
        self._run.log({_STEP: step, **self._logged(record)})

    def close(self, status: Outcome) -> None:
        """Finish the run with that outcome."""
        self._run.summary["stoker/status"] = status
        self._run.finish(exit_code=_EXIT_CODE[status])


class TrackioRecorder(_RunRecorder):
    """Writes to Trackio's local store of this user: ``TRACKIO_DIR``, by default in its cache directory.

    ``trackio show`` shows it. A resumed run continues under its name. Trackio writes from its own thread,
    twice a second, and warns of what it cannot write. It has no outcomes: the last row holds it, as
    ``stoker/status``.

    Args:
        project: the project's name; None: the run's name.

    Raises:
        MissingDependency: trackio is not installed.
    """

    name = package = "trackio"

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self._project = project
        self._step = 0

    def open(self, context: RunContext) -> None:
        """Begin or continue the run."""
        self._module = imported("trackio")
        self._step = context.total_steps
        self._run = self._module.init(
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
        self._run.log(self._logged(record), step=step)
        self._step = step

    def close(self, status: Outcome) -> None:
        """Note the outcome and wait until everything is written."""
        self._run.log({"stoker/status": status}, step=self._step)
        self._run.finish()
