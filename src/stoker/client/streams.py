"""One actor's numbered records, from the call that made them until the server has them on disk. No I/O.

The last record is held back until the next call completes it: ``act`` says how to choose the action that
comes back with its answer, ``on_episode`` adds the extras of the episode. So a step is one message each way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import anyio
import msgspec

from stoker.errors import ActorConflict, InvalidExperience, SessionFailed, StokerError
from stoker.nested import is_same
from stoker.protocol import ActorAnswer, Record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = ["Chosen", "Kept", "RemoteStream"]

_check: Final = msgspec.msgpack.Decoder(Record).decode


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


class RemoteStream:
    """The records of one actor.

    Args:
        actor_id: the actor, as the caller names it.
        name: the same for the server.
        last: the number of the last record that the server has of this actor.
        encode: a record's fields to MessagePack.
        wants_actions: whether the server is to choose actions.
    """

    def __init__(
        self,
        actor_id: ActorId,
        name: str,
        last: int,
        encode: Callable[[Mapping[str, Any]], bytes],
        *,
        wants_actions: bool = True,
    ) -> None:
        self.actor_id = actor_id
        self.name = name
        self.encode = encode
        self.wants_actions = wants_actions
        self.kept: deque[Kept] = deque()
        """What is not durable yet, in order."""
        self.sealed = last
        """The number of the last record that may be sent."""
        self.taken = last
        """The number of the last record that the server has accepted."""
        self.durable = last
        """The number of the last record that the server has on disk."""
        self.replied = last
        """The number of the last record whose answer has come, with its action."""
        self.in_flight = 0
        """The number of the last record of the message that is under way; 0: there is none."""
        self.wants_durable = False
        """Whether the next message is to be answered once it is on disk."""
        self.chosen: Chosen | None = None
        self.failure: StokerError | None = None
        """Raised by the next call: the server refused one of its records, or the actor was taken over."""
        self.is_lost = False
        """Whether another client has the actor: nothing is sent for it any more."""
        self.changed = anyio.Event()
        """Set, and replaced, at each answer."""
        self.steps = 0
        """How many steps the server has accepted, each counted once."""
        self._counted = last  # up to this record
        self._held: dict[str, Any] | None = None  # the last record, until the next call completes it
        self._observation: Any = None  # of the last record
        self._is_open = False  # an episode runs
        self._seed: int | None = None
        self._asked = 0  # the record whose action is wanted

    # Calls ----------------------------------------------------------------------------------------

    def begin(self, seed: int | None) -> None:
        """Begin an episode with the next observation; one that runs is abandoned."""
        self.check()
        if self._held is not None and self._held.get("start"):
            self._held = None  # an episode without a step
        self.seal(wants_action=False)
        self._is_open, self._seed = False, seed

    def ask(self, observation: Any, plain: Callable[[], Any], mode: ActMode) -> int:
        """Ask for the action for this observation; returns the number of the record that has it.

        Args:
            observation: that of the last record, or the first of an episode.
            plain: gives the observation as a message holds it.
            mode: how to choose.

        Raises:
            InvalidExperience: It is not the observation that the actor's last step led to.
        """
        self.check()
        if not self._is_open:
            self._open(observation, plain())
        elif not self._is_last(observation):
            raise InvalidExperience(
                f"actor {self.actor_id!r}: this observation is not the one that its last step led to; a "
                "server chooses actions for that one alone: observe each step, and call on_episode_start to "
                "begin another episode"
            )
        if self._held is not None and mode is ActMode.EXPLOIT:
            self._held["mode"] = "exploit"
        if self._held is not None or self._asked != self.sealed:
            self.seal(wants_action=True)
            self._asked = self.sealed
        return self.sealed

    def observe(self, step: Experience, plain: Callable[[Any], Any], action: Callable[[Any], Any]) -> None:
        """Make the next record, from the outcome of an action.

        Args:
            step: the outcome.
            plain: gives an observation as a message holds it.
            action: the same for an action.

        Raises:
            InvalidExperience: It does not begin with the observation that the step before led to.
        """
        self.check()
        after = plain(step.next_observation)  # checks it: a refused step must change nothing
        chosen = self.chosen if self._is_open else None
        fields: dict[str, Any] = {"reward": float(step.reward), "observation": after}
        if chosen is not None and chosen.seq == self.sealed and is_same(step.action, chosen.action):
            fields |= {"action": chosen.wire, "memo": chosen.memo}
        else:
            fields["action"] = action(step.action)
        if not self._is_open:
            self._open(step.observation, plain(step.observation))
        elif not self._is_last(step.observation):
            raise InvalidExperience(
                f"actor {self.actor_id!r}: the step's observation is not the one that its last step led to: "
                "call on_episode_start to begin another episode"
            )
        self.seal(wants_action=False)
        self._hold(fields, step.next_observation)
        if step.status.is_done:
            self._finish(step.status)

    def end(self, status: EpisodeStatus, extras: Mapping[str, float]) -> None:
        """End the episode with the last observed step.

        Raises:
            InvalidExperience: That step was sent already, because an action was asked for after it.
        """
        self.check()
        held = self._held
        if held is None or held.get("start"):
            raise InvalidExperience(
                f"actor {self.actor_id!r}: on_episode without a step to end at: observe the outcome of the "
                "last action first; an episode without steps needs no on_episode"
            )
        before = dict(held), self._is_open
        self._finish(status)
        if extras:
            held["extras"] = {name: float(value) for name, value in extras.items()}
        try:
            self.seal(wants_action=False)
        except InvalidExperience:
            self._held, self._is_open = before
            raise

    def check(self) -> None:
        """Raise what went wrong since the last call, once; an actor that was taken over stays so.

        Raises:
            StokerError: Something went wrong.
        """
        if (failure := self.failure) is not None:
            if not self.is_lost:
                self.failure = None
            raise failure

    def seal(self, *, wants_action: bool) -> None:
        """Complete the last record: it may be sent from now on.

        Raises:
            InvalidExperience: A value of it can be in no record; nothing has changed.
        """
        if (held := self._held) is None:
            return
        fields = {"actor": self.name, "seq": self.sealed + 1, **held}
        if not (wants_action and self.wants_actions) and self._is_open:
            fields["act"] = False
        data = self.encode(fields)
        try:
            _check(data)
        except msgspec.ValidationError as error:
            raise InvalidExperience(f"actor {self.actor_id!r}: {error}") from error
        self._held = None
        self.sealed += 1
        self.kept.append(Kept(self.sealed, data, "start" not in held))

    def _open(self, observation: Any, plain: Any) -> None:
        fields: dict[str, Any] = {"start": True, "observation": plain}
        if self._seed is not None:
            fields["seed"] = self._seed
        self._is_open, self._seed = True, None
        self._hold(fields, observation)

    def _hold(self, fields: dict[str, Any], observation: Any) -> None:
        self._held, self._observation = fields, observation

    def _finish(self, status: EpisodeStatus) -> None:
        if self._held is not None:
            self._held["terminated"] = status.is_terminal
            self._held["truncated"] = status.is_truncated
        self._is_open = False

    def _is_last(self, observation: Any) -> bool:
        return observation is self._observation or is_same(observation, self._observation)

    # Messages -------------------------------------------------------------------------------------

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
        self.taken = last
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
        while self.kept and self.kept[-1].seq > self.taken:
            self.kept.pop()
        self.sealed, self._held, self._is_open, self._seed = self.taken, None, False, None
        self.replied = self.taken  # nobody waits for its action any more
        self.failure = error
        self.notify()

    def drop_rest(self) -> None:
        """Forget what the server has not accepted: the training has ended."""
        while self.kept and self.kept[-1].seq > self.taken:
            self.kept.pop()
        self.sealed = self.replied = self.taken
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
