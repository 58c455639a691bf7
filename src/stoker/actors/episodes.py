"""One episode of an environment, wherever it is played, and how often the environment may fail.

An error of the environment is raised as ``EnvironmentFailed``, with the error as its cause; an error of the
listener is raised as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from stoker.envs import PlayedEnv, Stepping, make_played
from stoker.envs.misfits import misfit
from stoker.envs.rounds import EPISODE_EXTRAS, Round, last_info
from stoker.errors import ActorFailed, ConfigError, InvalidExperience, UnexpectedExit
from stoker.nested import is_same
from stoker.plain import shown
from stoker.raising import described
from stoker.settings import Count, NonNegative, Positive, Settings
from stoker.stats import EpisodeRecord, check_record
from stoker.threads import on_asyncio
from stoker.types import ActorId, EpisodeStatus, Experience

_logger = logging.getLogger("stoker.actors")
T = TypeVar("T")

EnvFactory = Callable[[], Any]
"""Makes one environment, plain or async; may itself be async. Called again after a failure."""


def check_factory(factory: object) -> None:
    """Refuse an environment, or the name of one, in place of what makes it.

    Raises:
        ConfigError: It cannot be called.
    """
    if not callable(factory):
        raise ConfigError(
            f"factory={shown(factory)}: give a function that makes an environment, such as "
            "lambda: make_gym('CartPole-v1')"
        )


# Failures -------------------------------------------------------------------------------------------


class EnvironmentFailed(Exception):
    """An environment raised ``__cause__``; never leaves this package."""


class PolicyFailed(Exception):
    """A copy of the policy raised ``__cause__`` on the observation in ``args``; never leaves this package."""


class FailureLimit(Settings, frozen=True, kw_only=True):
    """How many failures of its environment an actor survives.

    Attributes:
        failures: this many failures within ``window_s`` end the session; 1: the first one does.
        window_s: the time over which failures count, in seconds.
        first_delay_s: the pause before the environment is made again; doubled with each failure that
            counts, up to ``longest_delay_s``: a service that is down needs time to restart.
        longest_delay_s: the longest pause.
    """

    failures: Count = 5
    window_s: Positive = 60.0
    first_delay_s: NonNegative = 0.1
    longest_delay_s: NonNegative = 10.0


class FailureCount:
    """Counts one actor's failures against its limit.

    Args:
        actor_id: the actor.
        limit: how many failures are allowed.
        clock: the time in seconds; monotonic.
    """

    def __init__(
        self, actor_id: ActorId, limit: FailureLimit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._actor_id = actor_id
        self._limit = limit
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self, cause: BaseException) -> float:
        """Count a failure and return how many seconds to wait before the next try.

        Raises:
            ActorFailed: The limit is reached, or the environment tried to end the process, which would only
                happen again.
        """
        now, limit = self._clock(), self._limit
        self._times.append(now)
        while now - self._times[0] > limit.window_s:
            self._times.popleft()
        count = 1 if isinstance(cause, UnexpectedExit) else len(self._times)
        if count >= limit.failures or isinstance(cause, UnexpectedExit):
            raise ActorFailed(self._actor_id, count, limit.window_s, cause)
        return min(limit.longest_delay_s, limit.first_delay_s * 2 ** (count - 1))


# One environment ------------------------------------------------------------------------------------


class EnvCalls:
    """Awaits calls of an environment, and knows since when one has been running."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When the running call began, in monotonic seconds; None: no call runs."""

    async def __call__(self, call: Awaitable[T]) -> T:
        """Await a call.

        Raises:
            EnvironmentFailed: The call raised.
            ConfigError: The environment cannot be played, and a retry would not help.
        """
        self.since = time.monotonic()
        try:
            return await call
        except ConfigError:
            raise
        except asyncio.CancelledError as error:  # raised by the environment, unless this task was cancelled
            if on_asyncio() and (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise EnvironmentFailed from error
        except Exception as error:
            raise EnvironmentFailed from error
        finally:
            self.since = None


@contextlib.asynccontextmanager
async def opened_env(
    factory: EnvFactory,
    stepping: Stepping,
    name: str,
    calls: EnvCalls | None = None,
    spaces: tuple[Any, Any] | None = None,
) -> AsyncGenerator[PlayedEnv]:
    """Make an environment, and close it at the end of the block.

    An error in closing is logged and not raised: no episode depends on the environment any more.

    Args:
        factory: makes it.
        stepping: where a plain environment is stepped.
        name: names it in messages, and its thread.
        calls: awaits the factory.
        spaces: those of the agent that plays it, if they are known.

    Raises:
        EnvironmentFailed: The factory raised.
        ConfigError: The factory made something that cannot be played; or it failed in the block, and has
            other spaces than the agent.
    """
    env = await (calls or EnvCalls())(make_played(factory, stepping, name))
    try:
        yield env
    except (EnvironmentFailed, PolicyFailed, InvalidExperience) as error:
        found = None if spaces is None else misfit((env.observation_space, env.action_space), spaces)
        if found is not None:
            raise ConfigError(f"{name} failed ({described(error.__cause__ or error)}): {found}") from error
        raise
    finally:
        try:
            await env.close()
        except Exception:
            _logger.warning("%s: closing it failed", name, exc_info=True)


# One episode ----------------------------------------------------------------------------------------


Choice = tuple[Any, Any, int | None]
"""An action, its policy extras, and the version of the policy that chose it, if known."""


class Listener(Protocol):
    """Chooses the actions of an episode and observes their outcomes."""

    async def may_step(self) -> bool:
        """Called before each step; False abandons the episode."""
        ...

    async def act(self, observation: Any, /) -> Choice:
        """Choose the action."""
        ...

    async def observe(self, step: Experience, /) -> None:
        """Observe the outcome of the action."""
        ...


async def play_episode(
    env: PlayedEnv,
    listener: Listener,
    actor_id: ActorId,
    seed: int | None,
    played: Sequence[Experience] = (),
    calls: EnvCalls | None = None,
    max_steps: int | None = None,
) -> EpisodeRecord | None:
    """Play one episode, or continue one.

    The record's extras are the environment's ``episode_extras`` and, if the last ``info`` holds Gymnasium's
    ``is_success``, that as 0.0 or 1.0; the environment's own value wins.

    Args:
        env: the environment.
        listener: chooses actions and observes their outcomes.
        actor_id: the actor of the experiences.
        seed: for ``reset``.
        played: the steps of this episode before a resume: they are repeated without the listener.
        calls: awaits the calls of the environment.
        max_steps: the episode is truncated after this many steps; None: the environment ends it.

    Returns:
        The record, or None if the listener abandoned the episode.

    Raises:
        EnvironmentFailed: The environment raised, or gave a value that the agent refuses.
        ConfigError: The repeated steps had other outcomes: the environment is not deterministic.
    """
    call = calls or EnvCalls()
    observation, info = await call(env.reset(seed))
    total_reward, steps, status = 0.0, 0, EpisodeStatus.CONTINUING
    for steps, step in enumerate(played, 1):
        observation, reward, terminated, truncated, info = await call(env.step(step.action))
        status = EpisodeStatus.of(terminated, truncated)
        if (reward, status) != (step.reward, step.status) or not is_same(observation, step.next_observation):
            raise ConfigError(
                f"actor {actor_id!r}: step {steps} of {len(played)} of its episode had another outcome "
                "when it was repeated: lockstep can resume only environments that are deterministic given "
                "their seed and actions; resume without lockstep"
            )
        total_reward += reward
    try:
        while not status.is_done:
            if not await listener.may_step():
                return None
            action, extras, version = await listener.act(observation)
            next_observation, reward, terminated, truncated, info = await call(env.step(action))
            steps += 1
            status = EpisodeStatus.of(terminated, truncated or steps == max_steps)
            await listener.observe(
                Experience(observation, action, reward, next_observation, status, actor_id, extras, version)
            )
            total_reward += reward
            observation = next_observation
        extras = {**_success(info), **await call(env.episode_extras())}
        return check_record(EpisodeRecord(total_reward, steps, status, extras))
    except InvalidExperience as error:  # a NaN reward or extra, an observation of another shape
        error.args = (f"after {steps} steps of its episode: {error}",)
        raise EnvironmentFailed from error


def extras_in(info: Mapping[str, Any]) -> dict[str, float]:
    """The extras of an episode from its last ``info``, as ``play_episode`` has them: the environment's win.

    Raises:
        ConfigError: The environment's are not a mapping.
    """
    (own,) = info.get(EPISODE_EXTRAS, ({},))
    if not isinstance(own, Mapping):
        raise ConfigError(f"episode_extras returned {shown(own)}: give a mapping of names to numbers")
    return {**_success(info), **cast("Mapping[str, float]", own)}


def _success(info: Any) -> dict[str, float]:
    """The ``is_success`` of a last ``info``, as an extra."""
    value = cast("Mapping[str, Any]", info).get("is_success") if isinstance(info, Mapping) else None
    return {"is_success": float(cast("float", value))} if isinstance(value, Real | np.bool_) else {}


# The episodes of a vector environment ---------------------------------------------------------------


class EpisodeTally:
    """Counts the steps and rewards of the running episodes of a vector environment.

    Args:
        n: the number of sub-environments.
        max_steps: truncates an episode after this many steps; None: only its environment ends it.
    """

    def __init__(self, n: int, max_steps: int | None = None) -> None:
        self._max_steps = max_steps
        self._columns = np.zeros((3, n))  # of each: its steps, and the steps and the reward of its episode

    @property
    def steps(self) -> list[int]:
        """How many steps each has done, over all of its episodes."""
        return [int(steps) for steps in self._columns[0]]

    def grow(self, n: int) -> None:
        """Count at least that many sub-environments from now on."""
        columns = self._columns
        self._columns = np.pad(columns, ((0, 0), (0, max(0, n - columns.shape[1]))))

    def begin(self, index: int) -> None:
        """Begin an episode of a sub-environment."""
        self._columns[1:, index] = 0.0

    def add(
        self, now: Round, info: Mapping[str, Any], among: Collection[int] | None = None
    ) -> list[tuple[int, EpisodeRecord]]:
        """Count a step, and return the records of the episodes that it ended, with their indices in order.

        Args:
            now: the round.
            info: that of the step.
            among: the sub-environments whose records are wanted; None: all.

        Raises:
            InvalidExperience: An extra is not a finite number.
        """
        if (done := now.outcome) is None:
            return []
        columns, acted = self._columns, done.acted
        where: Any = slice(None) if done.where is None else done.where
        columns[:2, where] += 1.0
        columns[2, where] += done.rewards
        rows = done.ended()
        is_over = {*rows}
        if self._max_steps is not None:
            rows = sorted(is_over.union((columns[1, where] >= self._max_steps).nonzero()[0].tolist()))
        found: list[tuple[int, EpisodeRecord]] = []
        for row in rows:
            index = acted[row]
            if among is not None and index not in among:
                continue
            _, steps, reward = columns[:, index].tolist()
            status = EpisodeStatus.of(bool(done.terminated[row]), truncated=True)
            extras = extras_in(last_info(info, index, is_over=row in is_over))
            found.append((index, check_record(EpisodeRecord(reward, int(steps), status, extras))))
        return found
