"""One actor's stream of records: a state machine without I/O, which turns records into a session's events.

    record 1 (start) --> EpisodeStarted          record k --> Experience          last one --> + EpisodeEnded

A record is a repeat, the next one, or behind a gap; ``stoker.protocol`` has checked that its fields fit
together. Each one that is taken makes a new ``StreamState`` from the one before; nothing changes in place, so
that a message counts as a whole or not at all. What was answered is kept beside it (``Answered``), because it
is needed again: for a repeat, and for the action of the next record.

A kill may leave the run with the last transition of an episode and without its end. That record is next once
more, and nothing but the end is taken from it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEvent, StreamMoved
from stoker.nested import is_same
from stoker.protocol import ProtocolError, Record, SpaceCodec, decode_memo
from stoker.session import StreamPoint
from stoker.session.decisions import Decision
from stoker.stats import EpisodeRecord
from stoker.types import EpisodeStatus, Experience

_CONTINUING = EpisodeStatus.CONTINUING


class Answered(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The answer to a record that wanted an action.

    Attributes:
        action: as it was sent.
        memo: as it was sent.
        policy_version: of the policy that chose the action.
        decision: the action and its policy extras, as the agent knows them.
    """

    action: Any
    memo: str
    policy_version: int
    decision: Decision


class Reported(NamedTuple):
    """An action that a client reports, with the extras of the policy that chose it, if a policy did."""

    action: Any
    policy_extras: Any
    policy_version: int | None


class StreamState(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What an actor's stream has come to.

    Attributes:
        next: the number of the record that comes next; all before it were taken, each once.
        observation: the last one of the running episode; None: no episode runs.
        total_reward: sum of the episode's rewards so far.
        length: transitions of the episode so far.
        learns: whether the episode is learned from.
        is_evaluation: whether the episode scores the policy; None: unknown, after a restart.
        reward: of the last record; None: it began an episode, or is unknown, too.
        status: of the episode after the last record; None: unknown.
        ending: how the last transition ended the episode, if the run lacks the end itself: then the record
            of that transition is ``next``. None: nothing is lacking.
    """

    next: int = 1
    observation: Any = None
    total_reward: float = 0.0
    length: int = 0
    learns: bool = True
    is_evaluation: bool | None = False
    reward: float | None = None
    status: EpisodeStatus | None = None
    ending: EpisodeStatus | None = None

    @property
    def is_open(self) -> bool:
        """Whether an episode runs."""
        return self.observation is not None


NEW: Final = StreamState()
"""Before the first record."""


def restored(point: StreamPoint) -> StreamState:
    """The state of a stream as the run holds it."""
    ending = point.status if point.is_done else None
    return StreamState(
        next=point.seq + (ending is None),
        observation=point.observation,
        total_reward=point.total_reward,
        length=point.length,
        learns=point.learns,
        is_evaluation=False if point.learns else None,
        ending=ending,
    )


def unknown(state: StreamState, record: Record) -> StreamState:
    """A state from which any record can be taken: of an actor whose past means nothing."""
    return StreamState(record.seq if state is NEW else state.next, observation=(), learns=False)


def advance(
    state: StreamState,
    answered: Answered | None,
    record: Record,
    at: int,
    codec: SpaceCodec,
    events: list[StreamEvent],
    seen_now: Any = None,
) -> StreamState:
    """Take the record that comes next: append its events, and return the state behind it.

    Args:
        state: before the record.
        answered: what the record before was answered with, if that is known.
        record: its ``seq`` is ``state.next``.
        at: its place in the message, for errors.
        codec: of the training's spaces.
        events: appended to; at most two events, of which the first carries the record's number.
        seen_now: the record's observation, if that is read already.

    Raises:
        ProtocolError: 409, no episode runs; 422, a field is missing, is out of place or has an invalid value.
    """
    if state.ending is not None and EpisodeStatus.of(record.terminated, record.truncated) is state.ending:
        event, after = abandoned(record.actor, state, record.extras)
        events.append(event)
        return msgspec.structs.replace(after, reward=record.reward, status=state.ending)
    if record.start:
        return _begin(state, record, at, codec, events, seen_now)
    seen = state.observation
    if seen is None:
        raise ProtocolError(
            "no-episode",
            f"actor {record.actor!r}: record {record.seq} goes on with an episode, and none is open: it has "
            "ended, or was abandoned because the actor was silent; begin one with `start`",
            path=f"steps[{at}].start",
        )
    reward = record.reward
    if reward is None:
        raise _missing(at, "reward", "only the first record of an episode, with `start`, has none")
    total, length, seq = state.total_reward + reward, state.length + 1, state.next
    is_last = record.is_last
    status = EpisodeStatus.of(record.terminated, record.truncated) if is_last else _CONTINUING
    if seen_now is None:
        seen_now = codec.observation(record.observation, at, record.action_mask, is_last=is_last)
    seen_next = None if is_last else seen_now
    if state.learns:
        if (
            answered is not None
            and (record.memo is None or record.memo == answered.memo)
            and ((action := record.action) is None or _is_answer(action, answered.action))
        ):
            chosen = answered.decision
        else:
            chosen = _chosen(answered, record, at, codec)
        actor = record.actor
        events.append(
            Experience(
                seen,
                chosen.action,
                reward,
                seen_now,
                status,
                actor,
                chosen.policy_extras,
                chosen.policy_version,
                seq,
            )
        )
        if seen_next is None:
            events.append(EpisodeEnded(EpisodeRecord(total, length, status, record.extras), actor))
    else:
        evaluated = None
        if seen_next is None and (state.is_evaluation or (state.is_evaluation is None and _exploits(record))):
            evaluated = EpisodeRecord(total, length, status, record.extras)
        events.append(StreamMoved(record.actor, seq, seen_next, total, length, evaluated))
    return StreamState(seq + 1, seen_next, total, length, state.learns, state.is_evaluation, reward, status)


def check_repeat(state: StreamState, record: Record, at: int, codec: SpaceCodec) -> None:
    """Refuse a repeat of the last record that says something else than that one did, as far as is known.

    Raises:
        ProtocolError: 409 ``different``.
    """
    is_other = False
    if state.status is not None:
        given = (record.start, record.reward, EpisodeStatus.of(record.terminated, record.truncated))
        is_other = given != (state.reward is None, state.reward, state.status)
    if state.observation is not None and not is_other:
        is_other = not is_same(
            codec.observation(record.observation, at, record.action_mask), state.observation
        )
    if is_other:
        raise ProtocolError(
            "different",
            f"actor {record.actor!r}: record {record.seq} was taken before with other values: two clients "
            "play under this name, or this one was restarted; ask GET /v1/actors/{actor} where its stream "
            "stands, and give each client its own names",
            path=f"steps[{at}].seq",
        )


def abandoned(
    actor: str, state: StreamState, extras: dict[str, float] | None = None
) -> tuple[StreamEvent, StreamState]:
    """The event that ends the episode of an actor who is gone, and the state behind it.

    An episode whose last transition was taken is over, and counts; any other one is abandoned.
    """
    if state.ending is None:
        return EpisodeStarted(actor), msgspec.structs.replace(state, observation=None)
    record = EpisodeRecord(state.total_reward, state.length, state.ending, extras or {})
    after = StreamState(state.next + 1, None, state.total_reward, state.length)
    return EpisodeEnded(record, actor), after


def _begin(
    state: StreamState, record: Record, at: int, codec: SpaceCodec, events: list[StreamEvent], seen_now: Any
) -> StreamState:
    """Begin an episode; one that runs is abandoned."""
    observation = seen_now
    if observation is None:
        observation = codec.observation(record.observation, at, record.action_mask)
    if state.ending is not None:  # an actor that keeps no records begins with the number that it is told
        events.append(abandoned(record.actor, state)[0])
    actor, seq, learns = record.actor, state.next, record.learn
    if learns:
        events.append(EpisodeStarted(actor, record.seed, seq, observation))
    else:
        events.append(StreamMoved(actor, seq, observation, 0.0, 0))
    is_evaluation = not learns and _exploits(record)
    return StreamState(seq + 1, observation, 0.0, 0, learns, is_evaluation, None, _CONTINUING)


def _exploits(record: Record) -> bool:
    return record.mode == "exploit"


def _is_answer(given: Any, sent: Any) -> bool:
    """Whether an action came back as it was sent; of other forms ``_chosen`` finds out."""
    return type(given) is type(sent) and type(given) in _PLAIN and bool(given == sent)


_PLAIN = (int, float, list, dict, str)


def _chosen(answered: Answered | None, record: Record, at: int, codec: SpaceCodec) -> Reported | Decision:
    """The action that was done."""
    decision: Reported | Decision | None = None if answered is None else answered.decision
    if record.memo is not None and (answered is None or record.memo != answered.memo):
        memo = decode_memo(record.memo, f"steps[{at}].memo")
        action = codec.action(memo.action, f"steps[{at}].memo")
        decision = Reported(action, memo.extras, memo.version)
    if record.action is None:
        if decision is None:
            raise _missing(
                at, "action", "it is not known here: no action was asked for, or the server restarted"
            )
        return decision
    action = codec.action(record.action, at)
    if decision is not None and is_same(action, decision.action):
        return decision
    return Reported(action, None, None)


def _missing(at: int, field: str, reason: str) -> ProtocolError:
    return ProtocolError("invalid", f"{field} is missing: {reason}", path=f"steps[{at}].{field}")
