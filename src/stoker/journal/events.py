"""What training is a function of: the events that a journal keeps, in the order of consumption, as bytes.

An ``Experience`` is an event by itself: wrapping each one would cost more than accepting it. An observation
that was its actor's last ``next_observation`` is not stored again: encoder and decoder remember that one for
the same most recently active actors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, assert_never, cast

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.msgpack import Ext

import stoker.journal.batches as batches
import stoker.journal.codec as codec
from stoker.journal.batches import N_FORMS, LastBatch
from stoker.journal.codec import Form
from stoker.lru import LRUDict
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

_HEADER, EXPERIENCE, CONTINUING, _STARTED, _ENDED, BATCH, _OPTIMIZED, _DATASET = range(8)
_MOVED, _STREAM_ENDED = range(8, 10)
_N_SELDOM = 3
"""The values of a transition that few have come last: policy extras, policy version and ``seq``. Those behind
the last that is not None are left off."""
_LENGTHS = {
    _HEADER: (2,),
    EXPERIENCE: range(7, 8 + _N_SELDOM),
    CONTINUING: range(6, 7 + _N_SELDOM),
    _STARTED: (3, 5),
    _ENDED: (6,),
    BATCH: (1 + N_FORMS,),
    _OPTIMIZED: (2,),
    _DATASET: (3,),
    _MOVED: (6, 8),
    _STREAM_ENDED: (2,),
}
_STATUSES = (EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)
_STATUS_CODES = {status: code for code, status in enumerate(_STATUSES)}
_GOES_ON = EpisodeStatus.CONTINUING
_SMALL = 1 << 62  # integers within this are plain


class EpisodeStarted(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor begins an episode, and abandons an unfinished one.

    Attributes:
        actor_id: the actor.
        seed: what its environment was reset with; None: unknown.
        seq: the number of this step in the actor's stream; None: the session does not number its events, or
            the running episode is abandoned and no other one begins.
        observation: the first observation of the episode, where there is a ``seq``.
    """

    actor_id: ActorId
    seed: int | None = None
    seq: int | None = None
    observation: Any = None


class EpisodeEnded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor's episode is over; the record carries what the environment reported."""

    record: EpisodeRecord
    actor_id: ActorId


class StreamMoved(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A step of an episode that is not learned from, kept for its number; the agent sees nothing of it.

    Attributes:
        actor_id: the actor.
        seq: the number of the step in the actor's stream.
        observation: the observation after it; None: the step ended the episode.
        total_reward: sum of the episode's rewards so far.
        length: transitions of the episode so far; 0: the step began it.
        evaluated: the episode that the step ended, of that reward and length, if it scores the policy.
    """

    actor_id: ActorId
    seq: int
    observation: Any = None
    total_reward: float = 0.0
    length: int = 0
    evaluated: EpisodeRecord | None = None


class StreamEnded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor is gone: its running episode is abandoned, and its number is forgotten."""

    actor_id: ActorId


class Optimized(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The agent did ``n`` optimization steps that no transition caused."""

    n: Annotated[int, Meta(ge=1)]


class DatasetGiven(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The next transitions are those of a data set, up to its ``n``-th.

    ``digest``: the SHA-256 of the data set's first ``n`` transitions, in hexadecimal digits.
    """

    n: Annotated[int, Meta(ge=1)]
    digest: str


ActorEvent = Experience | EpisodeStarted | EpisodeEnded
"""What actors send."""

StreamEvent = ActorEvent | StreamMoved | StreamEnded
"""What the numbered streams of remote actors consist of."""

JournalEvent = StreamEvent | Optimized | DatasetGiven


OtherEvent = EpisodeStarted | EpisodeEnded | StreamMoved | StreamEnded | Optimized | DatasetGiven
"""Events that are no transitions."""


class Recent(LRUDict[ActorId, Any]):
    """Each actor's last observation in its running episode, of single events; and the last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.last: LastBatch = LastBatch()


def encode_header(fields: Mapping[str, Any]) -> bytes:
    """The record of a header with these fields.

    Raises:
        ConfigError: One of them holds a value that a journal cannot.
    """
    return codec.pack([_HEADER, codec.form(dict(fields), "header")])


def encode_other(event: OtherEvent, recent: Recent) -> bytes:
    """The record of an event that is no transition, behind the events that filled ``recent``.

    Raises:
        ConfigError: It holds a value that a journal cannot, named by its place in the event.
    """
    form = codec.form
    match event:
        case EpisodeStarted(actor_id, seed, None, None):
            recent.pop(actor_id, None)
            return codec.pack([_STARTED, form(actor_id, "actor_id"), form(seed, "seed")])
        case EpisodeStarted(actor_id, seed, seq, observation):
            first = form(observation, "observation")
            recent.put(actor_id, first)
            return codec.pack([_STARTED, form(actor_id, "actor_id"), form(seed, "seed"), seq, first])
        case EpisodeEnded(record, actor_id):
            recent.pop(actor_id, None)
            reward, length = form(record.total_reward, "total_reward"), form(record.length, "length")
            status, extras = _STATUS_CODES[record.status], form(record.extras, "extras")
            return codec.pack([_ENDED, form(actor_id, "actor_id"), reward, length, status, extras])
        case StreamMoved(actor_id, seq, observation, total_reward, length, evaluated):
            recent.pop(actor_id, None)
            seen, reward = form(observation, "observation"), form(total_reward, "total_reward")
            message = [_MOVED, form(actor_id, "actor_id"), seq, seen, reward, length]
            if evaluated is not None:
                message += (_STATUS_CODES[evaluated.status], form(evaluated.extras, "extras"))
            return codec.pack(message)
        case StreamEnded(actor_id):
            recent.pop(actor_id, None)
            return codec.pack([_STREAM_ENDED, form(actor_id, "actor_id")])
        case Optimized(n):
            return codec.pack([_OPTIMIZED, n])
        case DatasetGiven(n, digest):
            return codec.pack([_DATASET, n, digest])
        case _:
            assert_never(event)


def encode_experience(event: Experience, recent: Recent) -> bytes:
    """The record of a transition behind the events that filled ``recent``.

    Raises:
        ConfigError: As for ``encode_other``.
    """
    # Once per environment step: values that are plain nearly always are not passed to another function.
    form = codec.form
    action, reward, actor_id, status, policy_extras = (
        event.action, event.reward, event.actor_id, event.status, event.policy_extras,
    )  # fmt: skip
    seen, following, before = event.observation, event.next_observation, recent.get(actor_id)
    data = codec.array_bytes(following) if type(following) is np.ndarray else None
    message: list[Form] = [
        CONTINUING,
        action if type(action) is int and -_SMALL < action < _SMALL else form(action, "action"),
        reward if type(reward) is float else form(reward, "reward"),
        after := form(following, "next_observation") if data is None else Ext(codec.ARRAY, data),
        0 if status is _GOES_ON else _STATUS_CODES[status],
        actor_id if type(actor_id) is int and -_SMALL < actor_id < _SMALL else form(actor_id, "actor_id"),
    ]
    version, seq = event.policy_version, event.seq
    if seq is not None:
        message += (form(policy_extras, "policy_extras"), form(version, "policy_version"), form(seq, "seq"))
    elif version is not None:
        message += (None if policy_extras is None else form(policy_extras, "policy_extras"), version)
    elif policy_extras is not None:
        message.append(form(policy_extras, "policy_extras"))
    # Compared by their bytes: an environment may write the next observation into the same array, or return an
    # equal array each time.
    data = codec.array_bytes(seen) if type(seen) is np.ndarray else None
    if data is None or type(before) is not Ext or data != before.data or before.code != codec.ARRAY:
        observation = form(seen, "observation")
        if type(observation) is not Ext or observation != before:
            message[:1] = EXPERIENCE, observation
    if status is _GOES_ON:
        recent.put(actor_id, after)
    else:
        recent.pop(actor_id, None)
    return codec.pack(message)


def encode_batch(batch: ExperienceBatch, recent: Recent) -> bytes:
    """The record of a batch behind the events that filled ``recent``: columns, with an event for each row.

    Raises:
        ConfigError: As for ``encode_other``.
    """
    return codec.pack([BATCH, *batches.encode_batch(batch, recent.last)])


def n_events_in(record: bytes) -> int:
    """How many events a record stands for: a batch for each of its rows.

    Raises:
        msgspec.DecodeError: It is none.
    """
    kind, forms = _parts(record)
    return cast("int", forms[0]) if kind == BATCH else 1


class EventDecoder:
    """The header and the events of one segment, from its records in their order."""

    def __init__(self) -> None:
        self._recent = Recent()

    def header(self, record: bytes) -> Mapping[str, Any]:
        """The fields of the header that the first record holds.

        Raises:
            msgspec.DecodeError: It holds none.
        """
        kind, forms = _parts(record)
        fields = codec.restore(forms[0]) if kind == _HEADER else None
        if not isinstance(fields, dict):
            raise msgspec.DecodeError("the first record is not a header")
        return cast("dict[str, Any]", fields)

    def event(self, record: bytes) -> JournalEvent | ExperienceBatch:
        """The event of the next record, or the batch of several.

        An observation that continues an episode is the very object that was its last next observation.

        Raises:
            msgspec.DecodeError: It holds none.
        """
        kind, forms = _parts(record)
        if kind == _HEADER:
            raise msgspec.DecodeError("a header among the events")
        try:
            if kind in (EXPERIENCE, CONTINUING):
                return self._experience(kind, forms)
            if kind == BATCH:
                return batches.decode_batch(forms, self._recent.last)
            if kind == _OPTIMIZED:
                return msgspec.convert(["Optimized", *forms], Optimized)
            if kind == _DATASET:
                return msgspec.convert(["DatasetGiven", *forms], DatasetGiven)
            actor_id, *rest = [codec.restore(form) for form in forms]
            self._recent.pop(actor_id, None)
            if kind == _STARTED:
                if len(rest) > 1:
                    self._recent.put(actor_id, rest[2])
                return EpisodeStarted(actor_id, *rest)
            if kind == _MOVED:
                return _moved(actor_id, *rest)
            if kind == _STREAM_ENDED:
                return StreamEnded(actor_id)
            total_reward, length, status_code, extras = rest
            status = _STATUSES[cast("int", status_code)]
            return EpisodeEnded(EpisodeRecord(total_reward, length, status, extras), actor_id)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, msgspec.DecodeError):
                raise
            raise msgspec.DecodeError(f"{type(error).__name__}: {error}") from error

    def _experience(self, kind: int, forms: list[Form]) -> Experience:
        restore = codec.restore
        first = kind == EXPERIENCE  # whether the observation is there
        action, reward, after, status_code, actor_form, *seldom = forms[1:] if first else forms
        actor_id = restore(actor_form)
        observation = restore(forms[0]) if first else self._recent[actor_id]
        next_observation = restore(after)
        status = _STATUSES[cast("int", status_code)]
        if status is _GOES_ON:
            self._recent.put(actor_id, next_observation)
        else:
            self._recent.pop(actor_id, None)
        return Experience(
            observation,
            restore(action),
            restore(reward),
            next_observation,
            status,
            actor_id,
            *map(restore, seldom),
        )


def is_record(data: bytes) -> bool:
    """Whether the bytes look like the record of a header or an event, judged without the records before."""
    try:
        _parts(data)
    except msgspec.DecodeError:
        return False
    return True


def kind_of(record: bytes) -> int:
    """The kind of a record, such as ``BATCH``, at a glance.

    Raises:
        msgspec.DecodeError: It has none.
    """
    if len(record) < 2 or record[0] >> 4 != 9:
        raise msgspec.DecodeError("no record: it does not begin with its kind")
    return record[1]


def _moved(actor_id: Any, seq: Any, seen: Any, reward: Any, length: Any, *score: Any) -> StreamMoved:
    """A step that is not learned from, with its episode's status and extras if that scores the policy."""
    if not score:
        return StreamMoved(actor_id, seq, seen, reward, length)
    status, extras = score
    evaluated = EpisodeRecord(reward, length, _STATUSES[cast("int", status)], extras)
    return StreamMoved(actor_id, seq, seen, reward, length, evaluated)


def _parts(record: bytes) -> tuple[int, list[Form]]:
    forms = codec.unpack(record)
    kind = forms[0] if forms else None
    if type(kind) is not int or len(forms) not in _LENGTHS.get(kind, ()):
        raise msgspec.DecodeError(f"no record: {len(forms)} values of kind {kind!r}")
    if kind == BATCH and not (type(size := forms[1]) is int and size > 0):
        raise msgspec.DecodeError(f"no record: a batch of {size!r} rows")
    return kind, forms[1:]
