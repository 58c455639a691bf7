"""One episode of an environment, wherever it is played: told step by step to a listener.

What the environment does wrong comes out as ``EnvironmentFailed``, with that as its cause; what the listener
raises comes out as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from stoker.actors.failures import EnvironmentFailed
from stoker.envs import PlayedEnv, Stepping, make_played
from stoker.errors import ConfigError, InvalidExperience
from stoker.stats import EpisodeRecord, check_record
from stoker.types import EpisodeStatus, Experience

__all__ = ["EnvFactory", "Listener", "close_played", "open_played", "play_episode"]

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

    The record's extras are what the environment has to say of the episode (``episode_extras``) and, where the
    last step's ``info`` holds Gymnasium's ``is_success``, that as 0.0 or 1.0; the environment's own wins.

    Args:
        env: the environment.
        listener: chooses actions and observes their outcomes.
        seed: for ``reset``.
        played: the steps of this episode that were done and told before: done again, not told.

    Returns:
        The record, or None when the episode was given up because the listener said so.

    Raises:
        EnvironmentFailed: The environment raised, or gave what the agent cannot take.
        ConfigError: Doing the steps again led elsewhere: the environment is not deterministic.
    """
    observation, info = await of_env(env.reset(seed))
    total_reward, steps = 0.0, len(played)
    for number, step in enumerate(played):
        observation, reward, terminated, truncated, info = await of_env(env.step(step.action))
        outcome = (reward, EpisodeStatus.of(terminated, truncated))
        if outcome != (step.reward, step.status) or not _equal(observation, step.next_observation):
            raise ConfigError(
                f"actor {step.actor_id!r}: doing step {number + 1} of {len(played)} of its episode again led "
                "elsewhere than before: lockstep can bring back only environments that are deterministic "
                "given their seed and actions; resume without lockstep"
            )
        total_reward += step.reward
    if played and played[-1].status.is_done:
        extras = {**_success(info), **await of_env(env.episode_extras())}
        return check_record(EpisodeRecord(total_reward, steps, played[-1].status, extras))
    while await listener.goes_on():
        try:
            action = await listener.act(observation)
            next_observation, reward, terminated, truncated, info = await of_env(env.step(action))
            status = EpisodeStatus.of(terminated, truncated)
            await listener.observe(observation, action, reward, next_observation, status)
            total_reward += reward
            steps += 1
            observation = next_observation
            if status.is_done:
                extras = {**_success(info), **await of_env(env.episode_extras())}
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


def _success(info: Any) -> dict[str, float]:
    """What the last step's info says of success, as an extra."""
    value = cast("Mapping[str, Any]", info).get("is_success") if isinstance(info, Mapping) else None
    return {"is_success": float(cast("float", value))} if isinstance(value, Real | np.bool_) else {}


async def open_played(factory: EnvFactory, stepping: Stepping, name: str) -> PlayedEnv:
    """Make an environment.

    Raises:
        EnvironmentFailed: The factory raised.
        ConfigError: What it made cannot be played.
    """
    return await of_env(make_played(factory, stepping, name))


async def close_played(env: PlayedEnv, name: str) -> None:
    """Close an environment. An error is logged and not raised: no episode depends on it any more."""
    try:
        await env.close()
    except Exception:
        logger.warning("%s: closing it failed", name, exc_info=True)


async def of_env(call: Awaitable[T]) -> T:
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
