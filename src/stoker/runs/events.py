"""The events of a run: what happened to it, in words that a program can count and a person can read.

Events are the physical history: none of them is ever abandoned, whatever a resume goes back to. An event is a
struct here and a row in ``events.jsonl``; its fields are the row's ``details``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from stoker.telemetry.reading import NodeReading
from stoker.types import ActorId

Level = Literal["info", "warning", "error"]
"""How much an event matters."""

Ending = Literal["finished", "stopped", "failed", "killed"]
"""How an attempt ended: at its limits, early but in good order, with an error, or without a recorded end."""


class RunEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that happened to a run.

    Attributes:
        kind: its name in ``events.jsonl``.
        importance: how much an event of this kind matters, unless its details say otherwise.
        words: what ``sentence`` says, with the names of the event's fields in braces.
    """

    kind: ClassVar[str]
    importance: ClassVar[Level] = "info"
    words: ClassVar[str] = ""

    @property
    def sentence(self) -> str:
        """The event in words."""
        return self.words.format(**msgspec.structs.asdict(self))


class AttemptBegan(RunEvent, frozen=True, kw_only=True):
    """A process began to train the run.

    Attributes:
        pid, host: the process.
        command: its command line, without what looks like a secret.
        python, torch, stoker: the versions that it runs.
        from_steps: ``total_steps`` at its beginning.
    """

    kind = "attempt_began"
    words = (
        "attempt began: process {pid} on {host}, stoker {stoker}, torch {torch}, Python {python} ({command})"
    )
    pid: int
    host: str
    command: str
    python: str
    torch: str
    stoker: str
    from_steps: int


class AttemptEnded(RunEvent, frozen=True, kw_only=True):
    """A process ended its work on the run, or the next one found that it had died.

    Attributes:
        how: how it ended. ``killed`` is written by the next attempt: no end was recorded, because of a kill,
            a power cut, or a disk that took nothing more.
        part: the part of the session that failed.
        error, text: class and message of the error that ended it.
        traceback: the end of that of its first cause, unless that is an error of stoker.
        signal: the signal that asked it to stop, for example ``SIGTERM``.
        exit_code: the one that the process asked for, where it did.
    """

    kind = "attempt_ended"
    how: Ending
    part: str | None = None
    error: str | None = None
    text: str | None = None
    traceback: str | None = None
    signal: str | None = None
    exit_code: int | None = None

    @property
    def sentence(self) -> str:
        """The event in words."""
        if self.how == "killed":
            return "attempt was killed: it recorded no end"
        words = "attempt failed" if self.how == "failed" else f"attempt {self.how}"
        words += "" if self.signal is None else f" by {self.signal}"
        words += "" if self.exit_code is None else f" with exit code {self.exit_code}"
        words += "" if self.part is None else f" in the {self.part}"
        return words if self.error is None else f"{words}: {self.error}: {self.text}"


class Resumed(RunEvent, frozen=True, kw_only=True):
    """An attempt restored what earlier ones had learned.

    Attributes:
        checkpoint_step: the step of the checkpoint that it restored; None: there was none.
        tail_steps: environment steps that it learned again from the journal behind the checkpoint.
        tail_events: events of the journal that these were.
        took_s: seconds for both.
    """

    kind = "resumed"
    checkpoint_step: int | None
    tail_steps: int
    tail_events: int
    took_s: float

    @property
    def sentence(self) -> str:
        """The event in words."""
        if self.checkpoint_step is None:
            words = "resumed without a checkpoint"
        else:
            words = f"resumed from the checkpoint of step {self.checkpoint_step:,}"
        if self.tail_events:
            words += f" and learned {self.tail_steps:,} steps of the journal again,"
        return f"{words} in {self.took_s:.2f} s"


class Forked(RunEvent, frozen=True, kw_only=True):
    """The run was made from another one.

    Attributes:
        source: the directory of the other run.
        step: the step of the checkpoint that the run began with.
    """

    kind = "forked"
    words = "forked from {source} at step {step:,}"
    source: str
    step: int


class CheckpointWritten(RunEvent, frozen=True, kw_only=True):
    """A checkpoint is on disk.

    Attributes:
        step: its step.
        n_bytes: the size of its file.
        took_s: seconds for writing it.
    """

    kind = "checkpoint_written"
    words = "wrote the checkpoint of step {step:,}: {n_bytes:,} bytes in {took_s:.3f} s"
    step: int
    n_bytes: int
    took_s: float


class BestChanged(RunEvent, frozen=True, kw_only=True):
    """Another policy is the best one, and on disk.

    Attributes:
        value: its value, as it was evaluated.
        step: ``total_steps`` of the policy.
    """

    kind = "best_changed"
    words = "the policy of step {step:,} is the best so far: {value:,.6g}"
    value: float
    step: int


class EvaluationFinished(RunEvent, frozen=True, kw_only=True):
    """An evaluation was played.

    Attributes:
        step: ``total_steps`` of its policy.
        n_episodes: its episodes.
        mean, std: of their total rewards.
        took_s: seconds for playing it.
    """

    kind = "evaluation_finished"
    words = (
        "evaluated the policy of step {step:,}: mean reward {mean:,.6g} (std {std:,.4g}) "
        "over {n_episodes:,} episodes, in {took_s:.2f} s"
    )
    step: int
    n_episodes: int
    mean: float
    std: float
    took_s: float


class PartStalled(RunEvent, frozen=True, kw_only=True):
    """A part made no progress for too long.

    Attributes:
        part: ``agent``, ``writer``, ``policy`` or ``event loop``.
        doing: what it was doing.
        still_s: seconds without progress.
    """

    kind = "stalled"
    importance = "warning"
    words = "the {part} made no progress for {still_s:,.3g} s: {doing}"
    part: str
    doing: str
    still_s: float


class ActorFellSilent(RunEvent, frozen=True, kw_only=True):
    """An actor sent nothing for too long in the middle of an episode.

    Attributes:
        actor_id: the actor.
        doing: what it did last.
        still_s: seconds without a word of it.
    """

    kind = "actor_silent"
    importance = "warning"
    words = "actor {actor_id!r} was silent for {still_s:,.3g} s: {doing}"
    actor_id: ActorId
    doing: str
    still_s: float


class ActorRestarted(RunEvent, frozen=True, kw_only=True):
    """An actor's environment failed and is made again.

    Attributes:
        actor_id: the actor; of a vector environment the first one.
        error: what failed.
        restarts: how often the actor has been restarted in this attempt.
    """

    kind = "actor_restarted"
    importance = "warning"
    words = "actor {actor_id!r} got a new environment (restart {restarts:,}): {error}"
    actor_id: ActorId
    error: str
    restarts: int


class ActorGivenUp(RunEvent, frozen=True, kw_only=True):
    """An actor's environment failed too often: the actor ends.

    Attributes:
        actor_id: the actor; of a vector environment the first one.
        error: the last failure.
        restarts: how often the actor had been restarted in this attempt.
    """

    kind = "actor_failed"
    importance = "error"
    words = "actor {actor_id!r} failed for good after {restarts:,} restarts: {error}"
    actor_id: ActorId
    error: str
    restarts: int


class WorkersChanged(NodeReading, RunEvent, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Workers on one node of a cluster began, ended, wait or were lost. Counts are of the attempt so far."""

    kind = "workers_changed"

    @property
    def sentence(self) -> str:
        """The event in words."""
        states = ("playing", "starting", "waiting", "ended")
        counts = ", ".join(f"{getattr(self, one)} {one}" for one in states if getattr(self, one)) or "none"
        lost = f"; replaced {self.restarts:,} times, {self.lost_steps:,} steps lost" if self.restarts else ""
        where = f"on {self.node}" if self.node else "without a place"
        return f"workers {where}: {counts}{lost}" + (f"; {self.why}" if self.why else "")


class InputsRefused(RunEvent, frozen=True, kw_only=True):
    """Callers gave the session invalid values within a minute, or within the last part of one.

    Attributes:
        field: what was invalid.
        count: how many calls were refused for it.
    """

    kind = "inputs_refused"
    importance = "warning"
    words = "refused {count:,} inputs within a minute: invalid {field}"
    field: str
    count: int


class DiskFilled(RunEvent, frozen=True, kw_only=True):
    """The disk, or the quota on it, had no room for a file of the run.

    Attributes:
        file: the file.
        errno: the system's name of the error.
    """

    kind = "disk_full"
    importance = "error"
    words = "the disk was full ({errno}) while {file} was written"
    file: str
    errno: str


class Logged(RunEvent, frozen=True, kw_only=True):
    """A part of stoker logged a warning or an error that no other event says.

    Attributes:
        level: which of both.
        source: the logger.
        text: the message.
        traceback: the end of that of its error, if it came with one.
    """

    kind = "logged"
    words = "{level}: {text}"
    level: Literal["warning", "error"]
    source: str
    text: str
    traceback: str | None = None


class EventsSuppressed(RunEvent, frozen=True, kw_only=True):
    """More events of one kind happened within a minute than are recorded one by one.

    Attributes:
        of: their kind.
        count: how many have no row.
    """

    kind = "events_suppressed"
    importance = "warning"
    words = "left out {count:,} more events of the kind {of} within a minute"
    of: str
    count: int
