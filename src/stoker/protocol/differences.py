"""Whether two descriptions mean the same spaces: a digest to compare them by, and the first difference.

Both look at the spaces that the descriptions mean, so that names, the order of keys, and another way to write
the same bounds are no difference.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple, cast

import msgspec

from stoker.plain import shown
from stoker.protocol.spaces import Spaces, describe_space

_FIRST: Final = ("type", "shape", "n", "nvec", "dtype")
"""A difference of these explains others, so it is reported first."""


class Difference(NamedTuple):
    """Where two descriptions differ: the path, and what each has there."""

    path: str
    one: Any
    other: Any

    def __str__(self) -> str:
        return f"{self.path} is {shown(self.one)} and {shown(self.other)}"


def spaces_digest(described: Spaces) -> str:
    """A digest that changes with the spaces, whatever their names and the order of keys.

    Raises:
        ConfigError: As for ``space_from``.
    """
    plain = _plain(described)
    return "sha256:" + hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def difference(one: Spaces, other: Spaces) -> Difference | None:
    """The first place where the spaces differ, names apart; None: they are the same.

    Raises:
        ConfigError: As for ``space_from``.
    """
    return _first_difference(_plain(one), _plain(other), "")


def _plain(described: Spaces) -> dict[str, Any]:
    """The description in builtins that any other description of the same spaces gives, too."""
    return {
        name: msgspec.to_builtins(describe_space(space))
        for name, space in zip(("observation", "action"), described.gymnasium(), strict=True)
    }


def _first_difference(one: Any, other: Any, path: str) -> Difference | None:
    if isinstance(one, dict) and isinstance(other, dict):
        mine, its = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        keys = {*mine, *its}
        for key in [*(key for key in _FIRST if key in keys), *sorted(keys.difference(_FIRST))]:
            where = f"{path}.{key}" if path else key
            if found := _first_difference(mine.get(key), its.get(key), where):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        left, right = cast("list[Any]", one), cast("list[Any]", other)
        if len(left) != len(right):
            return Difference(path, one, other)
        pairs = zip(left, right, strict=True)
        places = (_first_difference(*pair, f"{path}[{at}]") for at, pair in enumerate(pairs))
        return next((place for place in places if place), None)
    return None if one == other else Difference(path, one, other)
