"""The promises of an environment that several agents play together, as checks to run on your own.

PettingZoo's Parallel and AEC environments and any ``JointEnv`` are checked in the same way: with random
actions, of those that a mask allows, on an event loop of the suite's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, cast

import numpy as np
from gymnasium import spaces

from stoker.envs.joint import CheckedJointEnv, JointStep
from stoker.envs.masks import MASK
from stoker.envs.pettingzoo import joint_env
from stoker.envs.results import close_of, owned, settled
from stoker.errors import ConfigError, InvalidExperience, InvalidJointStep
from stoker.plain import shown
from stoker.testing.contract import Contract, ContractViolation, expect, with_opened
from stoker.testing.env_promises import (
    closes_twice,
    each_environment_is_a_new_one,
    environments_share_nothing,
    seeded_resets_repeat,
)


class JointSuite(NamedTuple):
    """What the checks of a joint environment share.

    Attributes:
        make_env: makes an environment: PettingZoo's, Parallel or AEC, or a ``JointEnv``; may be async.
        steps: the number of joint steps to check; more than an episode has.
    """

    make_env: Callable[[], Any]
    steps: int = 200


check_joint_env = Contract(JointSuite)
"""Checks every promise of a joint environment that actors rely on; ``JointSuite`` lists the arguments."""


class _Play:
    """An environment, and the seeded random actions that it is stepped with."""

    def __init__(self, env: CheckedJointEnv, steps: int) -> None:
        self.env = env
        self.steps = steps
        self._generator = np.random.default_rng(0)

    async def reset(self, seed: int | None) -> JointStep:
        return await self._result(lambda: self.env.reset(seed=seed), "reset")

    async def step(self, now: JointStep) -> JointStep:
        actions = {agent: self._action(agent, seen) for agent, seen in now.acting.items()}
        return await self._result(lambda: self.env.step(actions), f"step of {', '.join(actions)}")

    async def _result(self, call: Callable[[], Any], what: str) -> JointStep:
        try:
            return await settled(call())
        except (ConfigError, InvalidExperience, InvalidJointStep) as error:
            raise ContractViolation("", f"{what}: {error}", "a joint step that keeps the rules") from error

    def _action(self, agent: str, observation: Any) -> Any:
        space: Any = self.env.spaces(agent)[1]
        space.seed(int(self._generator.integers(1 << 31)))
        if not (isinstance(space, spaces.Discrete) and isinstance(observation, dict) and MASK in observation):
            return cast("Any", space).sample()
        mask = np.asarray(cast("Any", observation)[MASK], np.int8)
        expect(
            bool(mask.any()), f"agent {agent!r} must act, and its mask is {shown(mask)}", "one action allowed"
        )
        return cast("Any", space).sample(mask)

    async def steps_from(self, seed: int | None) -> AsyncGenerator[JointStep]:
        """The joint steps of a seeded start, with new episodes where one ends."""
        now = await self.reset(seed)
        yield now
        for _ in range(self.steps):
            now = await (self.reset(None) if now.is_over else self.step(now))
            yield now

    async def trajectory(self, seed: int, between: _Play | None = None) -> list[Any]:
        """A copy of a seeded episode of at most 30 joint steps; ``between`` is stepped in turn with it."""
        self._generator = np.random.default_rng(seed)
        now = await self.reset(seed)
        other = None if between is None else await between.reset(seed + 1)
        seen: list[Any] = [owned(dict(now.acting))]
        for _ in range(min(30, self.steps)):
            if now.is_over:
                break
            now = await self.step(now)
            ends = {
                agent: (outcome.reward, outcome.status, owned(outcome.next_observation))
                for agent, outcome in now.outcomes.items()
            }
            seen.append((owned(dict(now.acting)), ends, dict(now.unearned)))
            if between is not None and other is not None:
                other = await (between.reset(None) if other.is_over else between.step(other))
        return seen


@contextlib.asynccontextmanager
async def _opened(suite: JointSuite) -> AsyncGenerator[_Play]:
    env = joint_env(await settled(suite.make_env()))
    try:
        yield _Play(env, suite.steps)
    finally:
        await settled(close_of(env))


def _promise(check: Callable[..., Awaitable[None]]) -> Callable[[JointSuite], None]:
    """Add a promise to the contract: the check gets a new environment for each of its parameters."""
    return check_joint_env.promise(with_opened(_opened, check))


@_promise
async def every_agent_has_spaces(play: _Play) -> None:
    """The agents that may appear are named, and each has a space of observations and one of actions."""
    await play.reset(3)
    expect(bool(play.env.agents), "no agents after a reset", "their names")
    for agent in play.env.agents:
        for kind, space in zip(("observations", "actions"), play.env.spaces(agent), strict=True):
            what = f"agent {agent!r} has {shown(space)} as its space of {kind}"
            expect(isinstance(cast("Any", space), spaces.Space), what, "a gymnasium.Space")


@_promise
async def every_action_has_one_outcome(play: _Play) -> None:
    """Each action has one outcome with a finite reward: when its agent acts again, dies, or at the end."""
    async for _ in play.steps_from(3):
        pass


@_promise
async def observations_are_in_their_spaces(play: _Play) -> None:
    """What an agent observes is in its space, also its last observation."""
    async for now in play.steps_from(3):
        lasts = {agent: outcome.next_observation for agent, outcome in now.outcomes.items()}
        for agent, observation in {**lasts, **now.acting}.items():
            space = play.env.spaces(agent)[0]
            expect(observation in space, f"agent {agent!r} observes {shown(observation)}", str(space))


for _shared in (each_environment_is_a_new_one, seeded_resets_repeat, environments_share_nothing):
    _promise(_shared)


@_promise
async def episodes_follow_one_another(play: _Play) -> None:
    """Reset begins an episode after the end of one, and also in the middle of one."""
    for n_steps in (play.steps, play.steps, 1, 1):
        now = await play.reset(None)
        for _ in range(n_steps):
            if now.is_over:
                break
            now = await play.step(now)


_promise(closes_twice)
