"""The recorder protocol, a base for recorders, and the description of the run that recorders get.

    recorder.open(context)                  once, or again after it failed
    recorder.write(step, record)            per record, in order
    recorder.flush()                        when there is nothing more to write for now
    recorder.close("finished")              once

All calls block, and each recorder has a thread for them: a slow disk or network delays nothing else. A
recorder raises its errors; ``Recording`` decides what happens then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable
from uuid import uuid4

import msgspec

from stoker.errors import ConfigError, MissingDependency
from stoker.recorders.values import Record

Outcome = Literal["finished", "failed", "stopped"]
"""How a run ended: as planned, with an error, or early by request."""


Params = Mapping[str, str | int | float | bool | None]
"""Settings by name."""


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """The run to record.

    Attributes:
        name: the run's name; experiments and projects are named after it.
        version: the run's version.
        run_id: distinguishes this run from others of its name; a resumed run has the same. "": none.
        directory: the run's directory, the default place of recorders; None: the run has none.
        params: the settings of the run, by name.
        tags: further labels, for searching.
        resumed: whether the run continues an earlier attempt.
        total_steps: environment steps at the beginning. Records of an earlier attempt beyond that belong to a
            future that was abandoned.
    """

    name: str
    version: str = "v1"
    run_id: str = msgspec.field(default_factory=lambda: uuid4().hex[:12])
    directory: Path | None = None
    params: Params = {}
    tags: Mapping[str, str] = {}
    resumed: bool = False
    total_steps: int = 0

    def __post_init__(self) -> None:
        if self.directory is not None:  # recorders open late, and perhaps again
            msgspec.structs.force_setattr(self, "directory", self.directory.absolute())

    def need_directory(self, way_out: str) -> Path:
        """The run's directory, or a ``ConfigError`` with the way out."""
        if self.directory is None:
            raise ConfigError(f"the run has no directory: use {way_out}")
        return self.directory


class Recorder(Protocol):
    """A destination of records; ``name`` is its name in messages."""

    name: str

    def open(self, context: RunContext) -> None:
        """Get ready. Called again before the next record if it raised.

        Raises:
            ConfigError, MissingDependency: It will never open like this, and another attempt is useless.
        """
        ...

    def write(self, step: int, record: Record) -> None:
        """Take a record, which is not handed in again if this raises.

        Args:
            step: environment steps.
            record: as ``checked_record`` returns it; its arrays must not be changed.
        """
        ...

    def flush(self) -> None:
        """Make the written records visible to readers."""
        ...

    def close(self, status: Outcome) -> None:
        """Finish writing and note how the run ended; the last call."""
        ...


@runtime_checkable
class ArtifactRecorder(Protocol):
    """A recorder that also takes files."""

    def add_artifact(self, path: Path, folder: str) -> None:
        """Copy a file under its own name into a folder of the run's artifacts; "": at the top."""
        ...


class BaseRecorder:
    """Base of recorders: methods that do nothing, and a package that is imported late.

    ``name`` is also that of stoker's extra with the ``package``. A missing package is an error where the
    recorder is made. It is imported when the recorder opens, in the recorder's thread, because some take
    seconds.

    Raises:
        MissingDependency: The package is not installed.
    """

    name = ""
    package = ""

    def __init__(self) -> None:
        if self.package and find_spec(self.package) is None:
            raise MissingDependency(self.package, self.name)

    def open(self, context: RunContext) -> None:
        """Get ready."""

    def flush(self) -> None:
        """Make the written records visible to readers."""

    def close(self, status: Outcome) -> None:
        """Finish writing."""


# Recorders open side by side, and their packages share dependencies: rather than let two threads wait for
# each other, Python lets one of them see a half-imported module.
_importing = threading.Lock()


def imported(module: str) -> Any:
    """Import the module; one thread at a time."""
    with _importing:
        return import_module(module)


def flat_params(settings: Mapping[str, Any], prefix: str = "") -> Params:
    """Nested settings as one level of names: ``{"dqn": {"gamma": 0.99}}`` gives ``{"dqn/gamma": 0.99}``.

    A value that is neither a mapping nor plain becomes its text.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_params(cast("Mapping[str, Any]", value), f"{name}/")
        else:
            flat[name] = value if value is None or isinstance(value, (str, int, float)) else str(value)
    return flat
