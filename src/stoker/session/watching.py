"""The watch over a session: whatever stops moving is named, and then warned of or ended, as set.

Every wait in a session is for the learner, for the writer, for a forward pass or for an actor. The watch
looks at these four, so that no wait is without end. A second look comes from outside the event loop: one
that something holds cannot watch itself.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import anyio
import msgspec

from stoker.errors import Stalled
from stoker.session.config import SessionConfig
from stoker.session.health import SilentActor, silent_actors
from stoker.session.parts import Parts
from stoker.types import ActorId

__all__ = ["Rounds", "Watch"]

logger = logging.getLogger("stoker.session")
_LATE_S = 0.5
"""A wake-up that is later than this, beyond two intervals, was kept from coming."""


class Rounds:
    """When to look again, and since when there was anything to see.

    Args:
        interval_s: how long to sleep between two looks.
    """

    def __init__(self, interval_s: float) -> None:
        self.awake_since = 0.0
        """When this process last came back from not running: nobody in it could move before."""
        self._interval_s = interval_s

    async def next(self) -> float:
        """Sleep until the next look, and return the time, in monotonic seconds."""
        due_at = time.monotonic() + self._interval_s
        await anyio.sleep(self._interval_s)
        now = time.monotonic()
        # Stopped (Ctrl-Z, a paused container) or held up.
        if now > due_at + _LATE_S + 2 * self._interval_s:
            self.awake_since = now
        return now


class _Busy(msgspec.Struct, frozen=True):
    """A part in the middle of something."""

    part: str
    doing: str
    since: float
    progress: object
    way_out: str


class Watch:
    """Looks at a session's parts every so often, from the event loop and at the event loop.

    Args:
        parts: what it watches.
        config: says how long may pass, and what is done then.
        fail: ends the session, given the stuck part and the error.
    """

    def __init__(
        self, parts: Parts, config: SessionConfig, fail: Callable[[str, BaseException], None]
    ) -> None:
        self._parts = parts
        self._config = config
        self._fail = fail
        self._stall_s, self._actor_s = config.stall_timeout_s, config.actor_timeout_s
        self._interval_s = max(0.01, min(5.0, self._stall_s / 10, self._actor_s / 10))
        # How far each thing has got that is being done, and since when it is no further.
        self._known: dict[tuple[str, float], tuple[object, float]] = {}
        self._warned: set[str] = set()
        self._warned_of: set[ActorId] = set()
        self._turned_at = time.monotonic()
        self._rounds = Rounds(self._interval_s)
        self._ended = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop_thread = threading.get_ident()
        threading.Thread(
            target=self._watch_loop, args=(loop_thread,), name="stoker-watch", daemon=True
        ).start()
        try:
            while True:
                now = self._turned_at = await self._rounds.next()
                self._look_at_parts(now)
                self._look_at_actors(now)
        finally:
            self._ended.set()

    def _look_at_parts(self, now: float) -> None:
        before, self._known = self._known, {}
        for busy in self._busy():
            key = (busy.doing, busy.since)
            progress, since = before.get(key, (None, now))
            if progress != busy.progress:
                self._known[key] = (busy.progress, now)
                self._warned.discard(busy.part)
                continue
            self._known[key] = (progress, since)
            still_s = now - max(since, busy.since, self._rounds.awake_since)
            if still_s < self._stall_s:
                continue
            stalled = Stalled(busy.doing, still_s, busy.way_out)
            if self._config.on_stall == "fail":
                self._fail(busy.part, stalled)
            elif busy.part not in self._warned:
                self._warned.add(busy.part)
                logger.warning("%s", stalled)

    def _busy(self) -> Iterator[_Busy]:
        parts = self._parts
        learner = parts.learner
        if (since := parts.thread.since) is not None:
            yield _Busy(
                "agent",
                f"the learner (in one call, at step {learner.total_steps})",
                since,
                (since, learner.n_events, learner.opt_steps),
                "look at the agent's learn and observe, or raise stall_timeout_s",
            )
        for activity in parts.writer.activities():
            yield _Busy(
                "writer",
                f"the writer ({activity.words})",
                activity.since,
                activity.progress,
                "look at the disk, or raise stall_timeout_s",
            )
        if (since := parts.inference.since) is not None:
            yield _Busy(
                "policy",
                "a forward pass",
                since,
                (since, parts.inference.n_passes),
                "look at the policy's act, or raise stall_timeout_s",
            )

    def _look_at_actors(self, now: float) -> None:
        parts = self._parts
        could_be_heard = parts.queue.is_awaited and not len(parts.queue) and not len(parts.replies)
        if not could_be_heard or now - self._rounds.awake_since < self._actor_s:
            return  # they may be waiting for an answer, their last events to be consumed, or could not come
        silent = [
            one for one in silent_actors(parts, now, self._actor_s) if one.actor_id not in parts.supervised
        ]
        self._warned_of &= {one.actor_id for one in silent}
        fresh = [one for one in silent if one.actor_id not in self._warned_of]
        if not fresh:
            return
        if self._config.on_silent_actor == "fail":
            self._fail(f"actor {fresh[0].actor_id!r}", _stalled(fresh[0]))
            return
        self._warned_of |= {one.actor_id for one in fresh}
        others = "" if len(fresh) == 1 else f" (and {len(fresh) - 1} more actors)"
        logger.warning("%s%s", _stalled(fresh[0]), others)

    def _watch_loop(self, loop_thread: int) -> None:
        """Tell what holds the event loop, should it not turn for long; in a thread of its own."""
        told_at = 0.0
        while not self._ended.wait(self._interval_s):
            turned_at = self._turned_at
            held_s = time.monotonic() - turned_at
            if held_s < self._actor_s + self._interval_s or turned_at == told_at:
                continue
            told_at = turned_at
            # Documented, and the only way to see another thread.
            frame = sys._current_frames().get(loop_thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            where = traceback.extract_stack(frame)[-1] if frame is not None else None
            logger.warning(
                "the event loop has not turned for %.0f s: it is held%s; what blocks belongs in a thread "
                "(for environments: stepping='thread')",
                held_s,
                f" in {where.name}, {where.filename}:{where.lineno}" if where is not None else "",
            )


def _stalled(one: SilentActor) -> Stalled:
    return Stalled(
        f"actor {one.actor_id!r} ({one.last_event})",
        one.silent_s,
        "look at its environment; if it is gone for good, on_episode_start gives its episode up",
    )
