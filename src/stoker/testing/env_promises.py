"""The promises of an environment, as checks to run on your own: Gymnasium's contract, plain or async.

The factory makes the environments; the suite steps them with random actions and closes them, on its own event
loop. Call it where no event loop runs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, wraps
from typing import Any, NamedTuple, cast

import anyio
import numpy as np
from gymnasium import spaces

from stoker.envs.owned import owned
from stoker.envs.results import close_of, extras_of, settled
from stoker.testing.contract import Check, Contract, ContractViolation, brief, expect_same, run_checks

__all__ = ["check_env", "env_contract"]

_CONTRACT = Contract()


class _Suite(NamedTuple):
    """The arguments of ``env_contract``."""

    factory: Callable[[], Any]
    steps: int
    sample_action: Callable[[np.random.Generator], Any] | None


def check_env(
    make_env: Callable[[], Any],
    *,
    steps: int = 200,
    sample_action: Callable[[np.random.Generator], Any] | None = None,
) -> None:
    """Check every promise of an environment that actors rely on.

    Args:
        make_env: makes an environment, plain or async; the function may be async, too.
        steps: the number of steps to check; more than an episode has.
        sample_action: draws an action; None: draw from the environment's ``action_space``.

    Raises:
        ContractViolation: It names the broken promise, what was seen, and what was expected.
    """
    run_checks(env_contract(make_env, steps=steps, sample_action=sample_action))


def env_contract(
    make_env: Callable[[], Any],
    *,
    steps: int = 200,
    sample_action: Callable[[np.random.Generator], Any] | None = None,
) -> list[Check]:
    """The checks of ``check_env`` as a list, for a test framework."""
    return _CONTRACT.checks(_Suite(make_env, steps, sample_action))


# Playing ------------------------------------------------------------------------------------------


class _Play:
    """An environment, and the seeded random actions that it is stepped with."""

    def __init__(self, env: Any, suite: _Suite) -> None:
        self.env = env
        self.steps = suite.steps
        self._sample_action = suite.sample_action
        self._generator = np.random.default_rng(0)

    def action(self) -> Any:
        if self._sample_action is not None:
            return self._sample_action(self._generator)
        space: Any = getattr(self.env, "action_space", None)
        if not isinstance(space, spaces.Space):
            raise ContractViolation(
                "there is a way to draw an action",
                f"action_space is {brief(space)}",
                "a gymnasium.Space, or sample_action for the suite",
            )
        actions = cast("spaces.Space[Any]", space)
        actions.seed(int(self._generator.integers(1 << 31)))
        return actions.sample()

    async def reset(self, seed: int | None) -> Any:
        return await settled(self.env.reset(seed=seed))

    async def step(self) -> Any:
        return await settled(self.env.step(self.action()))

    async def each_call(self, check: Callable[[str, Any], None]) -> None:
        """Check the result of each reset and step, given with the name of the call."""
        is_over = True
        for number in range(1, self.steps + 1):
            if is_over:
                check(f"reset before step {number}", await self.reset(3 if number == 1 else None))
            values = await self.step()
            check(f"step {number}", values)
            is_over = bool(values[2]) or bool(values[3])

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


def _promise(n_envs: int) -> Callable[[Callable[..., Awaitable[None]]], Callable[[_Suite], None]]:
    """Add a promise to the contract: the check gets this number of new environments."""

    def register(check: Callable[..., Awaitable[None]]) -> Callable[[_Suite], None]:
        @wraps(check)
        def run(suite: _Suite) -> None:
            anyio.run(partial(_play, suite, n_envs, check))

        return _CONTRACT.promise(run)

    return register


async def _play(suite: _Suite, n_envs: int, check: Callable[..., Awaitable[None]]) -> None:
    plays: list[_Play] = []
    try:
        while len(plays) < n_envs:
            plays.append(_Play(await settled(suite.factory()), suite))
        await check(*plays)
    finally:
        for play in plays:
            await settled(close_of(play.env))


# Promises -----------------------------------------------------------------------------------------


@_promise(n_envs=1)
async def has_spaces(play: _Play) -> None:
    """The spaces, if there are any, are Gymnasium's, and there is a way to draw an action."""
    for name in ("observation_space", "action_space"):
        space = getattr(play.env, name, None)
        if space is not None and not isinstance(space, spaces.Space):
            raise ContractViolation(f"{name} is a space", brief(space), "a gymnasium.Space, or none")
    play.action()


@_promise(n_envs=1)
async def reset_gives_observation_and_info(play: _Play) -> None:
    """Reset gives an observation and an info."""
    for seed in (3, None):
        _expect_values(f"reset(seed={seed})", await play.reset(seed), "observation, info")


@_promise(n_envs=1)
async def step_gives_five_values(play: _Play) -> None:
    """Step gives observation, reward, terminated, truncated and info."""
    await play.reset(3)
    _expect_values("step", await play.step(), "observation, reward, terminated, truncated, info")


@_promise(n_envs=1)
async def observations_are_in_their_space(play: _Play) -> None:
    """Each observation of reset and step is in the observation space, if there is one."""
    space: Any = getattr(play.env, "observation_space", None)

    def check(call: str, values: Any) -> None:
        if values[0] not in space:
            raise ContractViolation(
                "observations are in observation_space", f"{call} gave {_layout(values[0])}", str(space)
            )

    if space is not None:
        await play.each_call(check)


@_promise(n_envs=1)
async def rewards_are_finite_numbers(play: _Play) -> None:
    """Each reward is one finite number."""

    def check(call: str, values: Any) -> None:
        if len(values) == 5 and not _is_finite(values[1]):
            raise ContractViolation(
                "rewards are finite numbers", f"{call} gave {brief(values[1])}", "a finite float"
            )

    await play.each_call(check)


@_promise(n_envs=1)
async def flags_are_booleans(play: _Play) -> None:
    """Terminated and truncated are booleans."""

    def check(call: str, values: Any) -> None:
        for name, flag in zip(("terminated", "truncated"), values[2:4], strict=False):
            if not isinstance(flag, bool | np.bool_):
                raise ContractViolation(f"{name} is a boolean", f"{call} gave {brief(flag)}", "a bool")

    await play.each_call(check)


@_promise(n_envs=2)
async def each_environment_is_a_new_one(play: _Play, other: _Play) -> None:
    """Each call of the factory makes a new environment, also below its wrappers."""
    one, two = (getattr(each.env, "unwrapped", each.env) for each in (play, other))
    if one is two:
        raise ContractViolation(
            "each call of the factory makes a new environment", f"the same {brief(one)} twice", "two objects"
        )


@_promise(n_envs=2)
async def seeded_resets_repeat(play: _Play, other: _Play) -> None:
    """The same seed and actions give the same episode, in one environment and in another."""
    first = await play.trajectory(7)
    for where, each in (("in the same environment", play), ("in another one", other)):
        expect_same("reset(seed=7) repeats an episode", first, await each.trajectory(7), f"{where}, episode")


@_promise(n_envs=2)
async def environments_share_nothing(play: _Play, other: _Play) -> None:
    """Stepping one environment does not change another."""
    alone = await play.trajectory(7)
    together = await play.trajectory(7, between=other)
    expect_same("environments are independent", alone, together, "with another stepped between, episode")


@_promise(n_envs=1)
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


@_promise(n_envs=1)
async def episode_extras_are_finite_numbers(play: _Play) -> None:
    """The extras of an episode are finite numbers by name."""
    await play.reset(3)
    await play.step()
    extras: Any = await settled(extras_of(play.env))
    if not isinstance(extras, Mapping):
        raise ContractViolation("episode_extras gives a mapping", brief(extras), "names and numbers")
    for key, value in cast("Mapping[Any, Any]", extras).items():
        if not isinstance(key, str) or not _is_finite(value):
            raise ContractViolation(
                "episode_extras gives finite numbers", f"{key!r}: {brief(value)}", "a str and a float"
            )


@_promise(n_envs=1)
async def recovers_from_a_cancelled_step(play: _Play) -> None:
    """After a cancelled step, reset begins an episode as usual."""
    expected = await play.trajectory(7)
    await play.reset(None)
    with anyio.CancelScope() as scope:
        scope.cancel()  # takes effect at the step's first await; a plain step has none
        await play.step()
    expect_same("reset discards a cancelled step", expected, await play.trajectory(7), "episode")


@_promise(n_envs=1)
async def closes_twice(play: _Play) -> None:
    """Close may be called again."""
    await play.reset(3)
    for _ in range(2):
        await settled(close_of(play.env))


def _expect_values(call: str, result: Any, names: str) -> None:
    values = cast("tuple[Any, ...]", result) if isinstance(result, tuple) else ()
    count = names.count(",") + 1
    if len(values) != count or not isinstance(values[count - 1], Mapping):
        raise ContractViolation(f"{call} gives {count} values", brief(result), f"{names} (a mapping)")


def _is_finite(value: Any) -> bool:
    try:
        is_one = getattr(value, "shape", ()) == () and not isinstance(value, str | bytes)
        return is_one and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _layout(observation: Any) -> str:
    if isinstance(observation, np.ndarray):
        array = cast("np.ndarray[Any, Any]", observation)
        return f"{array.dtype}{list(array.shape)}: {brief(array)}"
    return brief(observation)
