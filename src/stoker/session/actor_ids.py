"""The actor ids of several rows, checked at the door, and known again when the same tuple comes again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet
from typing import Any, NamedTuple, cast

from stoker.errors import InvalidExperience
from stoker.plain import LARGEST_INT, check_actor_id, shown
from stoker.types import ActorId


class CheckedIds(NamedTuple):
    """Actor ids that were checked: in the order of rows, and each once."""

    rows: tuple[ActorId, ...]
    actors: frozenset[ActorId]


class KnownIds:
    """Checks ids, and keeps those that were checked last. For calls from several threads."""

    def __init__(self) -> None:
        self._known = CheckedIds((), frozenset())

    def checked(self, actor_ids: Iterable[ActorId]) -> CheckedIds:
        """The ids of a batch, each of which can name an actor; the tuple that came last is known."""
        known = self._known  # which another thread may replace
        if actor_ids is known.rows:
            return known
        given: Any = actor_ids
        ids: tuple[ActorId, ...] = given  # kept, so that it is known when it comes again
        if type(given) is not tuple:
            ids = tuple(in_order("actor_ids", given, "give a tuple, one for each row in its order"))
        numbers: Any = ids
        are_plain = {*map(type, ids)} == {int} and 0 <= min(numbers) <= max(numbers) <= LARGEST_INT
        for row, actor_id in enumerate(() if are_plain else ids):
            try:
                check_actor_id(actor_id)
            except InvalidExperience as error:
                raise InvalidExperience(f"row {row} of {len(ids)}: {error}; none was taken") from error
        self._known = known = CheckedIds(ids, frozenset(ids))
        return known


def in_order(name: str, given: Any, advice: str) -> Iterator[Any]:
    """The parts of something that has them in an order, and is no mistaken text."""
    if not isinstance(given, str | bytes | AbstractSet | Mapping):
        with contextlib.suppress(TypeError):  # it cannot be iterated over
            return iter(given)
    raise InvalidExperience(f"{name}={shown(cast('Any', given))}: {advice}")
