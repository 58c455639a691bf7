"""Episode records, the sources that read a stat from one, and the report of an evaluation.

A record is one row of ``train_episodes.jsonl`` and one update of a ``StatsTracker``. Building one checks
nothing; ``check_record`` validates each record from a caller once, before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import msgspec

from stoker.errors import InvalidExperience
from stoker.plain import plain_count, plain_number, plain_text
from stoker.types import EpisodeStatus


class EpisodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ended episode, as JSON ``{"total_reward":23.0,"length":23,"status":"Terminated","extras":{}}``.

    Attributes:
        total_reward: undiscounted sum of the episode's rewards.
        length: number of transitions.
        status: how it ended, Terminated or Truncated.
        extras: further numbers by name, for example ``{"epsilon": 0.97}``.
    """

    total_reward: float
    length: int
    status: EpisodeStatus
    extras: dict[str, float] = msgspec.field(default_factory=dict[str, float])

    def with_extras(self, extras: Mapping[str, float]) -> EpisodeRecord:
        """A new record that also has these extras; each replaces one of the same key."""
        return msgspec.structs.replace(self, extras={**self.extras, **extras})


def check_record(record: EpisodeRecord) -> EpisodeRecord:
    """A copy of the record in plain Python floats and ints. A bool is not a number here.

    Raises:
        InvalidExperience: A reward or an extra is not a finite number, the length is not a count, the
            status is not that of an ended episode, or an extra's key is not a valid text.
    """
    if not isinstance(record, EpisodeRecord):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's
        raise InvalidExperience(f"{record!r} is a {type(record).__qualname__}: give an EpisodeRecord")
    extras: Any = record.extras
    if type(extras) is not dict and not isinstance(extras, Mapping):
        raise InvalidExperience(f"extras={extras!r}: give a dict of numbers by name")
    items = cast("Mapping[Any, Any]", extras)
    return EpisodeRecord(
        total_reward=plain_number("total_reward", record.total_reward),
        length=plain_count("length", record.length),
        status=_ended(record.status),
        extras={
            plain_text("extras: key", key): plain_number(f"extras[{key!r}]", value)
            for key, value in items.items()
        },
    )


def _ended(status: Any) -> EpisodeStatus:
    if not isinstance(status, EpisodeStatus):
        members = ", ".join(str(member) for member in EpisodeStatus)
        raise InvalidExperience(f"status={status!r} is not an EpisodeStatus: the members are {members}")
    if not status.is_done:
        raise InvalidExperience(f"status={status}: an ended episode is Terminated or Truncated")
    return status


Source: TypeAlias = Callable[[EpisodeRecord], float | None]
"""Reads one number from a record, once; None: the record has none, and the stat skips it."""


def total_reward(record: EpisodeRecord) -> float:
    """The undiscounted sum of the episode's rewards."""
    return record.total_reward


def length(record: EpisodeRecord) -> float:
    """The number of the episode's transitions."""
    return record.length


def extra(key: str) -> Source:
    """A source of the extra with this key; records without it are skipped."""

    def source(record: EpisodeRecord) -> float | None:
        return record.extras.get(key)

    return source


class EvalReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The stats of an evaluation at one point of the training.

    Printed as a headline and one ``key: value`` line per stat, sorted by key, with three decimals.

    Attributes:
        total_steps: environment steps of training at that point.
        n_episodes: number of episodes evaluated.
        stats: the values by name; NaN where no episode had one.
    """

    total_steps: int
    n_episodes: int
    stats: dict[str, float]

    def __str__(self) -> str:
        headline = f"=== Eval @ step {self.total_steps} ({self.n_episodes} episodes) ==="
        return "\n".join([headline, *(f"{key}: {value:.3f}" for key, value in sorted(self.stats.items()))])
