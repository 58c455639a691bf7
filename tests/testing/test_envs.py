"""The fakes do what they say, else no test that uses them proves anything."""

from __future__ import annotations

import itertools
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

from stoker.errors import ConfigError
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, SlowEnv


def test_a_chain_is_a_gymnasium_environment():
    check_env(ChainEnv(), skip_render_check=True)


# actions, and what the last of them gives: position, reward, terminated, truncated
TRAJECTORIES = [
    (3, [1, 1, 1], (3, 1.0, True, False)),
    (3, [1, 1], (2, 0.0, False, False)),
    (3, [0, 0], (0, 0.0, False, False)),
    (3, [1, 0, 1, 1, 1], (3, 1.0, True, False)),
    (1, [0, 0, 0, 0], (0, 0.0, False, True)),
    (1, [0, 0, 0, 1], (1, 1.0, True, False)),
]


@pytest.mark.parametrize(("length", "actions", "last"), TRAJECTORIES)
def test_the_walk(length, actions, last):
    env = ChainEnv(length)
    observation, info = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert (observation.tolist(), info) == ([0.0], {})
    results = [env.step(action) for action in actions]
    assert not any(result[2] or result[3] for result in results[:-1])
    position, *flags = last
    assert (results[-1][0].tolist(), *results[-1][1:4]) == ([position], *flags)


def test_a_slippery_chain_repeats_itself_under_its_seed():
    def walk(seed):
        env = ChainEnv(50, slip=0.5)
        env.reset(seed=seed)
        return [float(env.step(1)[0][0]) for _ in range(40)]

    assert walk(1) == walk(1) != walk(2)


def test_misuse_of_a_chain_is_loud():
    env = ChainEnv(1)
    with pytest.raises(ResetNeeded):
        env.step(1)
    env.reset()
    with pytest.raises(InvalidAction, match="7"):
        env.step(7)
    env.step(1)
    with pytest.raises(ResetNeeded):
        env.step(1)


def crashes(env, steps):
    env.reset(seed=0)
    crashed = []
    for number in range(1, steps + 1):
        try:
            _, _, terminated, truncated, _ = env.step(0)
        except RuntimeError as error:
            assert str(error) == "simulator crashed"  # noqa: PT017
            crashed.append(number)
        else:
            if terminated or truncated:
                env.reset()
    return crashed


def test_crashes_come_at_their_steps_over_all_episodes():
    assert isinstance(CrashingEnv(ChainEnv()), gymnasium.Wrapper)
    assert crashes(CrashingEnv(ChainEnv(1), {2, 7}), 10) == [2, 7]


def test_crashes_by_chance_follow_the_seed():
    first = crashes(CrashingEnv(ChainEnv(), probability=0.3, seed=1), 100)
    assert first == crashes(CrashingEnv(ChainEnv(), probability=0.3, seed=1), 100)
    assert first != crashes(CrashingEnv(ChainEnv(), probability=0.3, seed=2), 100)
    assert 10 < len(first) < 60


def test_a_remade_environment_goes_on_counting():
    steps = itertools.count(1)
    assert crashes(CrashingEnv(ChainEnv(), {2}, steps=steps), 3) == [2]
    assert crashes(CrashingEnv(ChainEnv(), {2}, steps=steps), 3) == []


def test_a_slow_environment_changes_nothing_else():
    env, plain = SlowEnv(ChainEnv(2), 0.0), ChainEnv(2)
    env.reset(seed=0)
    plain.reset(seed=0)
    assert env.step(1) == plain.step(1)


@pytest.mark.parametrize(
    "make",
    [lambda: ChainEnv(0), lambda: ChainEnv(slip=1.5), lambda: CrashingEnv(ChainEnv(), probability=-0.1)],
)
def test_settings_are_checked(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.anyio
async def test_the_async_chain_walks_like_the_plain_one():
    latencies = itertools.repeat(0.0)
    env = AsyncChainEnv(2, latency=lambda: next(latencies))
    assert (await env.reset(seed=0))[0].tolist() == [0.0]
    assert (await env.step(1))[1:4] == (0.0, False, False)
    assert (await env.step(1))[1:4] == (1.0, True, False)
    await env.close()
    assert env.closed


def test_fakes_of_environments_do_not_load_torch() -> None:
    code = "import sys; from stoker.testing import ChainEnv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
