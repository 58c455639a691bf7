"""The promises of an environment, as checks to run on your own: Gymnasium's contract, plain or async.

The suite steps environments with random actions, on its own event loop: call it where no event loop runs.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, cast

import anyio
import numpy as np
from gymnasium import spaces

from stoker.envs.results import close_of, extras_of, owned, settled
from stoker.plain import as_float, shown
from stoker.testing.contract import Contract, expect, expect_numbers, expect_same, with_opened


class EnvSuite(NamedTuple):
    """What the checks of an environment share.

    Attributes:
        make_env: makes an environment, plain or async; the function may be async, too.
        steps: the number of steps to check; more than an episode has.
        sample_action: draws an action; None: draw from the environment's ``action_space``.
    """

    make_env: Callable[[], Any]
    steps: int = 200
    sample_action: Callable[[np.random.Generator], Any] | None = None


check_env = Contract(EnvSuite)
"""Checks every promise of an environment that actors rely on; ``EnvSuite`` lists the arguments."""


# Playing ------------------------------------------------------------------------------------------


class _Play:
    """An environment, and the seeded random actions that it is stepped with."""

    def __init__(self, env: Any, suite: EnvSuite) -> None:
        self.env = env
        self.steps = suite.steps
        self._sample_action = suite.sample_action
        self._generator = np.random.default_rng(0)

    def action(self) -> Any:
        if self._sample_action is not None:
            return self._sample_action(self._generator)
        space: Any = getattr(self.env, "action_space", None)
        expected = "a gymnasium.Space to draw an action from, or sample_action for the suite"
        expect(isinstance(space, spaces.Space), f"action_space is {shown(space)}", expected)
        space.seed(int(self._generator.integers(1 << 31)))
        return space.sample()

    async def reset(self, seed: int | None) -> Any:
        return await settled(self.env.reset(seed=seed))

    async def step(self) -> Any:
        return await settled(self.env.step(self.action()))

    async def trajectory(self, seed: int, between: _Play | None = None) -> list[Any]:
        """A copy of a seeded episode of at most 30 steps; ``between`` is stepped in turn with it."""
        self._generator = np.random.default_rng(seed)
        seen = [owned((await self.reset(seed))[0])]
        if between is not None:
            await between.reset(seed + 1)
        for _ in range(min(30, self.steps)):
            observation, reward, terminated, truncated, _ = await self.step()
            seen.append(owned((observation, reward, bool(terminated), bool(truncated))))
            if terminated or truncated:
                break
            if between is not None:
                *_, terminated, truncated, _ = await between.step()
                if terminated or truncated:
                    await between.reset(None)
        return seen


@contextlib.asynccontextmanager
async def _opened(suite: EnvSuite) -> AsyncGenerator[_Play]:
    env = await settled(suite.make_env())
    try:
        yield _Play(env, suite)
    finally:
        await settled(close_of(env))


def _promise(check: Callable[..., Awaitable[None]]) -> Callable[[EnvSuite], None]:
    """Add a promise to the contract: the check gets a new environment for each of its parameters."""
    return check_env.promise(with_opened(_opened, check))


# Promises -----------------------------------------------------------------------------------------


@_promise
async def has_spaces(play: _Play) -> None:
    """The spaces, if there are any, are Gymnasium's, and there is a way to draw an action."""
    for name in ("observation_space", "action_space"):
        space = getattr(play.env, name, None)
        is_kept = space is None or isinstance(space, spaces.Space)
        expect(is_kept, f"{name} is {shown(space)}", "a gymnasium.Space, or none")
    play.action()


@_promise
async def reset_and_step_give_gymnasiums_values(play: _Play) -> None:
    """Reset gives observation and info; step gives observation, reward, terminated, truncated and info."""
    is_over = True
    for number in range(1, play.steps + 1):
        if is_over:
            reset = await play.reset(3 if number == 1 else None)
            _checked(play, f"reset before step {number}", reset, 2)
        call = f"step {number}"
        _, reward, terminated, truncated, _ = _checked(play, call, await play.step(), 5)
        value = as_float(reward)
        is_kept = value is not None and math.isfinite(value)
        expect(is_kept, f"{call} gave {shown(reward)}", "a finite float as the reward")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            expect(isinstance(flag, bool | np.bool_), f"{call} gave {name}={shown(flag)}", "a bool")
        is_over = bool(terminated or truncated)


async def each_environment_is_a_new_one(play: Any, other: Any) -> None:
    """Each call of the factory makes a new environment, also below its wrappers."""
    one, two = (getattr(each.env, "unwrapped", each.env) for each in (play, other))
    expect(one is not two, f"the same {shown(one)} twice", "two objects")


async def seeded_resets_repeat(play: Any, other: Any) -> None:
    """The same seed and actions give the same episode, in one environment and in another."""
    first = await play.trajectory(7)
    for where, each in (("in the same environment", play), ("in another one", other)):
        expect_same(first, await each.trajectory(7), f"{where}, the episode of seed 7")


async def environments_share_nothing(play: Any, other: Any) -> None:
    """Stepping one environment does not change another."""
    alone = await play.trajectory(7)
    expect_same(alone, await play.trajectory(7, between=other), "with another stepped between, episode")


for _shared in (each_environment_is_a_new_one, seeded_resets_repeat, environments_share_nothing):
    _promise(_shared)


@_promise
async def episodes_follow_one_another(play: _Play) -> None:
    """Reset begins an episode after the end of one, and also in the middle of one."""
    for _ in range(3):
        await play.reset(None)
        for _ in range(play.steps):
            _, _, terminated, truncated, _ = await play.step()
            if terminated or truncated:
                break
    for _ in range(3):  # ended after one step
        await play.reset(None)
        await play.step()


@_promise
async def episode_extras_are_finite_numbers(play: _Play) -> None:
    """The extras of an episode are finite numbers by name."""
    await play.reset(3)
    await play.step()
    expect_numbers(await settled(extras_of(play.env)))


@_promise
async def recovers_from_a_cancelled_step(play: _Play) -> None:
    """After a cancelled step, reset begins an episode as usual."""
    expected = await play.trajectory(7)
    await play.reset(None)
    with anyio.CancelScope() as scope:
        scope.cancel()  # takes effect at the step's first await; a plain step has none
        await play.step()
    expect_same(expected, await play.trajectory(7), "after a cancelled step, episode")


async def closes_twice(play: Any) -> None:
    """Close may be called again."""
    await play.reset(3)
    for _ in range(2):
        await settled(close_of(play.env))


_promise(closes_twice)


def _checked(play: _Play, call: str, result: Any, count: int) -> tuple[Any, ...]:
    """The values of a reset or step: the first is an observation of the space, the last a mapping."""
    values = cast("tuple[Any, ...]", result if isinstance(result, tuple) else ())
    is_kept = len(values) == count and isinstance(values[-1], Mapping)
    expect(is_kept, f"{call} gave {shown(result)}", f"{count} values, the last a mapping")
    observation, space = values[0], getattr(play.env, "observation_space", None)
    seen = f"{call} gave {getattr(observation, 'dtype', '')}{[*getattr(observation, 'shape', ())]}"
    expect(space is None or observation in space, f"{seen}: {shown(observation)}", str(space))
    return values
