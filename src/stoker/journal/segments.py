"""One segment: a file of events in the order of their consumption, behind a header that says where it begins.

The number of an event is the header's ``first_event`` plus its place in the segment. An
observation that was its actor's last ``next_observation`` is not stored again: writer and reader remember
that one for the same most recently active actors. A segment needs no other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import msgspec
from msgspec.msgpack import Ext

import stoker.journal.codec as codec
from stoker.journal.codec import Form
from stoker.journal.events import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.journal.frames import frame
from stoker.lru import LRUDict
from stoker.stats import EpisodeRecord
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = [
    "VERSION",
    "SegmentDecoder",
    "SegmentEncoder",
    "SegmentHeader",
    "is_message",
    "parse_segment_name",
    "segment_name",
]

VERSION = 1
"""Of the format; a reader refuses a later one."""

_HEADER, _EXPERIENCE, _CONTINUING, _STARTED, _ENDED = range(5)
_LENGTHS = {_HEADER: 2, _EXPERIENCE: 8, _CONTINUING: 7, _STARTED: 3, _ENDED: 6}
_STATUSES = (EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED)
_STATUS_CODES = {status: code for code, status in enumerate(_STATUSES)}
_GOES_ON = EpisodeStatus.CONTINUING
_SMALL = 1 << 62  # integers within this are plain
_NAME = re.compile(r"(\d{4,})-(\d{12,})\.journal", re.ASCII)


def segment_name(attempt: int, first_event: int) -> str:
    """The file name of the segment of that attempt which begins with that event."""
    return f"{attempt:04d}-{first_event:012d}.journal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """The attempt and the first event that a file name says, or None if it is not a segment's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    attempt, first_event = int(match[1]), int(match[2])
    return (attempt, first_event) if segment_name(attempt, first_event) == name else None


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The first record of a segment.

    Attributes:
        attempt: the attempt of the run that wrote it.
        first_event: the number of the first event in it.
        total_steps: environment steps consumed before that event.
        opt_interval: transitions per call of ``learn``.
        warmup_period: transitions before the first call.
        max_opts: optimization steps after which there are no more calls; None: no limit.
        rebuild: what the agent needs to take the events in from here on, such as a small dict of arrays.
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


_Recent: TypeAlias = LRUDict[ActorId, Any]
"""Each actor's last next observation in its running episode."""


class SegmentEncoder:
    """Events as the bytes that a segment takes, one segment after the other.

    What it returns must be written in this order and without gaps. After an error it takes no event until
    the next ``begin``.
    """

    def __init__(self) -> None:
        self._recent: _Recent | None = None

    def begin(self, header: SegmentHeader) -> bytes:
        """The bytes that a new segment begins with.

        Raises:
            ConfigError: ``rebuild`` holds what a journal cannot.
        """
        self._recent = None
        fields = {name: getattr(header, name) for name in header.__struct_fields__ if name != "rebuild"}
        # Its own value, so that an error names the place within it.
        fields_form = codec.form(fields | {"rebuild": codec.encode(header.rebuild, "rebuild")}, "header")
        data = frame(codec.pack([_HEADER, fields_form]))
        self._recent = LRUDict()
        return data

    def encode(self, event: JournalEvent) -> bytes:
        """The bytes of one event.

        Raises:
            ConfigError: It holds what a journal cannot, named by its place in the event.
        """
        return self.encode_all((event,))

    def encode_all(self, events: Iterable[JournalEvent]) -> bytes:
        """The bytes of these events.

        Raises:
            ConfigError: As for ``encode``; none of them counts as written.
        """
        recent, self._recent = self._recent, None  # stays None where one of them fails
        if recent is None:
            raise RuntimeError("no segment was begun, or its encoder failed: begin a new one")
        data = b"".join(
            [
                frame(
                    codec.pack(
                        _experience_message(event, recent)
                        if isinstance(event, Experience)
                        else _boundary_message(event, recent)
                    )
                )
                for event in events
            ]
        )
        self._recent = recent
        return data


def _boundary_message(event: EpisodeStarted | EpisodeEnded, recent: _Recent) -> list[Form]:
    form = codec.form
    actor_id = form(event.actor_id, "actor_id")
    recent.pop(event.actor_id, None)
    if isinstance(event, EpisodeStarted):
        return [_STARTED, actor_id, form(event.seed, "seed")]
    record = event.record
    return [
        _ENDED,
        actor_id,
        form(record.total_reward, "total_reward"),
        form(record.length, "length"),
        _STATUS_CODES[record.status],
        form(record.extras, "extras"),
    ]


def _experience_message(event: Experience, recent: _Recent) -> list[Form]:
    # Once per environment step: what is plain nearly always is not asked about in another function.
    form = codec.form
    action, reward, actor_id, status, policy_extras = (
        event.action, event.reward, event.actor_id, event.status, event.policy_extras,
    )  # fmt: skip
    observation = form(event.observation, "observation")
    after = form(event.next_observation, "next_observation")
    message: list[Form] = [
        _EXPERIENCE,
        observation,
        action if type(action) is int and -_SMALL < action < _SMALL else form(action, "action"),
        reward if type(reward) is float else form(reward, "reward"),
        after,
        0 if status is _GOES_ON else _STATUS_CODES[status],
        actor_id if type(actor_id) is int and -_SMALL < actor_id < _SMALL else form(actor_id, "actor_id"),
        None if policy_extras is None else form(policy_extras, "policy_extras"),
    ]
    before = recent.get(actor_id)
    if status is _GOES_ON:
        recent.put(actor_id, after)
    else:
        recent.pop(actor_id, None)
    # By their bytes: an environment may write the next observation into the same array, or hand an equal one
    # of its own out each time.
    if (
        type(observation) is Ext
        and type(before) is Ext
        and observation.data == before.data
        and observation.code == before.code
    ):
        message[0] = _CONTINUING
        del message[1]
    return message


class SegmentDecoder:
    """The events of one segment, from its payloads in their order."""

    def __init__(self) -> None:
        self._recent: _Recent = LRUDict()

    def header(self, payload: bytes) -> SegmentHeader:
        """The header that the first payload holds.

        Raises:
            msgspec.DecodeError: It holds none, or one of a later version.
        """
        kind, forms = _parts(payload)
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

    def event(self, payload: bytes) -> JournalEvent:
        """The event of the next payload.

        An observation that continues an episode is the very object that was its last next observation.

        Raises:
            msgspec.DecodeError: It holds none.
        """
        kind, forms = _parts(payload)
        if kind == _HEADER:
            raise msgspec.DecodeError("a header among the events")
        try:
            if kind in (_EXPERIENCE, _CONTINUING):
                return self._experience(kind, forms)
            restore = codec.restore
            actor_id = restore(forms[0])
            self._recent.pop(actor_id, None)
            if kind == _STARTED:
                return EpisodeStarted(actor_id, restore(forms[1]))
            record = EpisodeRecord(
                restore(forms[1]), restore(forms[2]), _STATUSES[cast("int", forms[3])], restore(forms[4])
            )
            return EpisodeEnded(record, actor_id)
        except (LookupError, TypeError) as error:
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


def is_message(payload: bytes) -> bool:
    """Whether the payload is a header's or an event's, as far as that can be told without the others."""
    try:
        _parts(payload)
    except msgspec.DecodeError:
        return False
    return True


def _parts(payload: bytes) -> tuple[int, list[Form]]:
    forms = codec.unpack(payload)
    kind = forms[0] if forms else None
    if type(kind) is not int or _LENGTHS.get(kind) != len(forms):
        raise msgspec.DecodeError(f"no record: {len(forms)} values of kind {kind!r}")
    return kind, forms[1:]
