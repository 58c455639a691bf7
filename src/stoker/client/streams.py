"""One actor's records, from the calls that make them. No I/O.

The last record is held back until the next call completes it: ``act`` says how to choose the action that
comes back with its answer, ``on_episode`` adds the extras of the episode. So a step is one message each way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from stoker.client.records import Kept, SealedRecords
from stoker.errors import InvalidExperience
from stoker.nested import is_same
from stoker.protocol import Record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

_check: Final = msgspec.msgpack.Decoder(Record).decode


class RemoteStream(SealedRecords):
    """The records of one actor, as calls make them.

    Args:
        actor_id: the actor, as the caller names it.
        name: the same for the server.
        last: the number of the last record that the server has of this actor.
        encode: a record's fields to MessagePack.
        wants_actions: whether the server is to choose actions.
    """

    sealed: int

    def __init__(
        self,
        actor_id: ActorId,
        name: str,
        last: int,
        encode: Callable[[Mapping[str, Any]], bytes],
        *,
        wants_actions: bool = True,
    ) -> None:
        super().__init__(actor_id, name, last)
        self.encode = encode
        self.wants_actions = wants_actions
        self._held: dict[str, Any] | None = None  # the last record, until the next call completes it
        self._observation: Any = None  # of the last record
        self._is_open = False  # an episode runs
        self._seed: int | None = None
        self._asked = 0  # the record whose action is wanted

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

    def refused(self, error: InvalidExperience, taken: int | None = None) -> None:
        """Forget the record that is held back, too: the next call begins an episode."""
        self._held, self._is_open, self._seed = None, False, None
        super().refused(error, taken)
