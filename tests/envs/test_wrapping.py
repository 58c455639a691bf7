"""Wrappers by name: applied in order, and one clear error for each that cannot be."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker.envs.wrapping import EnvWrapper, wrapped
from stoker.errors import ConfigError
from stoker.testing import ChainEnv

HERE = __name__


class Closing(ChainEnv):
    closed = False

    def close(self) -> None:
        self.closed = True


class Plain:
    """An environment that knows nothing of Gymnasium's classes."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    async def reset(self, *, seed: int | None = None, options: Any = None) -> Any: ...
    async def step(self, action: Any) -> Any: ...

    async def close(self) -> None: ...


class Named(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gymnasium.Env[Any, Any], *, name: str) -> None:
        super().__init__(env)
        self.name = name


class Sized(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gymnasium.Env[Any, Any], size: Any = None) -> None:
        super().__init__(env)
        self.size = size


def doubled(env: Any) -> Any:
    return gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward)


class Later:
    """A user's wrapper of an async environment."""

    def __init__(self, env: Any) -> None:
        self.env, self.action_space = env, env.action_space
        self.observation_space, self.reset, self.step = env.observation_space, env.reset, env.step


def unwrapped(env: Any) -> None: ...


def test_the_first_is_the_innermost_and_gets_its_arguments() -> None:
    env = wrapped(
        ChainEnv(length=1),
        [
            EnvWrapper(f"{HERE}:Named", {"name": "inner"}),
            EnvWrapper(f"{HERE}:doubled"),
            EnvWrapper(f"{HERE}:Sized", {"size": [2, [3, 4]]}),
        ],
    )
    assert (env.size, env.env.env.name) == ((2, (3, 4)), "inner"), "lists are tuples for Gymnasium's wrappers"
    env.reset(seed=0)
    assert env.step(1)[1] == 2.0


def test_an_async_environment_takes_a_wrapper_of_the_user() -> None:
    assert isinstance(wrapped(Plain(), [EnvWrapper(f"{HERE}:Later")]), Later)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("stoker_has_no_such_module:X", {}, "'stoker_has_no_such_module' cannot be imported"),
    ("gymnasium.wrappers:TimeLimt", {}, "did you mean 'TimeLimit'?"),
    ("gymnasium.wrappers:__doc__", {}, "is a str: name a class or a function"),
    ("gymnasium.wrappers:TimeLimit", {}, "cannot be called with an environment and no arguments: missing a"),
    (f"{HERE}:Named", {"nam": "x"}, "cannot be called with an environment and nam"),
    ("gymnasium.wrappers:FrameStackObservation", {"stack_size": 0}, "cannot wrap <"),
    ("gymnasium.wrappers.vector:RecordEpisodeStatistics", {}, "is for vector environments"),
    ("gymnasium.envs.classic_control:CartPoleEnv", {}, "is an environment, not a wrapper"),
    (f"{HERE}:unwrapped", {}, "made a NoneType, which lacks reset, step, observation_space, action_space"),
]


@pytest.mark.parametrize(("name", "kwargs", "said"), WRONG)
def test_one_that_cannot_be_applied_is_one_line_and_closes_the_environment(
    name: str, kwargs: dict[str, Any], said: str
) -> None:
    env = Closing()
    with pytest.raises(ConfigError) as caught:
        wrapped(env, [EnvWrapper(f"{HERE}:Sized"), EnvWrapper(name, kwargs)])
    assert str(caught.value).startswith(f"wrapper={name!r}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert env.closed


def test_an_async_environment_is_left_unused_without_a_warning() -> None:
    with pytest.raises(ConfigError, match="cannot wrap"):
        wrapped(Plain(), [EnvWrapper("gymnasium.wrappers:FlattenObservation")])


def test_it_is_written_as_a_call() -> None:
    assert str(EnvWrapper("a:B", {"n": 3, "name": "x"})) == "a:B(n=3, name='x')"
    assert str(EnvWrapper("a:B")) == "a:B"
