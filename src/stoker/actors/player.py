"""What all actors share, wherever they play: the loop over environments, failures and supervision.

An environment that raises costs one episode: it is closed and made again. An error of the session or the
agent is not the environment's fault and ends the actor.
"""

from __future__ import annotations

import abc
import logging
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import msgspec

from stoker.actors.episodes import EnvFactory, EnvironmentFailed, FailureCount, FailureLimit, opened_env
from stoker.actors.messages import described
from stoker.actors.report import ActorStream, Gate, OnStep
from stoker.agents.protocol import ChecksInput
from stoker.envs import PlayedEnv, Stepping
from stoker.errors import InvalidExperience, SessionFailed, Stalled
from stoker.session import TrainingSession
from stoker.types import ActorId

__all__ = ["Player", "PlayerSettings"]

logger = logging.getLogger("stoker.actors")


class PlayerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that all actors of a group share.

    Attributes:
        factory: makes the environment.
        seed: seeds the episodes, together with the actor and the episode's number; None: no seeds.
        limit: how many failures are allowed.
        stepping: where plain environments are stepped, if not by a worker.
        on_step: awaited after each accepted step.
        gate: asked before each step.
    """

    factory: EnvFactory
    seed: int | None
    limit: FailureLimit
    stepping: Stepping = "auto"
    on_step: OnStep | None = None
    gate: Gate | None = None


class Player(abc.ABC):
    """An actor, wherever it plays: plays until the session is done, with a new environment after a failure.

    Args:
        session: takes the experiences.
        actor_id: the stream of episodes that this actor is.
        settings: those of its group.
    """

    is_starting = False
    """Whether its worker is being started: abandoning it now loses nothing."""

    def __init__(self, session: TrainingSession, actor_id: ActorId, settings: PlayerSettings) -> None:
        self._session = session
        self._actor_id: ActorId = actor_id
        self._settings = settings
        self._stream = ActorStream(session, actor_id, settings.on_step)
        self.streams: list[ActorStream] = [self._stream]
        """The streams that it plays: one, except for a vector environment."""
        self._failures = FailureCount(actor_id, settings.limit)
        self.in_env_since: float | None = None
        """When its environment got the request that it has not answered yet, in monotonic seconds."""
        self._is_shut_out = False  # by the gate
        self._life = anyio.CancelScope()  # of the present environment
        self._stuck: Stalled | None = None
        self._is_abandoned = False

    async def run(self) -> None:
        """Play episode after episode.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played, or not there.
            SessionError: The session does not run.
        """
        for stream in self.streams:
            stream.begin()
        try:
            while await self._may_continue():
                cause: BaseException | None = None
                try:
                    with anyio.CancelScope() as self._life:
                        await self._play_env()
                    cause, self._stuck = self._stuck, None
                except EnvironmentFailed as failure:
                    cause = failure.__cause__ or failure
                finally:
                    self.in_env_since = None
                if cause is not None and not self._is_over:
                    await self._recover(cause)
        finally:
            for stream in self.streams:
                stream.end()

    @abc.abstractmethod
    async def _play_env(self) -> None:
        """Make one environment and play it until the session is done.

        Raises:
            EnvironmentFailed: It failed.
        """

    def _opened_env(self) -> AbstractAsyncContextManager[PlayedEnv]:
        self.in_env_since = time.monotonic()
        name = f"env of actor {self._actor_id}"
        return opened_env(self._settings.factory, self._settings.stepping, name)

    def abandon(self) -> None:
        """Leave the environment without waiting for it."""
        self._is_abandoned = True
        self._life.cancel()

    def restart(self, stuck: Stalled) -> None:
        """Leave the environment, which is stuck: this counts as a failure, and another one is made."""
        self._stuck = stuck
        self._life.cancel()

    @property
    def _is_over(self) -> bool:
        return self._session.is_done or self._is_shut_out

    async def _may_continue(self) -> bool:
        self.in_env_since = None
        return not self._is_over

    async def _pass_gate(self) -> None:
        gate = self._settings.gate
        if gate is not None and not self._is_over and not await gate.enter(self._actor_id):
            self._is_shut_out = True

    async def _recover(self, cause: BaseException) -> None:
        """Count a failure and pause before another environment is made.

        Raises:
            ActorFailed: The environment failed too often.
        """
        self._session.pacing.end(self._actor_id)  # its action in flight is lost
        if self._settings.gate is not None:
            self._settings.gate.give_back(self._actor_id)
        for stream in self.streams:
            stream.report.restarts += 1
            stream.report.last_error = described(cause)
        delay_s = self._failures.add(cause)
        logger.warning(
            "actor %r: its environment failed (%s); that episode is lost, a new one is made in %.1f s",
            self._actor_id,
            described(cause),
            delay_s,
        )
        await anyio.sleep(delay_s)

    def _refusal(self, observation: Any, error: BaseException) -> InvalidExperience:
        """Why the agent refuses an observation that a copy of its policy failed on.

        Raises:
            SessionFailed: The agent accepts the observation, so the policy failed; this ends the session.
        """
        agent = self._session.agent
        if isinstance(agent, ChecksInput):
            try:
                agent.check_observation(observation)
            except InvalidExperience as refusal:
                return refusal
        self._session.fail("policy", error)
        raise SessionFailed("policy", error) from error
