"""What is known of one episode when it has ended.

A record is what a row of ``train_episodes.jsonl`` holds and what a ``StatsTracker`` is fed. Building one
checks nothing; ``check_record`` is the gate that callers' records go through, once, before they count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, cast

import msgspec

from stoker.errors import InvalidExperience
from stoker.types import EpisodeStatus

__all__ = ["EpisodeRecord", "check_record"]


class EpisodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ended episode, as JSON ``{"total_reward":23.0,"length":23,"status":"Terminated","extras":{}}``.

    Attributes:
        total_reward: undiscounted sum of the episode's rewards.
        length: number of transitions.
        status: how it ended, Terminated or Truncated.
        extras: further numbers by name, such as ``{"epsilon": 0.97}``.
    """

    total_reward: float
    length: int
    status: EpisodeStatus
    extras: dict[str, float] = msgspec.field(default_factory=dict[str, float])

    def with_extra(self, key: str, value: float) -> EpisodeRecord:
        """A new record that also has this extra; it replaces one of the same key."""
        return self.with_extras({key: value})

    def with_extras(self, extras: Mapping[str, float]) -> EpisodeRecord:
        """A new record that also has these extras; each replaces one of the same key."""
        return msgspec.structs.replace(self, extras={**self.extras, **extras})


def check_record(record: EpisodeRecord) -> EpisodeRecord:
    """The same record in plain Python floats and ints, or an error; the one given is left as it is.

    The returned record shares no extras with the one given, so that later changes by the caller do not
    reach it. Numpy scalars are converted. A bool is not a number here.

    Raises:
        InvalidExperience: A reward or an extra is not a finite number, the length is not an int of at
            least 0, the status is not that of an ended episode, or an extra's key is not text.
    """
    if not isinstance(record, EpisodeRecord):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's
        raise InvalidExperience(f"{record!r} is a {type(record).__qualname__}: give an EpisodeRecord")
    extras: Any = record.extras
    if type(extras) is not dict and not isinstance(extras, Mapping):
        raise InvalidExperience(
            f"extras={extras!r}: give a dict of numbers by name, such as {{'epsilon': 0.97}}"
        )
    items = cast("Mapping[Any, Any]", extras)
    return EpisodeRecord(
        total_reward=_finite("total_reward", record.total_reward),
        length=_length(record.length),
        status=_ended(record.status),
        extras={_key(key): _finite(f"extras[{key!r}]", value) for key, value in items.items()},
    )


def _finite(name: str, value: Any) -> float:
    # `type(...) is float` first: isinstance of an abstract class costs ten times as much.
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InvalidExperience(
                f"{name}={value!r} is a {type(value).__qualname__}: give a float (for an array or tensor of "
                "one element: its .item())"
            )
        try:
            value = float(value)
        except OverflowError:
            raise InvalidExperience(f"{name} is an integer too large for a float: give a float") from None
    if not math.isfinite(value):
        raise InvalidExperience(f"{name}={value!r} is not finite: leave it out, or mend what computes it")
    return value


def _length(value: Any) -> int:
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InvalidExperience(
                f"length={value!r} is a {type(value).__qualname__}: give the number of transitions as an int"
            )
        value = int(value)
    if value < 0:
        raise InvalidExperience(f"length={value} is negative: give the number of transitions")
    return value


def _ended(status: Any) -> EpisodeStatus:
    if not isinstance(status, EpisodeStatus):
        members = ", ".join(str(member) for member in EpisodeStatus)
        raise InvalidExperience(f"status={status!r} is not an EpisodeStatus: the members are {members}")
    if not status.is_done:
        raise InvalidExperience(f"status={status}: an ended episode is Terminated or Truncated")
    return status


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidExperience(f"extras has the key {key!r}, a {type(key).__qualname__}: give names as str")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair would fail later, in the writer
            raise InvalidExperience(
                f"extras has the key {key!r}, which is not valid Unicode: {error}"
            ) from error
    return key
