"""What an environment promises, as checks to run on your own: Gymnasium's contract, plain or awaited.

Environments are made by the factory, stepped with random actions and closed again, on an event loop of the
suite's own: call it where none runs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import anyio
import numpy as np
from gymnasium import spaces

from stoker.envs.owned import owned
from stoker.envs.results import close_of, extras_of, settled
from stoker.testing.contract import Check, ContractViolation, brief, difference, named_checks, run_checks

__all__ = ["check_env", "env_contract"]


class _Suite(NamedTuple):
    """What the checks share."""

    factory: Callable[[], Any]
    steps: int
    sample_action: Callable[[np.random.Generator], Any] | None


def check_env(
    make_env: Callable[[], Any],
    *,
    steps: int = 200,
    sample_action: Callable[[np.random.Generator], Any] | None = None,
) -> None:
    """Hold an environment against everything that actors rely on.

    Args:
        make_env: makes one; plain or async, and may itself be async.
        steps: how many steps to look at. Let that be more than an episode.
        sample_action: draws an action; None: the environment has an ``action_space`` to draw from.

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
    """The same as a list of named checks, for a test framework to go through."""
    return named_checks(_CHECKS, _Suite(make_env, steps, sample_action))


# Promises -----------------------------------------------------------------------------------------


def has_spaces(suite: _Suite) -> None:
    """Its spaces, where it has them, are Gymnasium's, and there is a way to draw an action."""

    async def check(play: _Play) -> None:
        for name in ("observation_space", "action_space"):
            space = getattr(play.env, name, None)
            if space is not None and not isinstance(space, spaces.Space):
                raise ContractViolation(f"{name} is a space", brief(space), "a gymnasium.Space, or none")
        play.action()

    _on_one(suite, check)


def reset_gives_observation_and_info(suite: _Suite) -> None:
    """Reset gives an observation and an info."""

    async def check(play: _Play) -> None:
        for seed in (3, None):
            result = await settled(play.env.reset(seed=seed))
            values = cast("tuple[Any, ...]", result) if isinstance(result, tuple) else ()
            if len(values) != 2 or not isinstance(values[1], Mapping):
                raise ContractViolation(
                    f"reset(seed={seed}) gives two values", brief(result), "observation, info (a mapping)"
                )

    _on_one(suite, check)


def step_gives_five_values(suite: _Suite) -> None:
    """Step gives observation, reward, terminated, truncated and info."""

    async def check(play: _Play) -> None:
        await play.reset(3)
        result = await settled(play.env.step(play.action()))
        values = cast("tuple[Any, ...]", result) if isinstance(result, tuple) else ()
        if len(values) != 5 or not isinstance(values[4], Mapping):
            raise ContractViolation(
                "step gives five values",
                brief(result),
                "observation, reward, terminated, truncated, info (a mapping)",
            )

    _on_one(suite, check)


def observations_are_in_their_space(suite: _Suite) -> None:
    """Every observation, of reset and of step, is in the observation space."""

    async def check(play: _Play) -> None:
        space: Any = getattr(play.env, "observation_space", None)
        if space is None:
            return  # it need not say

        def look(what: str, values: Any) -> None:
            if values[0] not in space:
                raise ContractViolation(
                    "observations are in observation_space", f"{what} gave {_layout(values[0])}", str(space)
                )

        await play.go_through(look)

    _on_one(suite, check)


def rewards_are_finite_numbers(suite: _Suite) -> None:
    """Every reward is one finite number."""

    def look(what: str, values: Any) -> None:
        if len(values) == 5 and not _is_finite(values[1]):
            raise ContractViolation(
                "rewards are finite numbers", f"{what} gave {brief(values[1])}", "a finite float"
            )

    _on_one(suite, lambda play: play.go_through(look))


def flags_are_booleans(suite: _Suite) -> None:
    """Terminated and truncated are booleans, and two of them."""

    def look(what: str, values: Any) -> None:
        for name, flag in zip(("terminated", "truncated"), values[2:4], strict=False):
            if not isinstance(flag, bool | np.bool_):
                raise ContractViolation(f"{name} is a boolean", f"{what} gave {brief(flag)}", "a bool")

    _on_one(suite, lambda play: play.go_through(look))


def each_environment_is_a_new_one(suite: _Suite) -> None:
    """The factory makes a new environment in each call, also below its wrappers."""

    async def check(play: _Play, other: _Play) -> None:
        one, two = (getattr(each.env, "unwrapped", each.env) for each in (play, other))
        if one is two:
            raise ContractViolation(
                "the factory makes a new environment in each call",
                f"the same {brief(one)} twice",
                "two objects",
            )

    _on_two(suite, check)


def seeded_resets_repeat(suite: _Suite) -> None:
    """The same seed and the same actions give the same episode, in one environment and in the next."""

    async def check(play: _Play, other: _Play) -> None:
        first = await play.trajectory(7)
        for who, again in (
            ("the same environment", await play.trajectory(7)),
            ("another one", await other.trajectory(7)),
        ):
            if problem := difference(first, again, "episode"):
                raise ContractViolation(
                    "reset(seed=7) repeats an episode", f"in {who}, {problem}", "the same"
                )

    _on_two(suite, check)


def environments_share_nothing(suite: _Suite) -> None:
    """What is done in one environment does not show in another."""

    async def check(play: _Play, other: _Play) -> None:
        alone = await play.trajectory(7)
        with_another = await play.trajectory(7, between=other)
        if problem := difference(alone, with_another, "episode"):
            raise ContractViolation(
                "two environments do not know of each other",
                f"with another stepped between, {problem}",
                "the same",
            )

    _on_two(suite, check)


def episodes_follow_one_another(suite: _Suite) -> None:
    """After an episode's end, and also in the middle of one, reset begins another that can be stepped."""

    async def check(play: _Play) -> None:
        for _ in range(3):
            await play.reset(None)
            for _ in range(suite.steps):
                _, _, terminated, truncated, _ = await play.step()
                if terminated or truncated:
                    break
        for _ in range(3):  # given up after one step
            await play.reset(None)
            await play.step()

    _on_one(suite, check)


def episode_extras_are_finite_numbers(suite: _Suite) -> None:
    """What it has to say of an episode is finite numbers by name."""

    async def check(play: _Play) -> None:
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

    _on_one(suite, check)


def goes_on_after_a_cancelled_step(suite: _Suite) -> None:
    """After a step that was cancelled, reset begins an episode like any other."""

    async def check(play: _Play) -> None:
        expected = await play.trajectory(7)
        await play.reset(None)
        with anyio.CancelScope() as scope:
            scope.cancel()  # it comes at the step's first await; a plain step has none
            await play.step()
        found = await play.trajectory(7)
        if problem := difference(expected, found, "episode"):
            raise ContractViolation(
                "reset forgets a cancelled step", problem, "the same episode as before it"
            )

    _on_one(suite, check)


def closes_twice(suite: _Suite) -> None:
    """Close may be called again."""

    async def check(play: _Play) -> None:
        await play.reset(3)
        for _ in range(2):
            await settled(close_of(play.env))

    _on_one(suite, check)


_CHECKS = [
    has_spaces,
    reset_gives_observation_and_info,
    step_gives_five_values,
    observations_are_in_their_space,
    rewards_are_finite_numbers,
    flags_are_booleans,
    each_environment_is_a_new_one,
    seeded_resets_repeat,
    environments_share_nothing,
    episodes_follow_one_another,
    episode_extras_are_finite_numbers,
    goes_on_after_a_cancelled_step,
    closes_twice,
]


# Playing ------------------------------------------------------------------------------------------


class _Play:
    """An environment that random actions are done in; the same ones each time."""

    def __init__(self, env: Any, suite: _Suite) -> None:
        self.env = env
        self._suite = suite
        self._generator = np.random.default_rng(0)

    def action(self) -> Any:
        if self._suite.sample_action is not None:
            return self._suite.sample_action(self._generator)
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

    async def go_through(self, look: Callable[[str, Any], None]) -> None:
        """Show what each call gave, with its name, over as many steps as the suite looks at."""
        is_over = True
        for number in range(1, self._suite.steps + 1):
            if is_over:
                look(f"reset before step {number}", await self.reset(3 if number == 1 else None))
            values = await self.step()
            look(f"step {number}", values)
            is_over = bool(values[2]) or bool(values[3])

    async def trajectory(self, seed: int, between: _Play | None = None) -> list[Any]:
        """A seeded episode of at most 30 steps, copied as it is seen."""
        self._generator = np.random.default_rng(seed)
        seen = [owned((await self.reset(seed))[0])]
        if between is not None:
            await between.reset(seed + 1)
        for _ in range(min(30, self._suite.steps)):
            observation, reward, terminated, truncated, _ = await self.step()
            seen.append(owned((observation, reward, bool(terminated), bool(truncated))))
            if terminated or truncated:
                break
            if between is not None:
                *_, terminated, truncated, _ = await between.step()
                if terminated or truncated:
                    await between.reset(None)
        return seen


def _on_one(suite: _Suite, check: Callable[[_Play], Awaitable[None]]) -> None:
    anyio.run(partial(_play, suite, 1, check))


def _on_two(suite: _Suite, check: Callable[[_Play, _Play], Awaitable[None]]) -> None:
    anyio.run(partial(_play, suite, 2, check))


async def _play(suite: _Suite, count: int, check: Callable[..., Awaitable[None]]) -> None:
    plays: list[_Play] = []
    try:
        while len(plays) < count:
            plays.append(_Play(await settled(suite.factory()), suite))
        await check(*plays)
    finally:
        for play in plays:
            await settled(close_of(play.env))


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
