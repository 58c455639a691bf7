"""What the server has of one actor's numbered records, and what it may still need. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import anyio

from stoker.errors import ActorConflict, InvalidExperience, SessionFailed, StokerError
from stoker.protocol import ActorAnswer
from stoker.types import ActorId


class Kept(NamedTuple):
    """A record that the server may still need.

    Attributes:
        seq: its number.
        data: the record in MessagePack, the same each time that it is sent.
        is_step: whether it is the outcome of an action, and not the start of an episode.
    """

    seq: int
    data: bytes
    is_step: bool


class Chosen(NamedTuple):
    """The server's action for a record, and what it wants back with the outcome.

    Attributes:
        seq: the record.
        action: as the environment takes it.
        wire: as the answer had it.
        memo: of the answer.
        version: of the policy.
    """

    seq: int
    action: Any
    wire: Any
    memo: str | None
    version: int | None


class SealedRecords:
    """The complete records of one actor: in order, and kept until the server has them on disk.

    Args:
        actor_id: the actor, as the caller names it.
        name: the same for the server.
        last: the number of the last record that the server has of this actor.
    """

    def __init__(self, actor_id: ActorId, name: str, last: int) -> None:
        self.actor_id = actor_id
        self.name = name
        self.kept: deque[Kept] = deque()
        """What is not durable yet, in order."""
        self.sealed: int = last
        """The number of the last record that may be sent."""
        self.taken: int = last
        """The number of the last record that the server has accepted."""
        self.durable: int = last
        """The number of the last record that the server has on disk."""
        self.replied: int = last
        """The number of the last record whose answer has come, with its action."""
        self.in_flight = 0
        """The number of the last record of the message that is under way; 0: there is none."""
        self.wants_durable = False
        """Whether the next message is to be answered once it is on disk."""
        self.chosen: Chosen | None = None
        self.failure: StokerError | None = None
        """Raised by the next call: the server refused one of its records, or the actor was taken over."""
        self.is_lost: bool = False
        """Whether another client has the actor: nothing is sent for it any more."""
        self.changed: anyio.Event = anyio.Event()
        """Set, and replaced, at each answer."""
        self.steps: int = 0
        """How many steps the server has accepted, each counted once."""
        self._counted = last  # up to this record

    def check(self) -> None:
        """Raise what went wrong since the last call, once; an actor that was taken over stays so.

        Raises:
            StokerError: Something went wrong.
        """
        if (failure := self.failure) is not None:
            if not self.is_lost:
                self.failure = None
            raise failure

    @property
    def n_waiting(self) -> int:
        """How many records the server has not accepted yet."""
        return self.sealed - self.taken

    def to_send(self) -> list[Kept]:
        """The records of the next message, in order; of these the first may be sent without the rest."""
        if self.is_lost or self.in_flight:
            return []
        if self.n_waiting:
            first = len(self.kept) - self.n_waiting
            return [self.kept[index] for index in range(first, len(self.kept))]
        is_asking = self.wants_durable or self.replied < self.sealed
        return [self.kept[-1]] if is_asking and self.kept else []

    def answered(self, answer: ActorAnswer, action: Any, *, keeps: bool, is_reply: bool = True) -> None:
        """Take in where the server's stream stands.

        Args:
            answer: of the server.
            action: of the answer, as the environment takes it.
            keeps: whether the server has a disk; if not, accepted records are forgotten.
            is_reply: whether it has the actions, too; a problem has not, and the last record is sent again.

        Raises:
            SessionFailed: The server needs a record that was on its disk before.
        """
        last = answer.next - 1
        if last > self.sealed:
            self.lose(ActorConflict(self.actor_id, f"another client, which has sent {last:,} records of it"))
            return
        if last > self._counted:
            self.steps += sum(each.is_step for each in self.kept if self._counted < each.seq <= last)
            self._counted = last
        self.taken: int = last
        self.durable = max(self.durable, min(last, answer.durable)) if keeps else last
        if is_reply:
            self.replied = max(self.replied, last)
        kept = self.kept
        while kept and kept[0].seq <= min(self.durable, self.replied):
            kept.popleft()
        if last < (kept[0].seq - 1 if kept else self.sealed):
            raise SessionFailed(
                "server",
                LookupError(
                    f"it has only {last:,} records of actor {self.name!r}, and had {self.durable:,} on disk: "
                    "its run was lost or replaced; connect again to begin anew"
                ),
            )
        if is_reply and last == self.sealed and answer.action is not None:
            self.chosen = Chosen(last, action, answer.action, answer.memo, answer.policy_version)
        self.notify()

    def refused(self, error: InvalidExperience, taken: int | None = None) -> None:
        """Forget what the server has not accepted; the next call raises the error, and begins an episode."""
        self.taken = self.taken if taken is None else taken
        self.failure = error
        self.drop_rest()

    def drop_rest(self) -> None:
        """Forget what the server has not accepted: the training has ended, or it was refused."""
        while self.kept and self.kept[-1].seq > self.taken:
            self.kept.pop()
        self.sealed = self.replied = self.taken  # nobody waits for an action any more
        self.notify()

    def lose(self, error: ActorConflict) -> None:
        """Another client has this actor."""
        self.failure, self.is_lost = error, True
        self.kept.clear()
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for an answer."""
        self.changed.set()
        self.changed = anyio.Event()
