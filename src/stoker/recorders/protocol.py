"""The recorder protocol, and the description of the run that recorders get.

    recorder.open(context)                  once, or again after it has failed
    recorder.write(step, record)            per record, in order
    recorder.flush()                        whenever there is nothing more to write for now
    recorder.close("finished")              once

All calls block, and all come from one thread of the recorder's own: a slow disk or network holds up nobody
else. A recorder raises its errors; ``Recording`` decides what happens then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable
from uuid import uuid4

import msgspec

from stoker.recorders.values import Record

__all__ = ["ArtifactRecorder", "Outcome", "Recorder", "RunContext", "flat_params"]

Outcome = Literal["finished", "failed", "stopped"]
"""How a run ended: as planned, of an error, or because somebody wished it."""


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """Which run it is that will be recorded.

    Attributes:
        name: the run's name; experiments and projects are called so.
        version: its version.
        run_id: tells this run from others of its name; a resumed run has it again. "": one of its own.
        directory: the run's directory, where sinks without a place of their own keep theirs; None: there is
            none.
        params: the settings it was started with, by name.
        tags: further things to find it by.
        resumed: whether it goes on from an earlier attempt.
        total_steps: environment steps at the beginning; of a resumed run, where it goes on. What an earlier
            attempt recorded beyond that is of an abandoned future.
    """

    name: str
    version: str = "v1"
    run_id: str = msgspec.field(default_factory=lambda: uuid4().hex[:12])
    directory: Path | None = None
    params: Mapping[str, str | int | float | bool | None] = msgspec.field(
        default_factory=dict[str, "str | int | float | bool | None"]
    )
    tags: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    resumed: bool = False
    total_steps: int = 0

    def __post_init__(self) -> None:
        if self.directory is not None:  # recorders open late, and perhaps again
            msgspec.structs.force_setattr(self, "directory", self.directory.absolute())


class Recorder(Protocol):
    """A sink of records.

    Attributes:
        name: what messages call it.
    """

    name: str

    def open(self, context: RunContext) -> None:
        """Get ready. Called again before the next record, should it have raised.

        Raises:
            ConfigError, MissingDependency: It will never open like this; nothing is begun then.
        """
        ...

    def write(self, step: int, record: Record) -> None:
        """Take a record. One that raises is not handed in again.

        Args:
            step: environment steps.
            record: as ``checked_record`` returns it; its arrays are not to be changed.
        """
        ...

    def flush(self) -> None:
        """Let others see what was written."""
        ...

    def close(self, status: Outcome) -> None:
        """Finish what was written and say how the run ended; nothing is called afterwards."""
        ...


@runtime_checkable
class ArtifactRecorder(Protocol):
    """A recorder that also takes files."""

    def add_artifact(self, path: Path, folder: str) -> None:
        """Take a copy of a file, under its own name.

        Args:
            path: the file.
            folder: where to put it among the run's artifacts; "": at the top.
        """
        ...


def flat_params(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Nested settings as one level of names: ``{"dqn": {"gamma": 0.99}}`` gives ``{"dqn/gamma": 0.99}``.

    What is neither a mapping nor a plain value becomes its text.
    """
    flat: dict[str, str | int | float | bool | None] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_params(cast("Mapping[str, Any]", value), f"{name}/")
        else:
            flat[name] = value if value is None or isinstance(value, (str, int, float)) else str(value)
    return flat
