"""Records as TensorBoard event files, written with tensorboardX in the recorder's thread.

Not with its ``SummaryWriter``: that has another thread, which hides disk errors, and gives two files of the
same second the same name.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from stoker.recorders.protocol import BaseRecorder, Outcome, RunContext, imported
from stoker.recorders.values import Image, Record, Value, finite_values
from stoker.types import AnyPath

_BINS = 64


class TensorBoardRecorder(BaseRecorder):
    """Writes event files; the x axis is environment steps.

    Numbers are scalars, also NaN and infinity; histograms and arrays are histograms, images are images, texts
    and times are texts. The settings of the run are a text, ``params``.

    A resumed run continues in a new file of the same directory. TensorBoard then hides the events of an
    earlier attempt beyond the resume; nothing is deleted.

    Args:
        directory: the destination; None: ``tensorboard`` in the run's directory.

    Raises:
        MissingDependency: tensorboardX is not installed.
    """

    name = "tensorboard"
    package = "tensorboardX"

    def __init__(self, directory: AnyPath | None = None) -> None:
        super().__init__()
        self._directory = None if directory is None else Path(directory).absolute()
        self._events: Any = None
        self._event: Any = None
        self._summary: Any = None

    def open(self, context: RunContext) -> None:
        """Begin an event file.

        Raises:
            ConfigError: Neither this recorder nor the run has a directory.
        """
        way_out = "TensorBoardRecorder(directory=...)"
        directory = self._directory or context.need_directory(way_out) / "tensorboard"
        self._event = imported("tensorboardX.proto.event_pb2")
        self._summary = imported("tensorboardX.summary")
        imported("tensorboardX.record_writer").directory_check(os.fspath(directory))
        # TensorBoard reads files in the order of their names, which begin with the second.
        self._events = imported("tensorboardX.event_file_writer").EventsWriter(
            os.fspath(directory / "events"), f".{os.getpid()}.{time.time_ns()}"
        )
        if context.resumed:
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            # TensorBoard hides events from this step on, inclusively.
            self._add(context.total_steps + 1, session_log=start)
        if context.params:
            rows = "\n".join(f"|{key}|{value}|" for key, value in sorted(context.params.items()))
            self._add(
                context.total_steps, summary=self._summary.text("params", f"|name|value|\n|-|-|\n{rows}")
            )
        self._events.flush()

    def write(self, step: int, record: Record) -> None:
        """Append one event per value."""
        for key, value in record.items():
            if (summary := self._summary_of(key, value)) is not None:
                self._add(step, summary=summary)

    def flush(self) -> None:
        """Make the written events durable."""
        self._events.flush()

    def close(self, status: Outcome) -> None:
        """End the file; TensorBoard knows no outcomes."""
        self._events.close()

    def _add(self, step: int, **what: Any) -> None:
        self._events.write_event(self._event.Event(step=step, wall_time=time.time(), **what))

    def _summary_of(self, key: str, value: Value) -> Any:
        """The value as TensorBoard's message; None for a histogram of nothing."""
        make = self._summary
        match value:
            case bool() | int() | float():
                # Not ``make.scalar``: that logs a warning for each number that is not finite.
                return make.Summary(value=[make.Summary.Value(tag=key, simple_value=float(value))])
            case str():
                return make.text(key, value)
            case datetime():
                return make.text(key, value.isoformat())
            case Image():
                return make.image(key, value.pixels, dataformats="HWC")
            case _:
                found = finite_values(value)
                return make.histogram(key, found, _BINS) if len(found) else None
