"""One episode of an environment, and the loop of one actor over many.

An environment that raises costs one episode: it is closed and made again. What the session or the agent
raises is not the environment's fault and ends the actor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import anyio
import numpy as np

from stoker.actors.failures import EnvironmentFailed, FailureCount, FailureLimit
from stoker.actors.report import ActorReport
from stoker.actors.turns import Turns
from stoker.envs import PlayedEnv, Stepping, episode_seed, make_played
from stoker.errors import ConfigError, InvalidExperience, Stalled
from stoker.session import RunningEpisode, TrainingSession
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActorId, EpisodeStatus, Experience

__all__ = ["Actor", "EnvFactory", "close_played", "open_played", "play_episode"]

logger = logging.getLogger("stoker.actors")
T = TypeVar("T")

EnvFactory = Callable[[], Any]
"""Makes one environment, plain or async; may itself be async. Called again after a failure."""


class Listener(Protocol):
    """What happens in an episode, as it happens."""

    async def goes_on(self) -> bool:
        """Asked before each step: whether to do it, or to give the episode up."""
        ...

    async def act(self, observation: Any, /) -> Any:
        """Choose the action."""
        ...

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Take in what came of it."""
        ...


async def play_episode(
    env: PlayedEnv, listener: Listener, seed: int | None, played: Sequence[Experience] = ()
) -> EpisodeRecord | None:
    """Play one episode, or go on with one.

    Args:
        env: the environment.
        listener: chooses actions and is told the outcome.
        seed: for ``reset``.
        played: the steps of this episode that were done and told before: done again, not told.

    Returns:
        The record, or None when the episode was given up because the listener said so.

    Raises:
        EnvironmentFailed: The environment raised, or gave what the agent cannot take.
        ConfigError: Doing the steps again led elsewhere: the environment is not deterministic.
    """
    first, _ = await _of_env(env.reset(seed))
    observation = _own(first)
    total_reward, steps = 0.0, len(played)
    for number, step in enumerate(played):
        seen, reward, terminated, truncated, _ = await _of_env(env.step(step.action))
        observation = _own(seen)
        outcome = _outcome(reward, terminated, truncated)
        if outcome != (step.reward, step.status) or not _equal(observation, step.next_observation):
            raise ConfigError(
                f"actor {step.actor_id!r}: doing step {number + 1} of {len(played)} of its episode again led "
                "elsewhere than before: lockstep can bring back only environments that are deterministic "
                "given their seed and actions; resume without lockstep"
            )
        total_reward += step.reward
    if played and played[-1].status.is_done:
        extras = await _of_env(env.episode_extras())
        return check_record(EpisodeRecord(total_reward, steps, played[-1].status, extras))
    while await listener.goes_on():
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


def _equal(one: Any, other: Any) -> bool:
    """Whether two observations are the same, to the bit."""
    match one:
        case dict():
            mine = cast("dict[Any, Any]", one)
            return isinstance(other, dict) and all(_equal(mine[key], other.get(key)) for key in mine)  # pyright: ignore
        case tuple() | list():
            parts = cast("tuple[Any, ...]", one)
            return len(parts) == len(other) and all(map(_equal, parts, other))
        case _:
            return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")


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
        running: the episode that it goes on with; None: it begins one.
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
        running: RunningEpisode | None = None,
    ) -> None:
        self.report = ActorReport(actor_id)
        self._session = session
        self._factory = factory
        self._actor_id = actor_id
        self._stepping: Stepping = stepping
        self._seed = seed
        self._failures = FailureCount(actor_id, limit or FailureLimit())
        self._running = running
        self._turns: Turns | None = None
        self._place = 0
        self.in_env_since: float | None = None
        """When its environment was last asked for something that has not come, in monotonic seconds."""
        self._life = anyio.CancelScope()  # of the present environment
        self._stuck: Stalled | None = None

    async def run(self, turns: Turns | None = None, place: int = 0) -> None:
        """Play episode after episode.

        Args:
            turns: steps are done only in turn, if given.
            place: this actor's place among those who take turns.

        Raises:
            ActorFailed: The environment failed too often.
            ConfigError: It is not an environment that can be played.
            SessionError: The session does not run.
        """
        self._turns, self._place = turns, place
        self._episode = self._session.actor_episodes(self._actor_id)
        try:
            await self._run()
        finally:
            if turns is not None:
                turns.leave(place)

    def give_up(self) -> None:
        """Let go of what it plays: nobody waits for it any more."""
        self._life.cancel()

    def restart(self, stuck: Stalled) -> None:
        """Give up on the environment, which is stuck: it counts as a failure, and another one is made."""
        self._stuck = stuck
        self._life.cancel()

    async def _run(self) -> None:
        name = f"env of actor {self._actor_id}"
        while await self.goes_on():
            env: PlayedEnv | None = None
            self.in_env_since = time.monotonic()
            try:
                with anyio.CancelScope() as self._life:
                    env = await open_played(self._factory, self._stepping, name)
                    await self._play(env)
                self._raise_if_stuck()
            except EnvironmentFailed as failure:
                self._pass_on()
                await self._recover(failure.__cause__ or failure)
            finally:
                self.in_env_since = None
                if env is not None:
                    await close_played(env, name)

    def _raise_if_stuck(self) -> None:
        if self._stuck is not None:
            stuck, self._stuck = self._stuck, None
            raise EnvironmentFailed from stuck

    async def goes_on(self) -> bool:
        """Whether to do a step; with turns, when it is this actor's turn."""
        self.in_env_since = None
        if self._turns is not None:
            await self._turns.take(self._place)
        return not self._session.is_done

    async def act(self, observation: Any, /) -> Any:
        """Ask the session."""
        action = await self._session.act(observation, actor_id=self._actor_id)
        self.in_env_since = time.monotonic()
        return action

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        """Tell the session."""
        self.in_env_since = None
        experience = Experience(observation, action, reward, next_observation, status, self._actor_id)
        await self._session.observe(experience)
        self.report.steps += 1
        if status.is_done:
            self.in_env_since = time.monotonic()  # it is asked what it has to say of the episode
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._turns is not None:
            self._turns.pass_on(self._place)

    async def _play(self, env: PlayedEnv) -> None:
        session, report = self._session, self.report
        earlier_s = report.env_s
        while await self.goes_on():
            running, self._running = self._running, None
            number, self._episode = self._episode, self._episode + 1
            if running is None:
                seed = None if self._seed is None else episode_seed(self._seed, self._actor_id, number)
                await session.on_episode_start(self._actor_id, seed)
                running = RunningEpisode(seed, ())
            self.in_env_since = time.monotonic()
            try:
                record = await play_episode(env, self, running.seed, running.steps)
            finally:
                self.in_env_since = None
                report.env_s = earlier_s + env.busy_s
            if record is not None:
                report.episodes += 1
                await session.on_episode(
                    record.total_reward, record.length, record.status, record.extras, self._actor_id
                )
                self._pass_on()

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
