"""The digest of a data set's transitions: the same however they are cut, as columns or one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from stoker.journal.codec import encode
from stoker.types import Experience, ExperienceBatch

_NO_EXTRAS = encode(None, "policy_extras")


class TransitionDigest:
    """The SHA-256 of transitions in their order.

    Each column of numbers has a hash of its own, of the bytes of its rows; the digest is that of all of them.
    Rows of columns and single experiences add the same bytes, and bytes are hashed at the speed of memory.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def add(self, transitions: ExperienceBatch | Sequence[Experience]) -> None:
        """Add some more transitions."""
        if isinstance(transitions, ExperienceBatch):
            self._add_batch(transitions)
            return
        for step in transitions:
            if type(cast("Any", step)) is Experience:  # others are refused by the session
                status = step.status
                self._add_values("observation", step.observation)
                self._add_values("action", step.action)
                self._add_values("next_observation", step.next_observation)
                self._add_values("reward", np.float64(step.reward))
                self._add("end", bytes((status.is_terminal + 2 * status.is_truncated,)))
                self._add("actor_id", encode(step.actor_id, "actor_id"))
                self._add("policy_extras", encode(step.policy_extras, "policy_extras"))

    def _add_batch(self, batch: ExperienceBatch) -> None:
        terminated = np.asarray(batch.terminated, np.uint8)
        ends = terminated + 2 * (np.asarray(batch.truncated, np.uint8) & (1 - terminated))
        self._add_values("observation", batch.observations)
        self._add_values("action", batch.actions)
        self._add_values("next_observation", batch.next_observations)
        self._add_values("reward", np.asarray(batch.rewards, np.float64))
        self._add("end", ends.astype(np.uint8).tobytes())
        ids = {actor_id: encode(actor_id, "actor_id") for actor_id in batch.actor_ids}
        self._add("actor_id", b"".join(map(ids.__getitem__, batch.actor_ids)))
        self._add("policy_extras", _NO_EXTRAS * len(batch))

    def hexdigest(self) -> str:
        """Of all that were added so far."""
        names = sorted(self._columns)
        return hashlib.sha256(
            b"".join(name.encode() + self._columns[name].digest() for name in names)
        ).hexdigest()

    def _add(self, column: str, data: bytes) -> None:
        if (found := self._columns.get(column)) is None:
            found = self._columns[column] = hashlib.sha256()
        found.update(data)

    def _add_values(self, column: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in cast("dict[Any, Any]", value).items():
                self._add_values(f"{column}/{key}", part)
        elif isinstance(value, tuple):
            for index, part in enumerate(cast("tuple[Any, ...]", value)):
                self._add_values(f"{column}/{index}", part)
        elif (array := np.asarray(value)).dtype.hasobject:
            self._add(column, encode(value, column))
        else:
            # A number of a step has 64 bits, and in a column perhaps fewer.
            kind = {"i": np.int64, "u": np.int64}.get(array.dtype.kind) if column == "action" else None
            self._add(column, np.ascontiguousarray(array, kind).tobytes())
