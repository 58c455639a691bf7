"""A training on a server, used as a ``TrainingSession`` is used: ``act``, ``observe``, ``on_episode``."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from anyio.lowlevel import checkpoint

from stoker.client.delivery import Delivery
from stoker.client.local import LocalPolicy
from stoker.client.streams import RemoteStream
from stoker.errors import ActorConflict, InvalidExperience
from stoker.plain import shown
from stoker.protocol import ProtocolError, SpaceCodec, Spec
from stoker.protocol.messages import LARGEST_REWARD
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

_logger = logging.getLogger("stoker.client")


class RemoteSession(Delivery):
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
        codec = SpaceCodec(*spaces)
        super().__init__(spec, prefix, find, partial(codec.action, path="action"))
        self.observation_space: gymnasium.Space[Any] = spaces[0]
        self.action_space: gymnasium.Space[Any] = spaces[1]
        self._codec = codec
        self._acting: set[ActorId] = set()
        self._local: LocalPolicy | None = None

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

    def act_with(self, local: LocalPolicy) -> None:
        """Choose actions with a copy of the policy, from the first call on."""
        self._local, self._wants_actions = local, False

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
