"""Events of several kinds that go into a session together: all of them, or none.

A service takes a message of remote actors whole or not at all. So each event is checked before any is
accepted, and those that the limit on steps allows go into the queue at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, assert_never, cast

import msgspec
from anyio.lowlevel import checkpoint

from stoker.errors import InvalidExperience
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEnded, StreamEvent, StreamMoved
from stoker.plain import check_actor_id, plain_count, plain_number, plain_seed, shown
from stoker.session.decisions import RememberedDecision
from stoker.session.intake import Accepted, Intake
from stoker.session.parts import Parts
from stoker.stats import check_record
from stoker.types import ActMode, ActorId, Experience

_KINDS = Experience, EpisodeStarted, EpisodeEnded, StreamMoved, StreamEnded


class AdmittedEvents(NamedTuple):
    """Events that passed the checks.

    Attributes:
        events: in order, with plain numbers.
        n_steps: how many of them are experiences.
        joined: the experiences to which a remembered decision was joined, with that decision.
    """

    events: Sequence[StreamEvent]
    n_steps: int
    joined: Sequence[Accepted]


def admitted_events(intake: Intake, events: Iterable[StreamEvent]) -> AdmittedEvents:
    """Check events of several kinds: all of them can be accepted, or none.

    Raises:
        InvalidExperience: One of them cannot be consumed; ``index`` says which.
    """
    given = _in_order(intake, events)
    found: list[StreamEvent] = []
    joined: list[Accepted] = []
    used: set[RememberedDecision] = set()
    n_steps = 0
    for index, event in enumerate(given):
        try:
            if type(event) is Experience:
                accepted = intake.admitted(event, used)
                n_steps += 1
                found.append(accepted[0])
                if (remembered := accepted[1]) is not None:
                    used.add(remembered)
                    joined.append(accepted)
            else:
                with intake.refusals:
                    found.append(_checked(intake, event))
        except InvalidExperience as error:
            raise InvalidExperience(
                f"event {index} of {len(given)}: {error}; none was taken", field=error.field, index=index
            ) from error
    return AdmittedEvents(found, n_steps, joined)


def check_decisions(
    intake: Intake, observations: Sequence[Any], actor_ids: Sequence[ActorId], mode: ActMode
) -> None:
    """Check what several decisions are to be made of; an actor may come several times.

    Raises:
        InvalidExperience: One of them cannot be made, ``index`` says which; or there is not one for each
            actor.
    """
    if len(observations) != len(actor_ids):
        with intake.refusals:
            raise InvalidExperience(
                f"decide_many: {len(observations)} observations for {len(actor_ids)} actor_ids: give one for "
                "each"
            )
    if intake.can_act_on(observations, mode) and all(
        type(actor) is str and actor.isascii() for actor in actor_ids
    ):
        return
    for index, (observation, actor_id) in enumerate(zip(observations, actor_ids, strict=True)):
        try:
            intake.check_acting(observation, mode, actor_id)
        except InvalidExperience as error:
            raise InvalidExperience(str(error), field=error.field, index=index) from error


def offer_events(parts: Parts, admitted: AdmittedEvents) -> int | None:
    """Put events into the queue together, up to the limit, if that needs no wait.

    Returns:
        How many were accepted: those before the first one that comes after the limit. None: none yet, because
        the queue is full or a turn of other tasks is due.
    """
    if parts.config.lockstep or not parts.queue.has_credit():
        return None
    intake = parts.intake
    try:
        events = reserve_events(intake, admitted)
        parts.queue.offer_together(events)
    except BaseException:  # Ctrl-C between two bytecodes
        intake.recount()
        raise
    _note_accepted(parts, admitted, len(events))
    return len(events)


async def accept_events(parts: Parts, admitted: AdmittedEvents) -> int:
    """Put events into the queue together, up to the limit, as ``offer_events`` does. Cancelled: all are out.

    Raises:
        ActorConflict: Another task waits in ``observe`` under one of their actors.
    """
    n_in = offer_events(parts, admitted)
    if n_in is None:
        try:
            events = reserve_events(parts.intake, admitted)
            if events and not parts.queue.offer_together(events):
                counts: Counter[ActorId] = Counter()
                for event in events:
                    counts[event.actor_id] += type(event) is Experience
                await parts.wait_for_room(counts, parts.queue.put_together, events)
        except BaseException:
            parts.intake.recount()
            raise
        n_in = len(events)
        _note_accepted(parts, admitted, n_in)
    if not n_in:
        await checkpoint()  # a loop around this must not hold the event loop
    if parts.config.lockstep:
        await parts.request("barrier")
    return n_in


def reserve_events(intake: Intake, admitted: AdmittedEvents) -> Sequence[StreamEvent]:
    """Count the experiences up to the limit as accepted; return the events that may go in."""
    events, n_steps, _ = admitted
    n_fit = intake.reserve_rows(n_steps) if n_steps else 0
    if n_fit == n_steps and not intake.cut_actors:
        return events
    for place, event in enumerate(events):
        if type(event) is Experience:
            if not n_fit:
                return events[:place]
            n_fit -= 1
        elif type(event) is EpisodeEnded and event.actor_id in intake.cut_actors:
            return events[:place]
    return events


def note_accepted(intake: Intake, admitted: AdmittedEvents, n_in: int) -> None:
    """Note that the first of these events are in, and that the rest is refused."""
    events, n_steps, joined = admitted
    for experience, remembered in joined:
        intake.settle(experience.actor_id, remembered)
    for event in events[:n_in] if n_steps < len(events) else ():
        if type(event) is not Experience:
            intake.forget(event.actor_id)
    if n_in < len(events):
        intake.refuse([event.actor_id for event in events[n_in:] if type(event) is Experience])


def _note_accepted(parts: Parts, admitted: AdmittedEvents, n_in: int) -> None:
    note_accepted(parts.intake, admitted, n_in)
    if parts.pacing.limit is not None:
        for event in admitted.events:
            parts.pacing.end(event.actor_id)


def _in_order(intake: Intake, events: Iterable[StreamEvent]) -> Sequence[StreamEvent]:
    if type(events) is list or type(events) is tuple:
        return cast("Sequence[StreamEvent]", events)
    with intake.refusals:
        try:
            return list(events)
        except TypeError:
            raise InvalidExperience(f"observe_events takes events, not {shown(events)}") from None


def _checked(intake: Intake, event: Any) -> StreamEvent:
    """An event that is no experience, with plain numbers."""
    if not isinstance(event, _KINDS):
        names = ", ".join(kind.__name__ for kind in _KINDS)
        raise InvalidExperience(f"{shown(event)} is no event: give one of {names}", field="event")
    check_actor_id(event.actor_id)
    match event:
        case EpisodeStarted():
            return _checked_start(intake, event)
        case EpisodeEnded(record, actor_id):
            return EpisodeEnded(check_record(record), actor_id)
        case StreamMoved(actor_id, seq, observation, total_reward, length, evaluated):
            _check_numbered(intake, event)
            if observation is not None:
                intake.check_observation(observation)
            reward, plain_length = plain_number("total_reward", total_reward), plain_count("length", length)
            if evaluated is not None:
                evaluated = msgspec.structs.replace(
                    check_record(evaluated), total_reward=reward, length=plain_length
                )
            return StreamMoved(
                actor_id, plain_count("seq", seq), observation, reward, plain_length, evaluated
            )
        case StreamEnded():
            _check_numbered(intake, event)
            return event
        case Experience():  # a subclass
            return intake.check(event)
        case _:
            assert_never(event)


def _checked_start(intake: Intake, event: EpisodeStarted) -> EpisodeStarted:
    actor_id, seed, seq, observation = event.actor_id, event.seed, event.seq, event.observation
    if (seq is None) is not (observation is None):
        raise InvalidExperience(
            f"actor {actor_id!r}: seq={shown(seq)} and observation={shown(observation)}: a numbered start "
            "has both, and one that only abandons the running episode has neither"
        )
    if seq is None:
        return EpisodeStarted(actor_id, plain_seed(seed))
    intake.check_observation(observation)
    return EpisodeStarted(actor_id, plain_seed(seed), plain_count("seq", seq), observation)


def _check_numbered(intake: Intake, event: StreamMoved | StreamEnded) -> None:
    if not intake.is_numbered:
        raise InvalidExperience(
            f"{type(event).__name__} belongs to the stream of a remote actor, and this session keeps none: "
            "give TrainingSession numbered=True",
            field="event",
        )
