"""Who waits for whom in a session, at one moment, in numbers and in sentences."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from stoker.session.learner import Learner
from stoker.session.parts import Parts
from stoker.types import ActorId

__all__ = ["Health", "SilentActor", "health_of", "silent_actors", "stuck_line"]

_SHOWN = 100
_LEAST_S = 1.0
"""Shorter silences are not worth a word."""


class SilentActor(msgspec.Struct, frozen=True):
    """An actor in the middle of an episode that waits for nothing of the session.

    Attributes:
        actor_id: who.
        silent_s: seconds since its last event was consumed.
        last_event: what that was, in words.
    """

    actor_id: ActorId
    silent_s: float
    last_event: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What each part of a session is doing, and for how long.

    Attributes:
        is_running: whether the session takes events.
        failure: what it died of; None: it lives.
        learner_s: seconds that the learner's present call lasts; None: it waits for events.
        writer: what the writer is doing, in words; None: it waits for something to write.
        writer_s: for how many seconds.
        n_events_waiting: events in the queue, before the learner.
        n_writes_waiting: rows, files and flushes in the writer's queue.
        n_observing: callers that wait for room in the queue.
        n_acting: callers that wait for an action.
        n_asking: callers that wait in ``flush``, ``checkpoint``, ``snapshot`` or ``maybe_save_best``.
        silent: actors in an episode that are not heard of, the longest silent first; at most 100.
        waits: the same in sentences, one for each part that keeps somebody waiting.
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


def health_of(
    parts: Parts, failure: tuple[str, BaseException] | None, *, is_over: bool, now: float
) -> Health:
    """Look at a session that was started.

    Args:
        parts: its running parts.
        failure: the part that failed and its error, if one did.
        is_over: whether everything that was accepted has been written.
        now: in monotonic seconds.
    """
    queue, writer_part = parts.queue, parts.writer
    since = parts.thread.since
    learner_s = None if since is None else now - since
    doing = writer_part.doing
    writer, writer_s = (None, 0.0) if doing is None else (doing[0], now - doing[1])
    n_observing, n_acting, n_asking = queue.n_waiting, parts.inference.n_waiting, len(parts.replies)
    silent = () if is_over else silent_actors(parts, now)
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
        return f"which part is busy cannot be told ({type(error).__name__}: {error})"
    busy = list(found.waits)
    if found.learner_s is not None:
        busy.append(f"the learner has been in one call for {found.learner_s:.1f} s")
    if found.writer is not None:
        busy.append(f"the writer has been {found.writer} for {found.writer_s:.1f} s")
    return "; ".join(busy) or "an environment or an evaluation has not come back"


def silent_actors(parts: Parts, now: float, at_least_s: float = _LEAST_S) -> tuple[SilentActor, ...]:
    """Actors in an episode that wait for nothing of the session, the longest silent first; at most 100."""
    learner = parts.learner
    # With lockstep those who take turns wait for each other.
    in_turns = parts.supervised if learner.is_lockstep else frozenset[ActorId]()
    found = [
        (learner.actors.seen_at.get(actor_id, now), actor_id)
        for actor_id in list(learner.actors.running)
        if not parts.intake.is_waiting(actor_id) and actor_id not in in_turns
    ]
    found = sorted((pair for pair in found if now - pair[0] >= at_least_s), key=lambda pair: pair[0])
    return tuple(
        SilentActor(actor_id, now - seen_at, _last_event(learner, actor_id))
        for seen_at, actor_id in found[:_SHOWN]
    )


def _last_event(learner: Learner, actor_id: ActorId) -> str:
    number = learner.actors.episodes.get(actor_id, 0) + 1
    return f"its last event was in its episode {number}, before event {learner.n_events} of the session"


def _callers(count: int) -> str:
    return "1 caller waits" if count == 1 else f"{count} callers wait"
