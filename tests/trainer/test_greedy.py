"""Evaluation on vector environments: the episodes of single ones, failures, and cancellation."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from stoker import (
    ActorFailed,
    ConfigError,
    EpisodeStatus,
    EvaluationSettings,
    Evaluator,
    Experience,
    FailureLimit,
    PolicySnapshot,
    TrainingSession,
    evaluate,
)
from stoker.envs.rounds import last_info
from stoker.testing import ChainEnv, CrashingEnv, FakeAgent
from stoker.threads import call_soon_here

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
MODES = list(AutoresetMode)
by_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
AT_ONCE = FailureLimit(failures=3, window_s=1000.0, first_delay_s=0.0)


class Random(ChainEnv):
    """A chain whose length and rewards come from the seeded generator; it says whether it was short."""

    def __init__(self) -> None:
        super().__init__(9)
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed)
        self.length = int(self.np_random.integers(1, 9))
        return result

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        reward += float(self.np_random.random())
        if terminated:
            info = {"is_success": self.length < 5}
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        self.closed = True


def random_env() -> Random:
    return Random()


def vector(
    mode: AutoresetMode = AutoresetMode.SAME_STEP, n: int = 3, make: Callable[[], Any] = Random
) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode)


def snapshot(agent: Any = None) -> PolicySnapshot:
    return PolicySnapshot(FakeAgent(action=1) if agent is None else agent, total_steps=7, state={})


@on_asyncio
@by_mode
@pytest.mark.parametrize("n_sub_envs", [1, 3, 7, 9])
@pytest.mark.parametrize("max_episode_steps", [None, 4])
async def test_the_episodes_are_those_of_single_environments(
    mode: AutoresetMode, n_sub_envs: int, max_episode_steps: int | None
) -> None:
    settings: dict[str, Any] = {"n_episodes": 7, "seed": 3, "max_episode_steps": max_episode_steps}
    expected = await evaluate(snapshot(), Random, **settings)
    found = await evaluate(snapshot(), lambda: vector(mode, n_sub_envs), **settings)
    assert found == expected
    assert found.min_length < found.max_length <= (max_episode_steps or 8)
    assert found.success_rate is not None


@on_asyncio
@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED], ids=["disabled"])
async def test_also_those_in_other_processes(mode: AutoresetMode) -> None:
    def make() -> AsyncVectorEnv:
        return AsyncVectorEnv([random_env] * 2, context="spawn", autoreset_mode=mode)

    assert await evaluate(snapshot(), make, 5) == await evaluate(snapshot(), Random, 5)


async def test_a_round_is_one_pass_and_waves_are_as_long_as_their_longest_episode() -> None:
    agent = FakeAgent(action=1)
    found = await evaluate(snapshot(agent), lambda: vector(n=4), 8)
    lengths = [record.length for record in found.records]
    assert agent.batch_sizes == [4] * (max(lengths[:4]) + max(lengths[4:]))


async def test_a_vector_form_with_one_seed_plays_the_same_episodes_each_time() -> None:
    def make() -> Any:
        return gymnasium.make_vec("CartPole-v1", 4, "vector_entry_point")

    first, again = [await evaluate(snapshot(), make, 6, seed=5) for _ in range(2)]
    assert first == again != await evaluate(snapshot(), make, 6, seed=6)
    assert len(set(first.rewards)) > 1


async def test_a_factory_may_be_async_and_its_environment_may_live_on_a_thread() -> None:
    threads: set[int] = set()

    class Bound(Random):
        def step(self, action: Any) -> Any:
            threads.add(threading.get_ident())
            return super().step(action)

    async def make() -> SyncVectorEnv:
        await anyio.lowlevel.checkpoint()
        return vector(make=Bound)

    expected = await evaluate(snapshot(), Random, 4)
    assert await evaluate(snapshot(), make, 4, stepping="inline") == expected
    assert threads == {threading.get_ident()}
    threads.clear()
    assert await evaluate(snapshot(), lambda: vector(make=Bound), 4, stepping="thread") == expected
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


# Failures -------------------------------------------------------------------------------------------


@on_asyncio
@by_mode
async def test_one_that_fails_is_made_again_and_finished_episodes_stay(
    mode: AutoresetMode, caplog: pytest.LogCaptureFixture
) -> None:
    steps, made = itertools.count(1), itertools.count(1)

    def make() -> SyncVectorEnv:
        next(made)
        return vector(mode, make=lambda: CrashingEnv(Random(), {9, 40}, steps=steps))

    found = await evaluate(snapshot(), make, 7, limit=AT_ONCE)
    assert found == await evaluate(snapshot(), Random, 7)
    assert next(made) == 4
    assert caplog.text.count("simulator crashed); playing it again") == 2


class Mortal(Random):
    """Kills its process once, in its third step, when a file says so."""

    def __init__(self, spoiler: str) -> None:
        super().__init__()
        self.spoiler = Path(spoiler)
        self.n_steps = 0

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.n_steps == 3:
            with contextlib.suppress(FileNotFoundError):
                self.spoiler.unlink()
                os._exit(3)
        return super().step(action)


@on_asyncio
async def test_one_whose_process_dies_is_made_again(tmp_path: Path) -> None:
    spoiler = tmp_path / "spoiler"
    spoiler.touch()

    def make() -> AsyncVectorEnv:
        mortal = partial(Mortal, str(spoiler))
        return AsyncVectorEnv([mortal] * 2, context="spawn", autoreset_mode=AutoresetMode.DISABLED)

    found = await evaluate(snapshot(), make, 5, limit=AT_ONCE, stepping="thread")
    assert found == await evaluate(snapshot(), Random, 5)
    assert not spoiler.exists()


async def test_one_that_fails_too_often_ends_the_evaluation() -> None:
    made: list[Any] = []

    def make() -> SyncVectorEnv:
        made.append(vector(make=lambda: CrashingEnv(Random(), {1})))
        return made[-1]

    with pytest.raises(ActorFailed, match="evaluation 0.*simulator crashed"):
        await evaluate(snapshot(), make, 7, limit=AT_ONCE)
    assert len(made) == 3
    assert all(env.unwrapped.closed for env in made)


@on_asyncio
async def test_a_nan_reward_is_a_failure_of_the_environment() -> None:
    first = iter([float("nan")])

    class Odd(Random):
        def step(self, action: Any) -> Any:
            observation, reward, *rest = super().step(action)
            return observation, next(first, reward), *rest

    found = await evaluate(snapshot(), lambda: vector(make=Odd), 4, limit=AT_ONCE)
    assert found == await evaluate(snapshot(), Random, 4)


async def test_one_that_does_not_say_how_it_resets_is_refused() -> None:
    def make() -> SyncVectorEnv:
        env = vector()
        env.metadata = {}
        return env

    with pytest.raises(ConfigError, match="does not say how it begins the next episodes"):
        await evaluate(snapshot(), make, 4)


# An evaluator ---------------------------------------------------------------------------------------


async def test_an_evaluator_keeps_one_until_it_ends_and_plays_the_same_each_time() -> None:
    made: list[Any] = []

    def make() -> SyncVectorEnv:
        made.append(vector())
        return made[-1]

    expected = await evaluate(snapshot(), Random, 5)
    found: list[Any] = []
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=5, max_steps=15) as session:
            settings = EvaluationSettings(n_episodes=5, confirm=True)
            evaluator = Evaluator(session, make, settings, on_evaluation=found.append)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                for k in range(3):
                    while len(found) < k:
                        await anyio.lowlevel.checkpoint()
                    await session.observe_many([_step()] * 5)
    assert [each.rewards[:5] for each in found] == [expected.rewards] * 3
    assert found[0].n_confirming == 5
    assert found[0].rewards[5:] != expected.rewards
    (env,) = made
    assert env.closed


async def test_an_evaluator_closes_it_where_the_session_was_closed_first() -> None:
    made: list[Any] = []

    def make() -> SyncVectorEnv:
        made.append(vector())
        return made[-1]

    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=5) as session:
            evaluator = Evaluator(session, make, EvaluationSettings(n_episodes=2))
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                await session.observe_many([_step()] * 5)
                while evaluator.last is None:
                    await anyio.lowlevel.checkpoint()
                assert not made[0].closed
                await session.close()
    assert [env.closed for env in made] == [True]


@pytest.mark.parametrize("stepping", ["inline", "thread"])
async def test_a_cancelled_evaluation_closes_it(stepping: Any) -> None:
    entered, go_on = anyio.Event(), threading.Event()
    made: list[Any] = []
    call_soon: list[Callable[[], None]] = []

    class Held(Random):
        def step(self, action: Any) -> Any:
            if stepping == "thread":
                call_soon[0]()
                assert go_on.wait(30), "nobody let it go"
            return super().step(action)

    class Asking(FakeAgent):
        def act(self, observations: Any, mode: Any) -> Any:
            if stepping == "inline":
                entered.set()
                scope.cancel()
            return super().act(observations, mode)

    def make() -> SyncVectorEnv:
        made.append(vector(make=Held))
        return made[-1]

    call = call_soon_here()
    call_soon.append(lambda: call(scope.cancel))
    with anyio.fail_after(30), anyio.CancelScope() as scope:
        await evaluate(snapshot(Asking(action=1)), make, 3, stepping=stepping)
    assert scope.cancelled_caught
    go_on.set()
    with anyio.fail_after(30):
        while not made[0].closed:
            await anyio.lowlevel.checkpoint()


def test_the_last_info_of_a_sub_environment() -> None:
    info = {
        "is_success": np.array([True, False]),
        "_is_success": np.array([False, True]),
        "level": np.array([1, 2]),
        "name": "both",
        "final_info": {"is_success": np.array([True, False]), "_is_success": np.array([True, False])},
    }
    assert last_info(info, 0, is_over=True) == {"is_success": True, "_is_success": True}
    found = last_info(info, 0, is_over=False)
    assert (found["level"], "is_success" in found, "name" in found) == (1, False, False)
    assert last_info(info, 1, is_over=False)["is_success"] == np.False_
    assert "is_success" not in last_info(info, 1, is_over=True)


def _step() -> Any:
    return Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING)
