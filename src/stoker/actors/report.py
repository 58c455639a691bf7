"""What an actor has done so far; read by progress views while it plays."""

from __future__ import annotations

import msgspec

from stoker.types import ActorId

__all__ = ["ActorReport"]


class ActorReport(msgspec.Struct):
    """Running totals of one actor in this process.

    Attributes:
        actor_id: whose they are.
        steps: environment steps that it played, also those that came after the session's limit.
        episodes: finished episodes.
        restarts: how often its environment failed and was made again.
        env_s: seconds spent in its environments' ``reset`` and ``step``.
        last_error: what the last failure was.
    """

    actor_id: ActorId
    steps: int = 0
    episodes: int = 0
    restarts: int = 0
    env_s: float = 0.0
    last_error: str | None = None
