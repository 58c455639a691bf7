"""What an actor has done so far; read by progress views while it plays."""

from __future__ import annotations

import time

import msgspec

from stoker.types import ActorId

__all__ = ["ActorReport"]


class ActorReport(msgspec.Struct):
    """Running totals of one actor in this process.

    Times are reported in the same way for all places; the rest was spent in this library, or in
    waiting for a processor.

    Attributes:
        actor_id: whose they are.
        steps: environment steps that it played, also those that came after the session's limit.
        episodes: finished episodes.
        restarts: how often its environment failed and was made again.
        env_s: seconds spent in its environments' ``reset`` and ``step``.
        last_error: what the last failure was.
        act_s: seconds spent in choosing actions; with the session's own policy also in waiting for it.
        wait_s: seconds spent in waiting for the session: for room, for its answer, for its permission.
        syncs: how often its own copy of the policy was brought up to date.
        begun_at: when it began to play, in monotonic seconds; None: it has not.
        ended_at: when it was through; None: it is not.
    """

    actor_id: ActorId
    steps: int = 0
    episodes: int = 0
    restarts: int = 0
    env_s: float = 0.0
    last_error: str | None = None
    act_s: float = 0.0
    wait_s: float = 0.0
    syncs: int = 0
    begun_at: float | None = None
    ended_at: float | None = None

    @property
    def steps_per_sec(self) -> float:
        """Steps per second since it began; 0.0 before that."""
        if self.begun_at is None:
            return 0.0
        elapsed_s = (time.monotonic() if self.ended_at is None else self.ended_at) - self.begun_at
        return self.steps / elapsed_s if elapsed_s > 0 else 0.0

    def begin(self) -> None:
        """It plays from now on."""
        self.begun_at, self.ended_at = time.monotonic(), None

    def end(self) -> None:
        """It plays no more."""
        self.ended_at = time.monotonic()
