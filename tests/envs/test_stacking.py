"""Stacks of observations, against Gymnasium's own on real environments."""

from __future__ import annotations

import inspect
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import FrameStackObservation, TimeLimit

from stoker import ConfigError
from stoker.envs import PlayedEnv, make_played, played
from stoker.envs.stacking import stack_frames
from stoker.testing import AsyncChainEnv, ChainEnv

pytestmark = pytest.mark.anyio


class InPlace(gymnasium.Env[Any, Any]):
    """Counts its steps in one array, which it shows again and again."""

    observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seen = np.zeros(2, np.float32)
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.seen += 1
        return self.seen, 0.0, False, False, {}

    def episode_extras(self) -> dict[str, float]:
        return {"seen": float(self.seen[0])}


class Mixed(gymnasium.Env[Any, Any]):
    """Shows a dict of an array and a number."""

    observation_space = spaces.Dict(at=spaces.Discrete(50), seen=spaces.Box(-50.0, 50.0, (2, 2), np.float64))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        return self.look(), 1.0, self.at == 7, False, {}

    def look(self) -> Any:
        return {"at": self.at, "seen": np.full((2, 2), self.at + self.np_random.random())}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one.dtype == other.dtype and np.array_equal(one, other)


def cart_pole() -> Any:
    return gymnasium.make("CartPole-v1", max_episode_steps=12)


def stacked(env: Any, n: int) -> PlayedEnv:
    return played(stack_frames(lambda: env, n)(), "inline")


@pytest.mark.parametrize("make", [cart_pole, Mixed], ids=["CartPole", "dict"])
@pytest.mark.parametrize("n", [1, 2, 4])
async def test_the_stacks_are_those_of_gymnasium(make: Any, n: int) -> None:
    theirs, ours = FrameStackObservation(make(), n), stacked(make(), n)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ends: set[tuple[bool, bool]] = set()
    for episode in range(6):
        seed = episode if episode % 2 == 0 else None
        expected, (seen, _) = theirs.reset(seed=seed)[0], await ours.reset(seed)
        assert equal(seen, expected)
        assert seen in ours.observation_space
        for step in range(12 if episode < 5 else 3):
            action = step % 2 if episode % 2 else 1
            expected, *theirs_too = theirs.step(action)
            seen, *ours_too = await ours.step(action)
            assert equal(seen, expected)
            assert ours_too[:3] == theirs_too[:3]
            if ours_too[1] or ours_too[2]:
                ends.add((bool(ours_too[1]), bool(ours_too[2])))
                break
    assert (True, False) in ends
    assert make is not cart_pole or (False, True) in ends, "one was truncated, too"


@pytest.mark.parametrize("stepping", ["inline", "auto", "thread"])
@pytest.mark.parametrize(
    "factory",
    [lambda: ChainEnv(9), lambda: AsyncChainEnv(9), lambda: TimeLimit(ChainEnv(9), 30)],
    ids=["plain", "async", "wrapped"],
)
async def test_all_kinds_of_environments_are_stacked(factory: Any, stepping: Any) -> None:
    env = await make_played(stack_frames(factory, 3), stepping)
    for _ in range(2):  # a second episode knows nothing of the first
        seen = [(await env.reset(1))[0]] + [(await env.step(1))[0] for _ in range(4)]
        assert [frames[:, 0].tolist() for frames in seen] == [
            [0, 0, 0],
            [0, 0, 1],
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
        ]
    assert env.observation_space.shape == (3, 1)
    assert env.observation_space.contains(seen[-1])
    assert env.busy_s > 0
    await env.close()
    await env.close()


async def test_a_stack_is_memory_of_its_own() -> None:
    env = stacked(InPlace(), 3)
    seen = [(await env.reset())[0]] + [(await env.step(0))[0] for _ in range(3)]
    assert [frames[:, 0].tolist() for frames in seen] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    seen[-1][:] = 77.0
    assert (await env.step(0))[0][:, 0].tolist() == [2, 3, 4]
    assert await env.episode_extras() == {"seen": 4.0}


async def test_frames_that_are_no_arrays_are_not_shared_by_stacks() -> None:
    class Lists(InPlace):
        observation_space: Any = spaces.Sequence(spaces.Box(0.0, 100.0, (2,), np.float32))

        def reset(self, **settings: Any) -> Any:
            return (super().reset()[0],), {}

        def step(self, action: Any) -> Any:
            seen, *rest = super().step(action)
            return (seen,), *rest

    env = stacked(Lists(), 2)
    frames = (await env.reset())[0]
    frames[-1][0][:] = 77.0
    assert [frame[0].tolist() for frame in (await env.step(0))[0]] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("kind", ["gym", "plain"])
async def test_an_environment_may_change_the_action_it_gets(kind: str) -> None:
    class Clips(InPlace):
        def step(self, action: Any) -> Any:
            action[:] = 0.0
            return super().step(action)

    class Plain:
        def __init__(self) -> None:
            env = Clips()
            self.reset, self.step = env.reset, env.step

    env = stacked(Clips() if kind == "gym" else Plain(), 2)
    await env.reset()
    action = np.ones(2)
    await env.step(action)
    assert action.tolist() == [1.0, 1.0]


async def test_an_environment_stays_of_its_kind() -> None:
    assert isinstance(stack_frames(ChainEnv, 2)(), gymnasium.Env)
    assert stack_frames(ChainEnv, 2)().unwrapped.length == 5
    aware = stack_frames(AsyncChainEnv, 2)()
    assert inspect.iscoroutinefunction(aware.step)
    await aware.close()
    assert aware.closed, "what it has besides shows through"

    async def dial() -> AsyncChainEnv:
        await anyio.lowlevel.checkpoint()
        return AsyncChainEnv()

    assert inspect.iscoroutinefunction(stack_frames(dial, 2))
    for factory in (dial, lambda: dial()):  # noqa: PLW0108 - a plain function that gives a coroutine
        env = await make_played(stack_frames(factory, 2), "thread")
        assert (await env.reset())[0].shape == (2, 1)


async def test_an_async_environment_that_does_not_look_like_it() -> None:
    class Decorated:
        def __init__(self) -> None:
            self.env = AsyncChainEnv(4)

        def reset(self, **settings: Any) -> Any:
            return self.env.reset(**settings)

        def step(self, action: Any) -> Any:
            return self.env.step(action)

    env = await make_played(stack_frames(Decorated, 2), "auto")
    assert env.observation_space is None
    assert (await env.reset(seed=3))[0].tolist() == [[0], [0]]
    assert (await env.step(1))[0].tolist() == [[0], [1]]


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "4"])
def test_numbers_that_make_no_stack_are_refused(n: Any) -> None:
    with pytest.raises(ConfigError, match=f"cannot stack n={n!r} observations"):
        stack_frames(ChainEnv, n)


class Forwards:
    """A user's wrapper with the attributes of what it wraps, whose rewards are numpy's."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return (observation, np.float64(reward), *rest)


async def test_the_results_of_a_wrapper_around_a_stack_are_checked() -> None:
    env = played(Forwards(stack_frames(InPlace, 2)()), "inline")
    await env.reset()
    assert type((await env.step(0))[1]) is float
    await env.close()


def test_a_step_before_any_reset_is_refused() -> None:
    env = InPlace()
    env.seen = np.zeros(2, np.float32)
    with pytest.raises(ResetNeeded, match="call reset before step"):
        stack_frames(lambda: env, 2)().step(0)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (object, "without a method 'reset'"),
        (lambda: ChainEnv, "is the class ChainEnv"),
        (lambda: gymnasium.make_vec("CartPole-v1", 2), "is a vector environment"),
    ],
    ids=["object", "class", "vector"],
)
async def test_what_cannot_be_played_is_still_told_so(factory: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await make_played(stack_frames(factory, 2))


async def test_results_that_are_none_are_still_told_so() -> None:
    class Old(ChainEnv):
        def step(self, action: Any) -> Any:
            return super().step(action)[:4]

    env = await make_played(stack_frames(Old, 2))
    await env.reset()
    with pytest.raises(ConfigError, match="step returned 4 values"):
        await env.step(1)
