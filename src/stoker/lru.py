"""A dict of bounded size, for state that is kept per actor.

Actor ids may be those of connections, which never end. Whatever is kept for each actor is therefore kept for
the most recently active ones only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_ACTORS: Final = 10_000
"""How many actors a run remembers."""


class LRUDict(OrderedDict[K, V]):
    """A dict that ``put`` keeps at ``max_size`` keys: the most recently put ones, most recent last."""

    def __init__(self, max_size: int = MAX_ACTORS) -> None:
        super().__init__()
        self.max_size = max_size

    def put(self, key: K, value: V) -> None:
        """Assign a value; drop the key that was put longest ago when there are too many."""
        # Not `__setitem__`: an override of a special method is twice as slow, and the journal puts each step.
        self[key] = value
        self.move_to_end(key)
        if len(self) > self.max_size:
            self.popitem(last=False)
