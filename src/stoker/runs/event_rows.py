"""The rows of ``events.jsonl``: one for each event, with its kind, its time and how much it matters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from stoker.plain import encodable
from stoker.runs.events import Level, RunEvent
from stoker.runs.metadata import now

EVENTS: Final = "events.jsonl"
"""The file of a run's events."""

Detail = str | int | float | bool | None

_LONGEST_TEXT = 1000
_LONGEST_TRACEBACK = 4000

KINDS: Final[dict[str, type[RunEvent]]] = {event.kind: event for event in RunEvent.__subclasses__()}
"""The struct of each kind of event."""


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``events.jsonl``. One with an unknown kind, or with other details than it has, is refused.

    Attributes:
        time: when it was recorded, RFC 3339, UTC.
        attempt: the number of the attempt that it is about.
        total_steps: environment steps consumed in the run when it was recorded.
        kind: what happened, a key of ``KINDS``.
        details: the fields of that event.
    """

    time: datetime
    attempt: int
    total_steps: int
    kind: str
    details: dict[str, Detail]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        msgspec.convert(self.details, KINDS[self.kind])

    @classmethod
    def of(cls, event: RunEvent, *, total_steps: int, attempt: int) -> EventRow:
        """The row of an event that happened now. Texts are cut and made valid Unicode."""
        details: dict[str, Any] = msgspec.structs.asdict(event)
        plain = {
            key: _plain(key, value) if isinstance(value, str) else value for key, value in details.items()
        }
        return cls(kind=event.kind, details=plain, total_steps=total_steps, time=now(), attempt=attempt)

    @property
    def event(self) -> RunEvent:
        """The event itself."""
        return msgspec.convert(self.details, KINDS[self.kind])

    @property
    def importance(self) -> Level:
        """How much it matters."""
        if self.kind == "attempt_ended":
            return "error" if self.details["how"] in ("failed", "killed") else "info"
        if self.kind == "logged":
            return "error" if self.details["level"] == "error" else "warning"
        return KINDS[self.kind].importance


def _plain(key: str, text: str) -> str:
    if key == "traceback":
        return encodable(text[-_LONGEST_TRACEBACK:])
    text = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
    return encodable(text)
