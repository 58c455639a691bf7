"""How much of one WebSocket may be unanswered: records of each actor, of all actors, and bytes."""

from __future__ import annotations

from collections import Counter

from stoker.protocol import ProtocolError, Record
from stoker.service.limits import Limits


class Unanswered:
    """The messages of a connection that wait for their answers.

    Args:
        limits: what may wait. Beyond the credit a message is refused; beyond the bytes no more is read.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._n_records = self._n_bytes = 0
        self._of_actor: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether the bytes are as many as one message may have."""
        return self._n_bytes > self._limits.message_bytes

    def check(self, steps: list[Record]) -> None:
        """Refuse records that exceed the credit; a message by itself never does.

        Raises:
            ProtocolError: ``credit-exceeded``, which closes the connection.
        """
        if not self._n_records:
            return
        limits = self._limits
        if self._n_records + len(steps) > limits.credit:
            raise ProtocolError(
                "credit-exceeded", f"more than {limits.credit} records of this connection are unanswered"
            )
        for actor, count in Counter(step.actor for step in steps).items():
            if self._of_actor[actor] and self._of_actor[actor] + count > limits.credit_per_actor:
                raise ProtocolError(
                    "credit-exceeded",
                    f"more than {limits.credit_per_actor} records of actor {actor!r} are unanswered",
                )

    def add(self, steps: list[Record], n_bytes: int) -> None:
        """A message waits."""
        self._n_records += len(steps)
        self._n_bytes += n_bytes
        self._of_actor.update(step.actor for step in steps)

    def remove(self, steps: list[Record], n_bytes: int) -> None:
        """It does not wait any more."""
        self._n_records -= len(steps)
        self._n_bytes -= n_bytes
        if self._n_records:
            self._of_actor.subtract(step.actor for step in steps)
        else:
            self._of_actor.clear()
