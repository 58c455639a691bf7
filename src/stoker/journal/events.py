"""What training is a function of: the events that a journal keeps, in the order of consumption, as bytes.

An ``Experience`` is an event by itself: wrapping each one would cost more than accepting it. An observation
that was its actor's last ``next_observation`` is not stored again: encoder and decoder remember that one for
the same most recently active actors.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
import numpy as np
from msgspec.msgpack import Ext

import stoker.journal.batches as batches
import stoker.journal.codec as codec
from stoker.journal.batches import N_FORMS, LastBatch
from stoker.journal.codec import Form
from stoker.lru import LRUDict
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

__all__ = [
    "VERSION",
    "EpisodeEnded",
    "EpisodeStarted",
    "EventDecoder",
    "JournalEvent",
    "Recent",
    "SegmentHeader",
    "encode_batch",
    "encode_boundary",
    "encode_experience",
    "encode_header",
    "is_record",
    "n_events_in",
]

VERSION = 2
"""Of the format; a reader refuses a later one. The first had no batches."""

_HEADER, _EXPERIENCE, _CONTINUING, _STARTED, _ENDED, _BATCH = range(6)
_LENGTHS = {_HEADER: 2, _EXPERIENCE: 8, _CONTINUING: 7, _STARTED: 3, _ENDED: 6, _BATCH: 1 + N_FORMS}
_STATUSES = (EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)
_STATUS_CODES = {status: code for code, status in enumerate(_STATUSES)}
_GOES_ON = EpisodeStatus.CONTINUING
_SMALL = 1 << 62  # integers within this are plain


class EpisodeStarted(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor begins an episode; ``seed`` is what its environment was reset with, if that is known."""

    actor_id: ActorId
    seed: int | None = None


class EpisodeEnded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An actor's episode is over; the record carries what the environment reported."""

    record: EpisodeRecord
    actor_id: ActorId


JournalEvent = Experience | EpisodeStarted | EpisodeEnded


class Recent(LRUDict[ActorId, Any]):
    """Each actor's last next observation in its running episode, of single events; and the last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.last = LastBatch()


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The first record of a segment.

    Attributes:
        attempt: the attempt of the run that wrote it.
        first_event: the number of the first event in it.
        total_steps: environment steps consumed before that event.
        opt_interval: transitions per call of ``learn``.
        warmup_period: transitions before the first call.
        max_opts: optimization steps after which there are no more calls; None: no limit.
        rebuild: what the agent needs to take the events in from here on, for example a small dict of arrays.
        version: of the format.
    """

    attempt: int
    first_event: int
    total_steps: int
    opt_interval: int
    warmup_period: int = 0
    max_opts: int | None = None
    rebuild: Any = None
    version: int = VERSION


def encode_header(header: SegmentHeader) -> bytes:
    """The record of a header.

    Raises:
        ConfigError: ``rebuild`` holds a value that a journal cannot.
    """
    fields = msgspec.structs.asdict(header)
    # Encoded by itself, so that an error names the place within it.
    rebuild = codec.encode(fields.pop("rebuild"), "rebuild")
    return codec.pack([_HEADER, codec.form(fields | {"rebuild": rebuild}, "header")])


def encode_boundary(event: EpisodeStarted | EpisodeEnded, recent: Recent) -> bytes:
    """The record of an episode's start or end behind the events that filled ``recent``.

    Raises:
        ConfigError: It holds a value that a journal cannot, named by its place in the event.
    """
    form = codec.form
    actor_id = form(event.actor_id, "actor_id")
    recent.pop(event.actor_id, None)
    if isinstance(event, EpisodeStarted):
        return codec.pack([_STARTED, actor_id, form(event.seed, "seed")])
    record = event.record
    reward, length = form(record.total_reward, "total_reward"), form(record.length, "length")
    extras = form(record.extras, "extras")
    return codec.pack([_ENDED, actor_id, reward, length, _STATUS_CODES[record.status], extras])


def encode_experience(event: Experience, recent: Recent) -> bytes:
    """The record of a transition behind the events that filled ``recent``.

    Raises:
        ConfigError: As for ``encode_boundary``.
    """
    # Once per environment step: values that are plain nearly always are not passed to another function.
    form = codec.form
    action, reward, actor_id, status, policy_extras = (
        event.action, event.reward, event.actor_id, event.status, event.policy_extras,
    )  # fmt: skip
    seen, following, before = event.observation, event.next_observation, recent.get(actor_id)
    data = codec.array_bytes(following) if type(following) is np.ndarray else None
    message: list[Form] = [
        _CONTINUING,
        action if type(action) is int and -_SMALL < action < _SMALL else form(action, "action"),
        reward if type(reward) is float else form(reward, "reward"),
        after := form(following, "next_observation") if data is None else Ext(codec.ARRAY, data),
        0 if status is _GOES_ON else _STATUS_CODES[status],
        actor_id if type(actor_id) is int and -_SMALL < actor_id < _SMALL else form(actor_id, "actor_id"),
        None if policy_extras is None else form(policy_extras, "policy_extras"),
    ]
    # Compared by their bytes: an environment may write the next observation into the same array, or return an
    # equal array each time.
    data = codec.array_bytes(seen) if type(seen) is np.ndarray else None
    if data is None or type(before) is not Ext or data != before.data or before.code != codec.ARRAY:
        observation = form(seen, "observation")
        if type(observation) is not Ext or observation != before:
            message[:1] = _EXPERIENCE, observation
    if status is _GOES_ON:
        recent.put(actor_id, after)
    else:
        recent.pop(actor_id, None)
    return codec.pack(message)


def encode_batch(batch: ExperienceBatch, recent: Recent) -> bytes:
    """The record of a batch behind the events that filled ``recent``: columns, with an event for each row.

    Raises:
        ConfigError: As for ``encode_boundary``.
    """
    return codec.pack([_BATCH, *batches.encode_batch(batch, recent.last)])


def n_events_in(record: bytes) -> int:
    """How many events a record stands for: a batch for each of its rows.

    Raises:
        msgspec.DecodeError: It is none.
    """
    kind, forms = _parts(record)
    return cast("int", forms[0]) if kind == _BATCH else 1


class EventDecoder:
    """The header and the events of one segment, from its records in their order."""

    def __init__(self) -> None:
        self._recent = Recent()

    def header(self, record: bytes) -> SegmentHeader:
        """The header that the first record holds.

        Raises:
            msgspec.DecodeError: It holds none, or one of a later version.
        """
        kind, forms = _parts(record)
        if kind != _HEADER:
            raise msgspec.DecodeError("the first record is not a header")
        fields = codec.restore(forms[0])
        try:
            if fields["version"] > VERSION:
                raise msgspec.DecodeError(f"its format {fields['version']} is newer: update stoker")
            rebuild = codec.decode(fields.pop("rebuild"))
            plain: Any = msgspec.convert(fields, dict[str, int | None])
            return SegmentHeader(**plain, rebuild=rebuild)
        except (KeyError, TypeError, AttributeError) as error:
            raise msgspec.DecodeError(f"no header: {type(error).__name__}: {error}") from error

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
            if kind in (_EXPERIENCE, _CONTINUING):
                return self._experience(kind, forms)
            if kind == _BATCH:
                return batches.decode_batch(forms, self._recent.last)
            actor_id, *rest = [codec.restore(form) for form in forms]
            self._recent.pop(actor_id, None)
            if kind == _STARTED:
                return EpisodeStarted(actor_id, *rest)
            total_reward, length, status_code, extras = rest
            status = _STATUSES[cast("int", status_code)]
            return EpisodeEnded(EpisodeRecord(total_reward, length, status, extras), actor_id)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, msgspec.DecodeError):
                raise
            raise msgspec.DecodeError(f"{type(error).__name__}: {error}") from error

    def _experience(self, kind: int, forms: list[Form]) -> Experience:
        restore = codec.restore
        action, reward, after, status_code, actor_form, policy_extras = forms[-6:]
        actor_id = restore(actor_form)
        observation = restore(forms[0]) if kind == _EXPERIENCE else self._recent[actor_id]
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
            restore(policy_extras),
        )


def is_record(data: bytes) -> bool:
    """Whether the bytes look like the record of a header or an event, judged without the records before."""
    try:
        _parts(data)
    except msgspec.DecodeError:
        return False
    return True


def _parts(record: bytes) -> tuple[int, list[Form]]:
    forms = codec.unpack(record)
    kind = forms[0] if forms else None
    if type(kind) is not int or _LENGTHS.get(kind) != len(forms):
        raise msgspec.DecodeError(f"no record: {len(forms)} values of kind {kind!r}")
    if kind == _BATCH and not (type(size := forms[1]) is int and size > 0):
        raise msgspec.DecodeError(f"no record: a batch of {size!r} rows")
    return kind, forms[1:]
