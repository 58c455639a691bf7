"""Who waits for whom in a session, in numbers and in sentences, and the watch that acts when a part stalls.

Every wait in a session is for the learner, the writer, a forward pass or an actor. The watch looks at these
four, so that no wait is unbounded. A second look comes from a thread, because a blocked event loop cannot
watch itself.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Collection

import msgspec

from stoker.errors import RunFenced, Stalled
from stoker.notices import KNOWN
from stoker.runs.events import ActorFellSilent, PartStalled, WorkersChanged
from stoker.session.parts import Parts
from stoker.session.workers import WorkerStatus
from stoker.stalls import Activity, StallDetector
from stoker.telemetry import NodeReading, Sampler
from stoker.telemetry.frames import frame_of
from stoker.types import ActorId

_logger = logging.getLogger("stoker.session")
_SHOWN = 100
_LEAST_S = 1.0
"""Shorter silences are not reported."""


class SilentActor(msgspec.Struct, frozen=True):
    """An actor in the middle of an episode that waits for nothing of the session.

    Attributes:
        actor_id: who.
        silent_s: seconds since its last event was consumed, or since it last waited for the session.
        last_event: what that was, in words.
    """

    actor_id: ActorId
    silent_s: float
    last_event: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What each part of a session is doing, and for how long.

    Attributes:
        is_running: whether the session takes events.
        failure: the part that failed and its error; None: none did.
        learner_s: seconds that the learner's present call lasts; None: it waits for events.
        writer: what the writer is doing, in words; None: it waits for something to write.
        writer_s: for how many seconds.
        n_events_waiting: events in the queue, before the learner.
        n_writes_waiting: rows, files and flushes in the writer's queue.
        n_observing: callers that wait for room in the queue.
        n_acting: callers that wait for an action.
        n_asking: callers that wait in ``flush``, ``checkpoint``, ``snapshot`` or ``maybe_save_best``.
        silent: actors in an episode that send nothing, the longest silent first; at most 100.
        waits: the same in sentences, one for each part that keeps callers waiting.
        workers: the workers elsewhere that host actors; empty: there are none.
    """

    is_running: bool
    failure: str | None
    learner_s: float | None
    writer: str | None
    writer_s: float
    n_events_waiting: int
    n_writes_waiting: int
    n_observing: int
    n_acting: int
    n_asking: int
    silent: tuple[SilentActor, ...]
    waits: tuple[str, ...]
    workers: tuple[WorkerStatus, ...] = ()


def health_of(parts: Parts, now: float) -> Health:
    """The health of a session that was started.

    Args:
        parts: the session's.
        now: in monotonic seconds.
    """
    failure, is_over = parts.failure, parts.written.is_set()
    queue, writer_part = parts.queue, parts.writer
    since = parts.thread.since
    learner_s = None if since is None else now - since
    doing = next(iter(writer_part.activities()), None)
    writer, writer_s = (None, 0.0) if doing is None else (doing.words, now - doing.since)
    n_observing, n_acting, n_asking = queue.n_waiting, parts.inference.n_waiting, len(parts.replies)
    silent = () if is_over else silent_actors(parts, now)[:_SHOWN]
    waits: list[str] = []
    learning = "" if learner_s is None else f", which has been in one call for {learner_s:.1f} s"
    writing = "" if writer is None else f", which has been {writer} for {writer_s:.1f} s"
    if n_observing:
        waits.append(f"{_callers(n_observing)} in observe: the queue is full, before the learner{learning}")
    if n_acting:
        began = parts.inference.since
        passing = "" if began is None else f", the present one has been computing for {now - began:.1f} s"
        waits.append(f"{_callers(n_acting)} in act for a forward pass{passing}")
    if n_asking:
        behind = f"behind the learner{learning}" if len(queue) or learning else f"for the writer{writing}"
        waits.append(f"{_callers(n_asking)} for an answer {behind}")
    if len(writer_part) and learner_s is None and len(queue):
        waits.append(f"the learner waits for the writer{writing}")
    waits += [
        f"actor {one.actor_id!r} has not stepped for {one.silent_s:.0f} s; {one.last_event}" for one in silent
    ]
    waits += parts.workers.waits()
    return Health(
        is_running=failure is None and not is_over,
        failure=None if failure is None else f"{failure[0]}: {failure[1]}",
        learner_s=learner_s,
        writer=writer,
        writer_s=writer_s,
        n_events_waiting=len(queue),
        n_writes_waiting=len(writer_part),
        n_observing=n_observing,
        n_acting=n_acting,
        n_asking=n_asking,
        silent=silent,
        waits=tuple(waits),
        workers=parts.workers.now(),
    )


def stuck_line(health: Callable[[], Health], *, loop_turns: bool = True) -> str:
    """Which part of a session that does not end is still busy, in a few words. From any thread; never raises.

    Args:
        health: the session's.
        loop_turns: whether its event loop answers; if not, all else only waits for that.
    """
    if not loop_turns:
        return (
            "the event loop does not turn: an environment that is stepped on it, or another call there, has "
            "not come back (stepping='thread', --stepping thread, keeps environments off it)"
        )
    try:
        found = health()
    except Exception as error:  # noqa: BLE001 - looked at from outside its thread, it may change meanwhile
        return f"which part is busy is unknown ({type(error).__name__}: {error})"
    busy = list(found.waits)
    if found.learner_s is not None:
        busy.append(f"the learner has been in one call for {found.learner_s:.1f} s")
    if found.writer is not None:
        busy.append(f"the writer has been {found.writer} for {found.writer_s:.1f} s")
    return "; ".join(busy) or "an environment or an evaluation has not come back"


def silent_actors(
    parts: Parts, now: float, at_least_s: float = _LEAST_S, left_out: Collection[ActorId] = ()
) -> tuple[SilentActor, ...]:
    """Actors in an episode that wait for nothing of the session, the longest silent first.

    None once nothing more is accepted: evaluations may still take long.
    """
    if parts.intake.is_full:
        return ()
    learner, waited_at = parts.learner, parts.waited_at
    skipped = parts.intake.waiting().union(left_out)
    if parts.config.lockstep:  # actors that take turns wait for each other
        skipped |= parts.supervised
    silent: list[SilentActor] = []
    for actor_id in list(learner.actors.running):
        silent_s = now - max(learner.actors.seen_at.get(actor_id, now), waited_at.get(actor_id, 0.0))
        if silent_s >= at_least_s and actor_id not in skipped:
            episode = learner.actors.episodes.get(actor_id, 0) + 1
            last = f"in its episode {episode}, before event {learner.n_events} of the session"
            silent.append(SilentActor(actor_id, silent_s, f"its last event was {last}"))
    return tuple(sorted(silent, key=lambda one: -one.silent_s))


def _callers(count: int) -> str:
    return "1 caller waits" if count == 1 else f"{count} callers wait"


_WAYS_OUT = {
    "agent": "look at the agent's learn and observe, or raise stall_timeout_s",
    "writer": "look at the disk, or raise stall_timeout_s",
    "policy": "look at the policy's act, or raise stall_timeout_s",
}


class Watch:
    """Looks at a session's parts every so often, from the event loop and at the event loop.

    Args:
        parts: what it watches; their config says how long may pass, and what is done then.
        fail: ends the session, given the stuck part and the error.
    """

    def __init__(self, parts: Parts, fail: Callable[[str, BaseException], None]) -> None:
        self._parts = parts
        self._config = config = parts.config
        self._fail = fail
        self._interval_s = max(0.01, min(5.0, config.stall_timeout_s / 10, config.actor_timeout_s / 10))
        self._detector = StallDetector(config.stall_timeout_s, self._interval_s)
        self._asked_at, self._was_asking = 0.0, False
        self._warned_at: dict[ActorId, float] = {}  # of those that are silent
        self._nodes: dict[str, NodeReading] = {}
        self._turned_at = time.monotonic()
        self._ended = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop_thread = threading.get_ident()
        parts, learner = self._parts, self._parts.learner
        parts.sampler = sampler = Sampler(
            learner.metrics.clocks,
            queue_fill=lambda: parts.queue.fill,
            actors=lambda: len(learner.actors.running),
        )
        sampler.start()
        threading.Thread(
            target=self._watch_loop, args=(loop_thread,), name="stoker-watch", daemon=True
        ).start()
        try:
            while True:
                now = self._turned_at = await self._detector.next_look()
                self._look_at_lease()
                self._look_at_parts(now)
                self._look_at_actors(now)
                self._look_at_workers()
                self._parts.events.look(now)
        finally:
            self._look_at_workers()
            sampler.stop()
            self._ended.set()

    def _look_at_lease(self) -> None:
        if (run := self._parts.run) is not None:
            try:
                run.raise_if_fenced()
            except RunFenced as fenced:
                self._fail("run", fenced)

    def _look_at_parts(self, now: float) -> None:
        activities = self._activities()
        for (part, place), still_s in self._detector.stalled(activities, now):
            stalled = Stalled(activities[part, place].words, still_s, _WAYS_OUT[part])
            doing = activities[part, place].words
            self._parts.events.note(PartStalled(part=part, doing=doing, still_s=still_s))
            if self._config.on_stall == "fail":
                self._fail(part, stalled)
            else:
                _logger.warning("%s", stalled, extra=KNOWN)

    def _activities(self) -> dict[tuple[str, str], Activity]:
        """What each part is doing, and where: the writer may be in several places at once."""
        parts, learner = self._parts, self._parts.learner
        found: dict[tuple[str, str], Activity] = {}
        if (since := parts.thread.since) is not None:
            words = f"the learner (in one call, at step {learner.total_steps})"
            found["agent", ""] = Activity(words, since, (learner.n_events, learner.opt_steps))
        for one in parts.writer.activities():
            found["writer", one.words] = Activity(f"the writer ({one.words})", one.since, one.progress)
        if (since := parts.inference.since) is not None:
            found["policy", ""] = Activity("a forward pass", since, parts.inference.n_passes)
        return found

    def _look_at_actors(self, now: float) -> None:
        parts, limit_s = self._parts, self._config.actor_timeout_s
        could_be_active = parts.queue.is_awaited and not len(parts.queue) and not len(parts.replies)
        self._note_waiting(now)
        if self._config.numbered and self._config.on_silent_actor != "fail":
            return  # the service that numbers their events abandons the episodes of silent actors itself
        if not could_be_active or now - max(self._detector.awake_since, self._asked_at) < limit_s:
            return  # they may be waiting for an answer, their last events to be consumed, or could not come
        silent = silent_actors(parts, now, limit_s, left_out=parts.supervised)
        warned_at = {one.actor_id: self._warned_at.get(one.actor_id, 0.0) for one in silent}
        # Those that spoke since, however late this look is.
        fresh = [one for one in silent if now - one.silent_s > warned_at[one.actor_id]]
        self._warned_at = warned_at | {one.actor_id: now for one in fresh}
        if not fresh:
            return
        for one in fresh:
            self._parts.events.note(
                ActorFellSilent(actor_id=one.actor_id, doing=one.last_event, still_s=one.silent_s)
            )
        stalled = Stalled(
            f"actor {fresh[0].actor_id!r} ({fresh[0].last_event})",
            fresh[0].silent_s,
            "look at its environment; if it is gone for good, on_episode_start gives its episode up",
        )
        if self._config.on_silent_actor == "fail":
            self._fail(f"actor {fresh[0].actor_id!r}", stalled)
            return
        others = "" if len(fresh) == 1 else f" (and {len(fresh) - 1} more actors)"
        _logger.warning("%s%s", stalled, others, extra=KNOWN)

    def _look_at_workers(self) -> None:
        """Record where workers have begun, ended or been lost since the last look."""
        for node in self._parts.workers.by_node():
            shown = msgspec.structs.replace(node, steps=0, why="")  # which alone are no event
            if self._nodes.get(node.node, NodeReading(node=node.node)) != shown:
                self._nodes[node.node] = shown
                self._parts.events.note(WorkersChanged(**msgspec.structs.asdict(node)))

    def _note_waiting(self, now: float) -> None:
        """An actor that gets its answer after a long wait is not silent at once: its time begins then."""
        parts, waited_at = self._parts, self._parts.waited_at
        for actor_id in [one for one in waited_at if one not in parts.learner.actors.running]:
            del waited_at[actor_id]
        waited_at |= dict.fromkeys(parts.intake.waiting(), now)
        # Of an answer to a flush or the like only the wait is known, not the actor. Short ones are left out:
        # a task that flushes every second must not hide an actor that is silent.
        if self._was_asking and len(parts.replies):
            self._asked_at = now
        self._was_asking = bool(len(parts.replies))

    def _watch_loop(self, loop_thread: int) -> None:
        """Warn when a call blocks the event loop for long, and name it; runs in its own thread."""
        warned_at = 0.0
        while not self._ended.wait(self._interval_s):
            turned_at = self._turned_at
            held_s = time.monotonic() - turned_at
            if held_s < self._config.actor_timeout_s + self._interval_s or turned_at == warned_at:
                continue
            warned_at = turned_at
            frame = frame_of(loop_thread)
            where = traceback.extract_stack(frame)[-1] if frame is not None else None
            place = f" in {where.name}, {where.filename}:{where.lineno}" if where is not None else ""
            _logger.warning(
                "the event loop has not turned for %.0f s: it is held%s; what blocks belongs in a thread "
                "(for environments: stepping='thread')",
                held_s,
                place,
                extra=KNOWN,
            )
            self._parts.events.note(PartStalled(part="event loop", doing=f"held{place}", still_s=held_s))
