"""A training on a server, used as a ``TrainingSession`` is used: ``act``, ``observe``, ``on_episode``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import anyio
import gymnasium
import numpy as np
from anyio.lowlevel import checkpoint

from stoker.client.foractors import ForActors
from stoker.client.local import LocalPolicy
from stoker.client.sending import Sender
from stoker.client.streams import RemoteStream
from stoker.errors import ActorConflict, InvalidExperience, SessionClosed, SessionFailed, StokerError
from stoker.plain import shown
from stoker.protocol import ProtocolError, SpaceCodec, Spec, encode_msgpack
from stoker.protocol.messages import LARGEST_REWARD
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

__all__ = ["RemoteSession"]

logger = logging.getLogger("stoker.client")
_MOST_KEPT = 4096
"""Records of an actor that are not on the server's disk; beyond, its calls wait for the disk."""


class RemoteSession(ForActors):
    """A training on a server; made by ``connect``.

    Any number of tasks may call it, each under its own ``actor_id``. Each step is learned exactly once,
    through cut connections and restarts of the server: a record is kept until the server has it on disk.
    What several actors have to send at the same time goes in one message, and each step is one message: the
    action that ``act`` returns comes back with the answer to ``observe``. So ``act`` chooses only for the
    observation that the actor's last step led to, or for the first one of an episode.

    A call raises ``SessionFailed`` once the server has failed or was out of reach for too long, and
    ``ActorConflict`` if another client has taken the actor.

    Args:
        spec: of the server.
        spaces: observation and action space.
        prefix: what the server calls actor 3: this and ``3``.
        find: the number of the last record that the server has of a name.
    """

    def __init__(
        self,
        spec: Spec,
        spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]],
        *,
        prefix: str,
        find: Callable[[str], Awaitable[int]],
    ) -> None:
        super().__init__()
        self.spec = spec
        """What the server said about itself when it was connected last."""
        self.observation_space, self.action_space = spaces
        self._codec = codec = SpaceCodec(*spaces)
        self.prefix = prefix
        """What the server calls actor 3: this and ``3``."""
        self._find = find
        self._streams: dict[ActorId, RemoteStream] = {}
        self._opening: dict[ActorId, anyio.Lock] = {}
        self._acting: set[ActorId] = set()
        self._local: LocalPolicy | None = None
        self._failure: StokerError | None = None
        self._is_closed = False
        self._is_stopped = False
        self.heard_at = time.monotonic()
        """When the server answered last, in monotonic seconds."""
        self.sender = Sender(
            spec.limits,
            partial(codec.action, path="action"),
            keeps="durable" in spec.features,
            is_heard=self._hear,
        )
        """Sends what the actors have to send."""

    # Actors -----------------------------------------------------------------------------------------

    async def act(self, observation: Any, mode: ActMode = ActMode.EXPLORE, actor_id: ActorId = 0) -> Any:
        """Choose an action for the observation that the actor's last step led to, or its episode's first.

        Once the training has ended, actions are random: no outcome is learned any more.

        Raises:
            InvalidExperience: It is another observation, or one that the server refuses.
            ActorConflict: Another task waits for an action under this ``actor_id``, or another client has it.
            SessionError: The server has failed.
        """
        stream = self._streams.get(actor_id) or await self._stream(actor_id)
        asked = self._ask(stream, observation, mode)
        if self._local is None:
            return await self._action(stream, asked)
        await checkpoint()  # the actors' steps mix, and messages get their turn
        return self._local.act(observation, mode)

    async def act_many(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> Any:
        """Choose actions for several actors, in one message; see ``act``.

        For an array of observations the actions are an array, too.
        """
        given = list(observations)
        streams = [self._streams.get(each) or await self._stream(each) for each in actor_ids]
        asked = [
            (stream, self._ask(stream, observation, mode))
            for stream, observation in zip(streams, given, strict=True)
        ]
        if self._local is not None:
            await checkpoint()
            actions = [self._local.act(observation, mode) for observation in given]
        else:
            actions = [await self._action(stream, seq) for stream, seq in asked]
        return np.asarray(actions) if isinstance(observations, np.ndarray) else actions

    async def observe(self, experience: Experience) -> None:
        """Accept one transition; it is sent with the next call of its actor, which completes it.

        Waits while too many of the actor's records are under way, or not on the server's disk. Cancelled: it
        is out. After the end of the training it is dropped quietly.

        Raises:
            InvalidExperience: A value is not valid, or its observation is not where the actor's last step
                ended; or the server has refused an earlier step of this actor.
            SessionError: The server has failed, or another client has the actor.
        """
        stream = self._streams.get(experience.actor_id) or await self._stream(experience.actor_id)
        self.require_open("observe")
        if self.is_done:
            await checkpoint()
            return
        reward = experience.reward
        if not -LARGEST_REWARD <= reward <= LARGEST_REWARD:  # NaN is in no range
            raise InvalidExperience(
                f"reward={shown(reward)} for actor {experience.actor_id!r}: give a finite number, at most "
                f"{LARGEST_REWARD:g} in size"
            )
        await self._room(stream)
        stream.observe(experience, self._plain, self._plain_action)
        self.sender.offer(stream)

    async def observe_many(self, experiences: Iterable[Experience]) -> None:
        """Accept several transitions in order; after an error, those before it are in."""
        for experience in experiences:
            await self.observe(experience)

    async def observe_batch(self, batch: ExperienceBatch) -> None:
        """Accept transitions as columns, in the order of the rows."""
        await self.observe_many(batch.experiences())

    async def on_episode_start(self, actor_id: ActorId = 0, seed: int | None = None) -> None:
        """Begin an actor's episode with its next observation, and abandon an unfinished one."""
        stream = self._streams.get(actor_id) or await self._stream(actor_id)
        self.require_open("on_episode_start")
        stream.begin(seed)
        self.sender.offer(stream)

    async def on_episode(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None = None,
        actor_id: ActorId = 0,
    ) -> None:
        """End an actor's episode at its last step.

        The server counts steps and sums rewards itself, so ``total_reward`` and ``steps`` are only checked.

        Raises:
            InvalidExperience: A number is not finite, the status is not that of an ended episode, or there is
                no step to end at.
        """
        stream = self._streams.get(actor_id) or await self._stream(actor_id)
        self.require_open("on_episode")
        if self.is_done:
            return
        extras = env_extras or {}
        for name, value in {"total_reward": total_reward, "steps": steps, **extras}.items():
            if not math.isfinite(value):
                raise InvalidExperience(f"{name}={shown(value)} for actor {actor_id!r}: give a finite number")
        if not status.is_done:
            raise InvalidExperience(f"status={status}: give that of an ended episode")
        stream.end(status, extras)
        self.count_episode(actor_id)
        self.sender.offer(stream)

    def know(self, spec: Spec) -> None:
        """What the server says about itself now."""
        self.spec = spec
        self.sender.limits, self.sender.keeps = spec.limits, "durable" in spec.features

    def act_with(self, local: LocalPolicy) -> None:
        """Choose actions with a copy of the policy, from the first call on."""
        self._local = local

    # The session ------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether the training takes no more steps: it has ended, ``stop`` was called, or it has failed."""
        return self.sender.is_done or self._is_stopped or self._failure is not None or self._is_closed

    @property
    def has_ended(self) -> bool:
        """Whether the server has said that the training has all its steps."""
        return self.sender.is_done

    @property
    def is_draining(self) -> bool:
        """Whether it takes no more calls."""
        return self._is_closed

    def require_open(self, what: str) -> None:
        """Refuse a call that needs a running session.

        Raises:
            SessionError: It has been left, or has failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise SessionClosed(what, entered=True)

    @property
    def accepted_steps(self) -> int:
        """Steps of this client that the server has accepted."""
        return sum(stream.steps for stream in self._streams.values())

    def stop(self) -> None:
        """Accept no more steps from this client; the training itself goes on."""
        self._is_stopped = True

    async def barrier(self) -> None:
        """Return when the server has accepted everything observed so far."""
        for stream in list(self._streams.values()):
            stream.seal(wants_action=True)
            self.sender.offer(stream)
            wanted = stream.sealed
            await self._until(stream, partial(_is_taken, stream, wanted))

    async def flush(self) -> None:
        """Return when everything observed so far is on the server's disk; without a disk, as ``barrier``.

        Raises:
            SessionError: The server has failed.
        """
        streams = [stream for stream in self._streams.values() if not stream.is_lost]
        wanted: list[tuple[RemoteStream, int]] = []
        for stream in streams:
            stream.seal(wants_action=True)
            stream.wants_durable = self.sender.keeps
            wanted.append((stream, stream.sealed))
            self.sender.offer(stream)
        try:
            for stream, last in wanted:
                await self._until(stream, partial(_is_durable, stream, last))
        finally:
            for stream in streams:
                stream.wants_durable = False

    def fail(self, part: str, error: BaseException) -> None:
        """End the session: this part has failed; every call raises it from now on."""
        if self._failure is None:
            is_own = isinstance(error, StokerError)
            self._failure = error if is_own else SessionFailed(part, error)
            for stream in self._streams.values():
                stream.notify()

    @property
    def failure(self) -> StokerError | None:
        """Why the session has failed."""
        return self._failure

    def end(self) -> None:
        """Take no more calls."""
        self._is_closed = True

    @property
    def names(self) -> list[str]:
        """What the server calls the actors that have played."""
        return [stream.name for stream in self._streams.values() if not stream.is_lost]

    @property
    def n_kept(self) -> int:
        """Records that the server may not have on its disk yet."""
        return sum(len(stream.kept) for stream in self._streams.values())

    def _ask(self, stream: RemoteStream, observation: Any, mode: ActMode) -> int:
        """Ask for an action; returns the number of the record that is answered with it, 0 after the end."""
        self.require_open("act")
        if stream.actor_id in self._acting:
            raise ActorConflict(stream.actor_id, "act()")
        if self.is_done:
            return 0
        asked = stream.ask(observation, partial(self._plain, observation), mode)
        self.sender.offer(stream)
        return asked

    async def _action(self, stream: RemoteStream, asked: int) -> Any:
        """Wait for the action that comes with the answer to a record."""
        self._acting.add(stream.actor_id)
        try:
            await self._until(stream, lambda: stream.replied >= asked or self.is_done)
        finally:
            self._acting.discard(stream.actor_id)
        if (chosen := stream.chosen) is not None and chosen.seq == asked:
            return chosen.action
        if self.is_done:
            return self.action_space.sample()
        raise InvalidExperience(
            f"actor {stream.actor_id!r}: the server has no action for this observation any more: observe an "
            "outcome, or begin another episode"
        )

    # Inside -----------------------------------------------------------------------------------------

    async def _stream(self, actor_id: ActorId) -> RemoteStream:
        """The stream of an actor; the first time, the server is asked where it stands."""
        async with self._opening.setdefault(actor_id, anyio.Lock()):
            if (stream := self._streams.get(actor_id)) is None:
                self.require_open("the call")
                name = f"{self.prefix}{actor_id}"
                last = await self._find(name)
                stream = RemoteStream(actor_id, name, last, encode_msgpack, wants_actions=self._local is None)
                self._streams[actor_id] = stream
        return stream

    async def _until(self, stream: RemoteStream, is_true: Callable[[], bool]) -> None:
        """Wait for something that an answer changes.

        Raises:
            StokerError: The session failed, or the server refused a record of the stream.
        """
        while True:
            stream.check()
            if self._failure is not None:
                raise self._failure
            if is_true():
                return
            await stream.changed.wait()

    async def _room(self, stream: RemoteStream) -> None:
        """Wait while the stream has too much that is not accepted, or not on disk."""
        most = self.spec.limits.credit_per_actor
        if stream.n_waiting >= most:
            await self._until(stream, lambda: stream.n_waiting < most or self.sender.is_done)
        if len(stream.kept) >= _MOST_KEPT:
            stream.wants_durable = True
            self.sender.offer(stream)
            await self._until(stream, lambda: len(stream.kept) < _MOST_KEPT or self.sender.is_done)
            stream.wants_durable = False

    def _hear(self) -> None:
        self.heard_at = time.monotonic()

    def _plain(self, observation: Any) -> Any:
        """A checked copy of an observation."""
        return self._checked(self._codec.observation, observation, "observation")

    def _plain_action(self, action: Any) -> Any:
        return self._checked(self._codec.action, action, "action")

    def _checked(self, read: Callable[[Any, str], Any], value: Any, what: str) -> Any:
        try:
            return read(value, what)
        except ProtocolError as error:
            raise InvalidExperience(f"{error.path or what}: {error.detail}") from error


def _is_taken(stream: RemoteStream, last: int) -> bool:
    return stream.is_lost or stream.taken >= min(last, stream.sealed)


def _is_durable(stream: RemoteStream, last: int) -> bool:
    return stream.is_lost or stream.durable >= min(last, stream.sealed)
