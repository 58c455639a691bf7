"""The suite for environments lets stoker's and Gymnasium's pass, and names the promise that is broken."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stoker import make_gym
from stoker.testing import AsyncChainEnv, ChainEnv, ContractViolation, SlowEnv, check_env


async def dial() -> AsyncChainEnv:
    await anyio.lowlevel.checkpoint()
    return AsyncChainEnv()


class Spaceless:
    """Has nothing but what an ``AsyncEnv`` must have."""

    def __init__(self) -> None:
        self._env = ChainEnv(3)

    async def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._env.reset(seed=seed)

    async def step(self, action: Any) -> Any:
        return self._env.step(action)


ENVIRONMENTS: list[tuple[str, Any]] = [
    ("chain", ChainEnv),
    ("slipping", lambda: ChainEnv(4, slip=0.3)),
    ("async", AsyncChainEnv),
    ("dialled", dial),
    ("slow", lambda: SlowEnv(ChainEnv(3), 0.0001)),
    ("CartPole", lambda: make_gym("CartPole-v1")),
    ("Pendulum", lambda: make_gym("Pendulum-v1")),
    ("wrapped", lambda: gymnasium.wrappers.FrameStackObservation(gymnasium.make("Acrobot-v1"), 3)),
]


@pytest.mark.parametrize("make", [e[1] for e in ENVIRONMENTS], ids=[e[0] for e in ENVIRONMENTS])
def test_environments_that_keep_every_promise(make: Any) -> None:
    check_env(make, steps=60)


def test_an_environment_without_spaces_needs_sample_action() -> None:
    check_env(Spaceless, steps=40, sample_action=lambda generator: int(generator.integers(2)))
    with pytest.raises(ContractViolation, match="has_spaces: .*draw an action") as caught:
        check_env(Spaceless)
    assert "sample_action" in caught.value.expected


class Odd(ChainEnv):
    """A chain of 3 that a subclass spoils."""

    def __init__(self) -> None:
        super().__init__(3)


class NoSpace(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space: Any = (1,)


class ResetsToOne(Odd):
    def reset(self, **settings: Any) -> Any:
        return super().reset(**settings)[0]


class StepsOfFour(Odd):
    def step(self, action: Any) -> Any:
        seen, reward, terminated, truncated, info = super().step(action)
        return seen, reward, terminated or truncated, info


class OfAnotherType(Odd):
    def step(self, action: Any) -> Any:
        seen, *rest = super().step(action)
        return seen.astype(np.float64), *rest


class BeyondItsBounds(Odd):
    def reset(self, **settings: Any) -> Any:
        seen, info = super().reset(**settings)
        return seen - 1, info


class NaNRewards(Odd):
    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        return seen, float("nan"), *rest


class VectorRewards(Odd):
    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        return seen, np.array([reward, 0.0]), *rest


class RewardsOfOne(Odd):
    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        return seen, np.array([reward]), *rest


THE_ONE = Odd()


def the_same_one() -> Any:
    return gymnasium.wrappers.TimeLimit(THE_ONE, 30)


class NumbersForFlags(Odd):
    def step(self, action: Any) -> Any:
        seen, reward, terminated, truncated, info = super().step(action)
        return seen, reward, terminated, int(truncated), info


class ChanceOfItsOwn(Odd):
    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        return seen, float(np.random.default_rng().random()), *rest


class GoesOnAfterReset(Odd):
    """The same in another of its kind, but not in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.count = itertools.count()

    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        return seen, float(next(self.count)), *rest


class SharesItsPosition(Odd):
    board: dict[str, int] = {}  # noqa: RUF012 - shared: that is what is wrong with it

    def reset(self, **settings: Any) -> Any:
        self.board["at"] = 0
        return super().reset(**settings)

    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        self.board["at"] += 1
        return seen, float(self.board["at"]), *rest


class OneEpisode(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.is_over = False

    def step(self, action: Any) -> Any:
        if self.is_over:
            raise RuntimeError("it is over")
        *result, info = super().step(action)
        self.is_over = result[2] or result[3]
        return *result, info


class NotInTheMiddle(Odd):
    def reset(self, **settings: Any) -> Any:
        if self._running and self._steps:
            raise RuntimeError("an episode is running")
        return super().reset(**settings)


class ExtrasOfText(Odd):
    def episode_extras(self) -> Any:
        return {"speed": "high"}


class ExtrasOfNoMapping(Odd):
    def episode_extras(self) -> Any:
        return [1.0]


class StuckWhenCancelled(AsyncChainEnv):
    def __init__(self) -> None:
        super().__init__(3)
        self.is_busy = False

    async def reset(self, **settings: Any) -> Any:
        if self.is_busy:
            raise RuntimeError("a step is under way")
        return await super().reset(**settings)

    async def step(self, action: Any) -> Any:
        self.is_busy = True
        result = await super().step(action)
        self.is_busy = False
        return result


class ClosesOnce(Odd):
    def close(self) -> None:
        if getattr(self, "is_closed", False):
            raise RuntimeError("closed already")
        self.is_closed = True


BROKEN: list[tuple[str, Any, str]] = [
    ("has_spaces", NoSpace, r"observation_space is \(1,\)"),
    ("reset_and_step_give_gymnasiums_values", ResetsToOne, "reset before step 1 gave .*\n.* 2 values"),
    ("reset_and_step_give_gymnasiums_values", StepsOfFour, "step 1 gave .*\n.* 5 values"),
    ("reset_and_step_give_gymnasiums_values", OfAnotherType, r"step 1 gave float64\[1\]"),
    ("reset_and_step_give_gymnasiums_values", BeyondItsBounds, r"reset before step 1 gave float32\[1\]"),
    ("reset_and_step_give_gymnasiums_values", NaNRewards, "step 1 gave nan"),
    ("reset_and_step_give_gymnasiums_values", VectorRewards, "step 1 gave array"),
    ("reset_and_step_give_gymnasiums_values", NumbersForFlags, r"gave truncated=0 \(int\)"),
    ("reset_and_step_give_gymnasiums_values", RewardsOfOne, "step 1 gave array"),
    ("each_environment_is_a_new_one", the_same_one, "the same .* twice"),
    ("seeded_resets_repeat", ChanceOfItsOwn, "in the same environment"),
    ("seeded_resets_repeat", GoesOnAfterReset, "in the same environment"),
    ("environments_share_nothing", SharesItsPosition, "with another stepped between"),
    ("episodes_follow_one_another", OneEpisode, "RuntimeError: it is over"),
    ("episodes_follow_one_another", NotInTheMiddle, "RuntimeError: an episode is running"),
    ("episode_extras_are_finite_numbers", ExtrasOfText, "'speed': 'high'"),
    ("episode_extras_are_finite_numbers", ExtrasOfNoMapping, "a mapping"),
    ("recovers_from_a_cancelled_step", StuckWhenCancelled, "RuntimeError: a step is under way"),
    ("closes_twice", ClosesOnce, "RuntimeError: closed already"),
]


@pytest.mark.parametrize(
    ("name", "make", "message"), BROKEN, ids=[f"{name}-{make.__name__}" for name, make, _ in BROKEN]
)
def test_a_broken_promise_is_named(name: str, make: Any, message: str) -> None:
    (check,) = (check for check in check_env.checks(make, steps=60) if check.name == name)
    with pytest.raises(ContractViolation, match=message) as caught:
        check.run()
    assert caught.value.check == name


def test_check_env_runs_the_checks() -> None:
    with pytest.raises(ContractViolation, match="closes_twice: "):
        check_env(ClosesOnce, steps=60)


def test_each_check_is_shown_to_fail() -> None:
    assert {name for name, *_ in BROKEN} == {check.name for check in check_env.checks(ChainEnv)}


def test_environments_are_closed_again_whatever_comes() -> None:
    closed: list[int] = []

    class Closing(NaNRewards):
        def close(self) -> None:
            closed.append(1)

    kept = 0
    for check in check_env.checks(Closing, steps=10):
        closed.clear()
        with contextlib.suppress(ContractViolation):
            check.run()
            kept += 1
        assert closed
    assert 0 < kept < len(check_env.checks(Closing))


def test_each_environment_is_closed_even_if_closing_another_fails() -> None:
    closed: list[int] = []

    class FailsToClose(Odd):
        def close(self) -> None:
            closed.append(1)
            raise RuntimeError("cannot close")

    checks = {check.name: check for check in check_env.checks(FailsToClose)}
    with pytest.raises(ContractViolation, match="cannot close"):
        checks["each_environment_is_a_new_one"].run()
    assert len(closed) == 2


def test_a_space_of_actions_that_all_share_is_drawn_from_alike() -> None:
    shared = spaces.Discrete(2)

    class Sharing(Odd):
        def __init__(self) -> None:
            super().__init__()
            self.action_space: Any = shared

    check_env(Sharing, steps=40)
