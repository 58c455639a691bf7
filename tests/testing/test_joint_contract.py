"""The suite for joint environments lets PettingZoo's and own ones pass, and names a broken promise."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium import spaces

from stoker import EpisodeStatus
from stoker.envs import JointStep, Outcome
from stoker.testing import ChainEnv, ContractViolation, check_joint_env

pytestmark = pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
KEEPING = ["mpe2.simple_spread_v3:parallel_env", "pettingzoo.classic.tictactoe_v3:env"]


@pytest.mark.parametrize("name", KEEPING)
def test_environments_of_pettingzoo_keep_every_promise(name: str) -> None:
    module, _, factory = name.partition(":")
    check_joint_env(getattr(importlib.import_module(module), factory), steps=30)


class Corridors:
    """A joint environment of its own: two agents in a corridor each; async."""

    def __init__(self) -> None:
        self.agents = ("left", "right")
        self._space = spaces.Box(0.0, 3.0, (1,), np.float32), spaces.Discrete(2)

    def spaces(self, agent: str) -> Any:
        return self._space

    async def reset(self, *, seed: int | None = None) -> JointStep:
        await anyio.lowlevel.checkpoint()
        self.places = dict.fromkeys(self.agents, 0)
        return JointStep({agent: self.seen(agent) for agent in self.places})

    def seen(self, agent: str) -> Any:
        return np.array([self.places[agent]], np.float32)

    def outcome(self, agent: str, action: Any) -> Outcome:
        self.places[agent] += int(action)
        status = EpisodeStatus.of(self.places[agent] == 3, truncated=False)
        return Outcome(float(action), self.seen(agent), status)

    async def step(self, actions: Any) -> JointStep:
        await anyio.lowlevel.checkpoint()
        outcomes = {agent: self.outcome(agent, action) for agent, action in actions.items()}
        acting = {agent: self.seen(agent) for agent, place in self.places.items() if place < 3}
        return JointStep(acting, outcomes, is_over=not acting)


def test_an_environment_of_ones_own_keeps_every_promise() -> None:
    check_joint_env(Corridors, steps=40)


class Spaceless(Corridors):
    def spaces(self, agent: str) -> Any:
        return self._space[0], 2


class Forgets(Corridors):
    def outcome(self, agent: str, action: Any) -> Any:
        found = super().outcome(agent, action)
        return found if agent == "left" else Outcome(float("nan"), found.next_observation, found.status)


class EndsEarly(Corridors):
    async def step(self, actions: Any) -> JointStep:
        now = await super().step(actions)
        ended = any(outcome.status.is_done for outcome in now.outcomes.values())
        return JointStep({}, dict([*now.outcomes.items()][:0]), is_over=True) if ended else now


class OutOfBounds(Corridors):
    def seen(self, agent: str) -> Any:
        return super().seen(agent) - (self.places[agent] == 3) * 9.0


class Drifts(Corridors):
    numbers = itertools.count()

    def outcome(self, agent: str, action: Any) -> Any:
        found = super().outcome(agent, action)
        return Outcome(float(next(self.numbers)), found.next_observation, found.status)


class ClosesOnce(Corridors):
    def close(self) -> None:
        del self._space


ONE = Corridors()
BROKEN: dict[str, tuple[Any, str, str]] = {
    "every_agent_has_spaces": (Spaceless, "'left' has 2 .* space of actions", "a gymnasium.Space"),
    "every_action_has_one_outcome": (Forgets, "agent 'right' got reward=nan", "keeps the rules"),
    "observations_are_in_their_spaces": (OutOfBounds, "observes array", "Box"),
    "each_environment_is_a_new_one": (lambda: ONE, "the same .*Corridors", "two objects"),
    "seeded_resets_repeat": (Drifts, "in the same environment, the episode of seed 7", "the same"),
    "closes_twice": (ClosesOnce, "AttributeError", "no error"),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_named(promise: str) -> None:
    make, seen, expected = BROKEN[promise]
    check = next(check for check in check_joint_env.checks(make, steps=40) if check.name == promise)
    with pytest.raises(ContractViolation, match=f"{promise}: .*") as caught:
        check.run()
    assert caught.match(f"(?s){seen}.*{expected}")


def test_an_action_without_an_outcome_is_named() -> None:
    with pytest.raises(ContractViolation, match="every_action_has_one_outcome: (?s:.*)waits for an outcome"):
        check_joint_env(EndsEarly, steps=40)


def test_an_environment_of_one_agent_is_refused() -> None:
    with pytest.raises(ContractViolation, match="a ChainEnv is not an environment of several agents"):
        check_joint_env(ChainEnv)
