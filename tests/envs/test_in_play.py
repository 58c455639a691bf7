"""No two players step one environment."""

from __future__ import annotations

import gc
import threading
from typing import Any

import anyio
import gymnasium
import pytest
from gymnasium.vector import SyncVectorEnv

from stoker.envs import make_played, played, stack_frames
from stoker.envs.vector import VectorRounds
from stoker.errors import ConfigError
from stoker.testing import AsyncChainEnv, ChainEnv

pytestmark = pytest.mark.anyio
REFUSED = "b is the same ChainEnv object that a still plays"
TimeLimit = gymnasium.wrappers.TimeLimit


class Plain:
    """A wrapper that knows nothing of Gymnasium's."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, **settings: Any) -> Any:
        return self.env.reset(**settings)

    def step(self, action: Any) -> Any:
        return self.env.step(action)


FORMS: list[tuple[str, Any, Any]] = [
    ("itself", lambda env: env, lambda env: env),
    ("two wrappers", lambda env: TimeLimit(env, 3), lambda env: TimeLimit(env, 4)),
    ("two plain wrappers", Plain, Plain),
    ("bare and under both kinds of wrapper", lambda env: env, lambda env: Plain(TimeLimit(env, 3))),
    ("bare and stacked", lambda env: env, lambda env: stack_frames(lambda: env, 2)()),
    ("a sub-environment", lambda env: env, lambda env: VectorRounds(SyncVectorEnv([lambda: env]))),
]


@pytest.mark.parametrize("stepping", ["inline", "thread", "auto"])
@pytest.mark.parametrize(("one", "other"), [f[1:] for f in FORMS], ids=[f[0] for f in FORMS])
async def test_the_second_player_is_refused_until_the_first_is_done(
    one: Any, other: Any, stepping: Any
) -> None:
    env = ChainEnv(3)
    first = await make_played(lambda: one(env), stepping, "a")
    with pytest.raises(ConfigError, match=REFUSED):
        await make_played(lambda: other(env), stepping, "b")
    await first.reset(0)
    await first.step(1)  # it was not closed by that
    await first.close()
    again = await make_played(lambda: other(env), stepping, "b")
    await again.close()


async def test_plain_and_async_environments_that_have_no_wrappers_too() -> None:
    env = AsyncChainEnv(3)
    first = played(stack_frames(lambda: env, 2)(), name="a")
    with pytest.raises(ConfigError, match="b is the same AsyncChainEnv object"):
        played(env, name="b")
    await first.close()
    await played(env, name="b").close()


async def test_one_object_twice_in_a_vector_environment() -> None:
    env = ChainEnv(3)
    with pytest.raises(ConfigError, match="two sub-environments of the SyncVectorEnv are one object"):
        played(VectorRounds(SyncVectorEnv([lambda: env] * 2)))


async def test_a_player_that_is_forgotten_holds_nothing() -> None:
    env = ChainEnv(3)
    first = played(env, "inline")
    del first
    gc.collect()
    await played(env, "inline").close()


async def test_an_environment_stuck_in_a_call_stays_in_play_until_that_comes_back() -> None:
    class Stuck(ChainEnv):
        entered, let_go, closed = threading.Event(), threading.Event(), threading.Event()

        def step(self, action: Any) -> Any:
            self.entered.set()
            assert self.let_go.wait(20)
            return super().step(action)

        def close(self) -> None:
            self.closed.set()

    env = Stuck()
    first = await make_played(lambda: env, "thread", "a")
    await first.reset(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.step, 1)
        await anyio.to_thread.run_sync(env.entered.wait, 20)
        tasks.cancel_scope.cancel()
    await first.close()
    with pytest.raises(ConfigError, match="b is the same Stuck object that a still plays"):
        played(env, name="b")
    env.let_go.set()
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(env.closed.wait, 20)
        while True:
            try:
                again = played(env, name="b")
            except ConfigError:
                await anyio.lowlevel.checkpoint()  # between close and the release there is a moment
            else:
                break
    await again.close()
