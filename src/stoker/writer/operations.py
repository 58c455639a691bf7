"""What can be handed to the writer task, as it waits in its queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stoker.replies import Reply
from stoker.writer.logs import Log

__all__ = ["Data", "Flush", "Job", "Operation", "Replace", "Retire"]


class Data(msgspec.Struct, frozen=True, gc=False):
    """Bytes for a log: one piece, or several rows."""

    log: Log
    data: bytes


class Retire(msgspec.Struct, frozen=True):
    """A log that is complete."""

    log: Log


class Replace(msgspec.Struct, frozen=True):
    """The latest value of a file."""

    path: Path
    value: Any


class Job(msgspec.Struct, frozen=True):
    """A function that publishes something, who waits for it, and what it is in words."""

    work: Callable[[], None]
    reply: Reply[None] | None
    name: str


class Flush(msgspec.Struct, frozen=True):
    """Who waits until everything handed in before is durable."""

    replies: list[Reply[None]]


Operation = Data | Retire | Replace | Job | Flush
