"""What a run says of itself, and its JSON documents: read with their type checked, written whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from stoker.errors import ConfigError, RunBroken
from stoker.runs.layout import METADATA
from stoker.settings import Natural
from stoker.writer import files


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one process on a run.

    Attributes:
        number: 1 for the first, one more for each resume.
        started_at: when it began.
        from_steps: ``total_steps`` where it began: at a checkpoint, or behind one by the journal's steps.
        from_episodes: ``total_episodes`` there.
        from_events: how many events of the journal were consumed before.
        from_opt_steps: how many optimization steps were done before; None: not known.
        relearned_steps: how many of the ``from_steps`` came behind the checkpoint, from the journal.
    """

    number: int
    started_at: datetime
    from_steps: Natural = 0
    from_episodes: Natural = 0
    from_events: Natural = 0
    from_opt_steps: Natural | None = None
    relearned_steps: Natural = 0

    @property
    def checkpoint_step(self) -> int:
        """``total_steps`` of the checkpoint that it restored; 0: none."""
        return self.from_steps - self.relearned_steps


class RunMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``metadata.json``.

    Attributes:
        name, version, run_id: the run's place below the runs directory.
        total_steps: environment steps, ever.
        total_episodes: finished training episodes, ever.
        started_at, last_updated: RFC 3339, UTC.
        best_value: the highest mean reward that was evaluated, if any.
        best_step: ``total_steps`` of the policy that reached it.
        attempts: one entry for each process that worked on the run, in ascending order.
        forked_from: the directory of the run that this one was forked from, if any.
        forked_at_step: ``total_steps`` of the checkpoint that it began with.
    """

    name: str
    version: str
    run_id: str
    total_steps: Natural = 0
    total_episodes: Natural = 0
    started_at: datetime
    last_updated: datetime
    best_value: float | None = None
    best_step: int | None = None
    attempts: tuple[Attempt, ...]
    forked_from: str | None = None
    forked_at_step: int | None = None

    def __post_init__(self) -> None:
        numbers = [attempt.number for attempt in self.attempts]
        if not numbers or numbers != sorted(set(numbers)):
            raise ValueError(f"its attempts are numbered {numbers}")


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def read_metadata(directory: Path) -> RunMetadata:
    """The metadata of a run.

    Raises:
        RunBroken: It cannot be read.
    """
    way_out = "put a whole copy of it back; the checkpoints beside it can be read with torch.load"
    return read_json(directory / METADATA, RunMetadata, way_out)


def read_json(path: Path, expected: Any, way_out: str = "") -> Any:
    """The document, decoded as the expected type. Blocks.

    Args:
        path: its file.
        expected: its type.
        way_out: what to do if it cannot be read.

    Raises:
        RunBroken: It is missing, unreadable or of another type.
    """
    try:
        return msgspec.json.decode(files.read_bytes(path), type=expected)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else str(error)
        raise RunBroken(path, f"cannot be read ({reason}){way_out and '; '}{way_out}") from error


def read_json_if_there(path: Path, expected: Any, way_out: str = "") -> Any:
    """As ``read_json``, but None if there is no such file. Blocks."""
    return None if files.stat_of(path) is None else read_json(path, expected, way_out)


def write_json(path: Path, value: Any) -> None:
    """Publish any value that msgspec can encode as indented JSON. Blocks.

    Raises:
        ConfigError: The value has no JSON form.
        WriteFailed: The disk refused.
    """
    try:
        _check_finite(msgspec.to_builtins(value), path.stem)
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: cannot be written as JSON: {error}") from error
    pretty = msgspec.json.format(encoded, indent=2) + b"\n"
    files.write_atomically(path, lambda file: file.write(pretty))


def _check_finite(value: Any, where: str) -> None:
    """JSON has no number for NaN or infinity, and msgspec writes null for them without a word."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={value} is not finite")
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = cast("dict[Any, Any]", value).items()
    elif isinstance(value, list | tuple):
        parts = enumerate(cast("Sequence[Any]", value))
    for key, part in parts:
        _check_finite(part, f"{where}[{key!r}]")
