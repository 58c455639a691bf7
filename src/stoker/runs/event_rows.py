"""The rows of ``events.jsonl``: one for each event, with its kind, its time and how much it matters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from stoker.plain import encodable
from stoker.runs.events import (
    ActorFellSilent,
    ActorGivenUp,
    ActorRestarted,
    AttemptBegan,
    AttemptEnded,
    BestChanged,
    CheckpointWritten,
    DiskFilled,
    EvaluationFinished,
    EventsSuppressed,
    Forked,
    InputsRefused,
    Logged,
    PartStalled,
    Resumed,
    RunEvent,
    WorkersChanged,
)
from stoker.runs.metadata import now

EVENTS: Final = "events.jsonl"
"""The file of a run's events."""

Detail = str | int | float | bool | None

Level = Literal["info", "warning", "error"]
"""How much an event matters."""

_LONGEST_TEXT = 1000
_LONGEST_TRACEBACK = 4000

KINDS: Final[dict[str, type[RunEvent]]] = {
    "attempt_began": AttemptBegan,
    "attempt_ended": AttemptEnded,
    "resumed": Resumed,
    "forked": Forked,
    "checkpoint_written": CheckpointWritten,
    "best_changed": BestChanged,
    "evaluation_finished": EvaluationFinished,
    "stalled": PartStalled,
    "actor_silent": ActorFellSilent,
    "actor_restarted": ActorRestarted,
    "actor_failed": ActorGivenUp,
    "workers_changed": WorkersChanged,
    "inputs_refused": InputsRefused,
    "disk_full": DiskFilled,
    "logged": Logged,
    "events_suppressed": EventsSuppressed,
}
"""The struct of each kind of event: these are all of them."""

_IMPORTANCE: dict[str, Level] = {
    "actor_failed": "error",
    "disk_full": "error",
    "stalled": "warning",
    "actor_silent": "warning",
    "actor_restarted": "warning",
    "inputs_refused": "warning",
    "events_suppressed": "warning",
}

_KIND_OF = {struct: kind for kind, struct in KINDS.items()}


def kind_of(event: RunEvent) -> str:
    """The key of the event in ``KINDS``."""
    return _KIND_OF[type(event)]


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
        return cls(kind=kind_of(event), details=plain, total_steps=total_steps, time=now(), attempt=attempt)

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
        return _IMPORTANCE.get(self.kind, "info")


def _plain(key: str, text: str) -> str:
    if key == "traceback":
        return encodable(text[-_LONGEST_TRACEBACK:])
    text = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
    return encodable(text)
