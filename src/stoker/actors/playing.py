"""One episode of an environment, and the loop of one actor over many.

An environment that raises costs one episode: it is closed and made again. What the session or the agent
raises is not the environment's fault and ends the actor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

import anyio
import numpy as np

from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit
from stoker.actors.report import ActorReport
from stoker.envs import PlayedEnv, Stepping, episode_seed, make_played
from stoker.errors import ConfigError, InvalidExperience
from stoker.session import TrainingSession
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["Actor", "EnvFactory", "close_played", "open_played", "play_episode"]

logger = logging.getLogger("stoker.actors")
T = TypeVar("T")

EnvFactory = Callable[[], Any]
"""Makes one environment, plain or async; may itself be async. Called again after a failure."""


class Listener(Protocol):
    """What happens in an episode, as it happens."""

    async def act(self, observation: Any, /) -> Any:
        """Choose the action."""
        ...

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Take in what came of it."""
        ...


async def play_episode(
    env: PlayedEnv, listener: Listener, seed: int | None, goes_on: Callable[[], bool]
) -> EpisodeRecord | None:
    """Play one episode.

    Args:
        env: the environment.
        listener: chooses actions and is told the outcome.
        seed: for ``reset``.
        goes_on: asked before each step.

    Returns:
        The record, or None when the episode was given up because ``goes_on`` said so.

    Raises:
        EnvironmentFailed: The environment raised, or gave what the agent cannot take.
    """
    first, _ = await _of_env(env.reset(seed))
    observation = _own(first)
    total_reward, steps = 0.0, 0
    while goes_on():
        try:
            action = await listener.act(observation)
            seen, reward, terminated, truncated, _ = await _of_env(env.step(action))
            next_observation = _own(seen)
            reward, status = _outcome(reward, terminated, truncated)
            await listener.observe(observation, action, reward, next_observation, status)
            total_reward += reward
            steps += 1
            observation = next_observation
            if status.is_done:
                extras = await _of_env(env.episode_extras())
                return check_record(EpisodeRecord(total_reward, steps, status, extras))
        except InvalidExperience as error:  # a NaN reward or extra, an observation of another shape
            raise EnvironmentFailed from error
    return None


def _own(observation: Any) -> Any:
    """The observation in memory of its own: an environment may write its next one into the same array."""
    match observation:
        case np.ndarray():
            return cast("Any", observation).copy()
        case dict():
            return {key: _own(part) for key, part in cast("dict[Any, Any]", observation).items()}
        case tuple():
            return tuple(_own(part) for part in cast("tuple[Any, ...]", observation))
        case _:
            return observation


def _outcome(reward: Any, terminated: Any, truncated: Any) -> tuple[float, EpisodeStatus]:
    try:
        return float(reward), EpisodeStatus.of(terminated, truncated)
    except (TypeError, ValueError) as error:  # a reward that is no number, a flag that is an array
        raise EnvironmentFailed from error


async def open_played(factory: EnvFactory, stepping: Stepping, name: str) -> PlayedEnv:
    """Make an environment.

    Raises:
        EnvironmentFailed: The factory raised.
        ConfigError: What it made cannot be played.
    """
    return await _of_env(make_played(factory, stepping, name))


async def close_played(env: PlayedEnv, name: str) -> None:
    """Close an environment. What it raises is told and no more: no episode is left that it could cost."""
    try:
        await env.close()
    except Exception:
        logger.warning("%s: closing it failed", name, exc_info=True)


async def _of_env(call: Awaitable[T]) -> T:
    """What the environment returns; what it raises is marked as its own fault."""
    try:
        return await call
    except ConfigError:  # not an environment as stoker understands it: trying again will not help
        raise
    except asyncio.CancelledError as error:  # its own, unless somebody cancelled this very task
        if (task := _current_task()) is not None and task.cancelling():
            raise
        raise EnvironmentFailed from error
    except Exception as error:
        raise EnvironmentFailed from error


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # trio
        return None


class Actor:
    """Plays an environment on a session until the session is done.

    Args:
        session: takes the experiences and chooses the actions.
        factory: makes the environment.
        actor_id: the stream of episodes that this actor is.
        stepping: where plain environments are stepped.
        seed: episodes are seeded from it, the actor and the episode's number; None: not at all.
        limit: how many failures it puts up with.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        actor_id: ActorId,
        *,
        stepping: Stepping = "auto",
        seed: int | None = None,
        limit: FailureLimit | None = None,
    ) -> None:
        self.report = ActorReport(actor_id)
        self._session = session
        self._factory = factory
        self._actor_id = actor_id
        self._stepping: Stepping = stepping
        self._seed = seed
        self._failures = FailureCount(actor_id, limit or FailureLimit())

    async def run(self) -> None:
        """Play episode after episode.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played.
            SessionError: The session does not run.
        """
        self._episode = self._session.actor_episodes(self._actor_id)
        name = f"env of actor {self._actor_id}"
        while not self._session.is_done:
            env: PlayedEnv | None = None
            try:
                env = await open_played(self._factory, self._stepping, name)
                await self._play(env)
            except EnvironmentFailed as failure:
                await self._recover(failure.__cause__ or failure)
            finally:
                if env is not None:
                    await close_played(env, name)

    async def act(self, observation: Any, /) -> Any:
        """Ask the session."""
        return await self._session.act(observation, actor_id=self._actor_id)

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Tell the session."""
        experience = Experience(observation, action, reward, next_observation, status, self._actor_id)
        await self._session.observe(experience)
        self.report.steps += 1

    async def _play(self, env: PlayedEnv) -> None:
        session, report = self._session, self.report
        earlier_s = report.env_s
        while not session.is_done:
            number, self._episode = self._episode, self._episode + 1
            seed = None if self._seed is None else episode_seed(self._seed, self._actor_id, number)
            await session.on_episode_start(self._actor_id)
            try:
                record = await play_episode(env, self, seed, lambda: not session.is_done)
            finally:
                report.env_s = earlier_s + env.busy_s
            if record is not None:
                report.episodes += 1
                await session.on_episode(
                    record.total_reward, record.length, record.status, record.extras, self._actor_id
                )

    async def _recover(self, cause: BaseException) -> None:
        report = self.report
        report.restarts += 1
        report.last_error = f"{type(cause).__name__}: {cause}"
        delay_s = self._failures.add(cause)
        logger.warning(
            "actor %r: its environment failed (%s); that episode is lost, a new one is made in %.1f s",
            self._actor_id,
            report.last_error,
            delay_s,
        )
        await anyio.sleep(delay_s)
