"""Whole episodes of a pinned policy: the same for the same seeds, whatever goes on beside them."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    ActMode,
    ActorFailed,
    ConfigError,
    DQNConfig,
    EpisodeStatus,
    Experience,
    FailureLimit,
    PolicySnapshot,
    TrainingSession,
    evaluate,
)
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv

pytestmark = pytest.mark.anyio
CONFIG = DQNConfig(
    hidden_sizes=(8,), batch_size=8, learning_starts=8, epsilon_decay_steps=100, learning_rate=0.01
)
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)


def dqn(seed: int = 1) -> DQN:
    env = ChainEnv(3)
    return DQN(env.observation_space, env.action_space, CONFIG, seed=seed)


def pinned(policy: Any, total_steps: int = 5) -> PolicySnapshot:
    return PolicySnapshot(policy, total_steps=total_steps, policy_version=1, state={})


class Counting:
    """Goes right; notes the modes and how many observations it got at once."""

    def __init__(self) -> None:
        self.modes: set[ActMode] = set()
        self.sizes: list[int] = []

    def act(self, observations: Any, mode: ActMode) -> Any:
        self.modes.add(mode)
        self.sizes.append(len(observations))
        return [1] * len(observations), None


async def feed(session: TrainingSession, first: int, last: int) -> None:
    """Transitions that DQN can learn from."""
    for k in range(first, last):
        position = k % 3
        status = EpisodeStatus.TERMINATED if position == 2 else EpisodeStatus.CONTINUING
        before, after = np.array([position], np.float32), np.array([position + 1], np.float32)
        await session.observe(Experience(before, 1, float(position == 2), after, status))


async def test_it_plays_whole_episodes_greedily_all_at_once() -> None:
    policy = Counting()
    found = await evaluate(pinned(policy, 77), lambda: ChainEnv(4), 10)
    assert [(r.total_reward, r.length, r.status.value) for r in found.records] == [
        (1.0, 4, "Terminated")
    ] * 10
    assert (found.mean_reward, found.total_steps, found.is_best) == (1.0, 77, False)
    assert policy.modes == {ActMode.EXPLOIT}
    assert sum(policy.sizes) == 40
    assert len(policy.sizes) <= 8, "one pass for all environments"


async def test_the_same_seed_gives_the_same_episodes_whatever_has_happened_since() -> None:
    slippery = lambda: ChainEnv(6, slip=0.4)  # noqa: E731
    agent = dqn()
    async with TrainingSession(agent) as session:
        await feed(session, 0, 50)
        snapshot = await session.snapshot()
        first = await evaluate(snapshot, slippery, 8, seed=3)
        await feed(session, 50, 150)
        await session.flush()
        again = await evaluate(snapshot, slippery, 8, seed=3, stepping="thread")
        fewer = await evaluate(snapshot, slippery, 5, seed=3)
        other = await evaluate(snapshot, slippery, 8, seed=4)
    assert first == again
    assert first.records[:5] == fewer.records, "the i-th episode has the i-th seed"
    assert first.records != other.records
    assert len({record.length for record in first.records}) > 1, "each episode its own"


@pytest.mark.parametrize("stepping", ["inline", "thread"])
async def test_an_environment_that_crashes_is_played_again(
    stepping: Any, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = itertools.count(1)
    found = await evaluate(
        pinned(Counting()),
        lambda: CrashingEnv(ChainEnv(3), {2, 6, 7}, steps=numbers),
        4,
        stepping=stepping,
        limit=PATIENT,
    )
    assert [(record.total_reward, record.length) for record in found.records] == [(1.0, 3)] * 4
    assert caplog.text.count("its environment failed (simulator crashed); played again") == 3


class BadReward(ChainEnv):
    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


def no_env() -> Any:
    raise FileNotFoundError("no binary")


@pytest.mark.parametrize(
    ("factory", "cause"),
    [
        (lambda: CrashingEnv(ChainEnv(3), {1}), RuntimeError),
        (no_env, FileNotFoundError),
        (lambda: BadReward(2), None),
    ],
)
async def test_too_many_failures_come_out_alone_with_their_cause(factory: Any, cause: Any) -> None:
    limit = FailureLimit(failures=3, first_delay_s=0.0)
    with pytest.raises(ActorFailed, match=r"'evaluation \d': its environment failed 3 times") as caught:
        await evaluate(pinned(Counting()), factory, 4, limit=limit)
    assert caught.value.__cause__ is not None
    assert cause is None or isinstance(caught.value.__cause__, cause)


async def test_a_policy_that_raises_comes_out_alone_and_all_environments_are_closed() -> None:
    made: list[AsyncChainEnv] = []

    class Broken(Counting):
        def act(self, observations: Any, mode: ActMode) -> Any:
            raise ArithmeticError("no action")

    def factory() -> Any:
        made.append(AsyncChainEnv(3))
        return made[-1]

    with pytest.raises(ArithmeticError, match="no action"):
        await evaluate(pinned(Broken()), factory, 4)
    assert [env.closed for env in made] == [True] * 4


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        (lambda: ChainEnv(3), {"n_episodes": 0}, "n_episodes=0"),
        (lambda: ChainEnv(3), {"seed": -1}, "seed=-1"),
        (lambda: ChainEnv(3), {"concurrency": 0}, "concurrency=0"),
        (lambda: ChainEnv(3), {"max_episode_steps": 0}, "max_episode_steps=0"),
        (lambda: ChainEnv, {}, "is the class ChainEnv"),
    ],
    ids=["episodes", "seed", "concurrency", "steps", "class"],
)
async def test_what_cannot_be_evaluated_is_refused(
    factory: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await evaluate(pinned(Counting()), factory, **{"n_episodes": 2, **settings})


class Counted(AsyncChainEnv):
    """Slips by the seeded generator, takes uneven times, and counts those that live."""

    living = 0
    most = 0

    def __init__(self) -> None:
        super().__init__(6)
        self._chain = ChainEnv(6, slip=0.4)
        Counted.living += 1
        Counted.most = max(Counted.most, Counted.living)

    async def step(self, action: Any) -> Any:
        result = await super().step(action)
        for _ in range(int(result[0][0])):
            await anyio.lowlevel.checkpoint()
        return result

    async def close(self) -> None:
        Counted.living -= 1


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_it_does_not_matter_how_many_are_played_at_once(kind: str) -> None:
    factory: Any = Counted if kind == "async" else lambda: ChainEnv(6, slip=0.4)
    snapshot = pinned(dqn().policy())
    expected = await evaluate(snapshot, factory, 7, seed=3)
    for concurrency in (1, 2, 3, 7, 50):
        Counted.most = 0
        found = await evaluate(snapshot, factory, 7, seed=3, concurrency=concurrency)
        assert found == expected
        assert Counted.most == (min(concurrency, 7) if kind == "async" else 0)
    assert Counted.living == 0
    assert len({record.length for record in expected.records}) > 1


async def test_one_at_a_time_shares_no_pass() -> None:
    policy = Counting()
    await evaluate(pinned(policy), lambda: AsyncChainEnv(4), 3, concurrency=1)
    assert policy.sizes == [1] * 12


@pytest.mark.parametrize(
    ("cap", "length", "status", "reward", "n_truncated"),
    [
        (1, 1, "Truncated", 0.0, 3),
        (3, 3, "Truncated", 0.0, 3),
        (4, 4, "Terminated", 1.0, 0),  # the end that the environment has at the cap is its own
        (5, 4, "Terminated", 1.0, 0),
        (None, 4, "Terminated", 1.0, 0),
    ],
)
@pytest.mark.parametrize("make", [ChainEnv, AsyncChainEnv])
async def test_an_episode_is_truncated_at_the_cap(
    make: Any, cap: int | None, length: int, status: str, reward: float, n_truncated: int
) -> None:
    found = await evaluate(pinned(Counting()), lambda: make(4), 3, max_episode_steps=cap, concurrency=1)
    assert [(r.total_reward, r.length, r.status.value) for r in found.records] == [
        (reward, length, status)
    ] * 3
    assert found.n_truncated == n_truncated


async def test_steps_are_counted_anew_when_an_episode_is_played_again() -> None:
    numbers = itertools.count(1)
    found = await evaluate(
        pinned(Counting()),
        lambda: CrashingEnv(ChainEnv(9), {3}, steps=numbers),
        1,
        limit=PATIENT,
        max_episode_steps=4,
    )
    assert [(record.length, record.status.value) for record in found.records] == [(4, "Truncated")]


class Telling(ChainEnv):
    """Says in ``info`` at each step whether it is at its goal, and in extras what it was given for that."""

    def __init__(self, length: int, said: Any = None, extras: dict[str, float] | None = None) -> None:
        super().__init__(length)
        self._said = said
        self._extras = extras or {}

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        said = terminated if self._said is None else self._said
        return observation, reward, terminated, truncated, {**info, "is_success": said}

    def episode_extras(self) -> dict[str, float]:
        return dict(self._extras)


class AsyncTelling(AsyncChainEnv):
    def __init__(self, length: int) -> None:
        super().__init__(length)
        self._chain = Telling(length)


@pytest.mark.parametrize(
    ("factory", "extras", "rate"),
    [
        (lambda: ChainEnv(3), {}, None),
        (lambda: Telling(3), {"is_success": 1.0}, 1.0),
        (lambda: Telling(6), {"is_success": 0.0}, 0.0),  # cut short by the cap
        (lambda: AsyncTelling(3), {"is_success": 1.0}, 1.0),
        (lambda: gymnasium.wrappers.TimeLimit(Telling(6), 2), {"is_success": 0.0}, 0.0),
        (lambda: Telling(3, np.bool_(True)), {"is_success": 1.0}, 1.0),  # noqa: FBT003
        (lambda: Telling(3, extras={"is_success": 0.0, "x": 2.0}), {"is_success": 0.0, "x": 2.0}, 0.0),
        (lambda: Telling(3, extras={"x": 2.0}), {"is_success": 1.0, "x": 2.0}, 1.0),
    ],
    ids=["silent", "done", "capped", "async", "wrapped", "numpy", "extras-win", "both"],
)
async def test_success_is_heard_of(factory: Any, extras: dict[str, float], rate: float | None) -> None:
    found = await evaluate(pinned(Counting()), factory, 2, max_episode_steps=4)
    assert [record.extras for record in found.records] == [extras] * 2
    assert found.success_rate == rate


async def test_nothing_is_drawn_from_the_global_generators() -> None:
    def drawn() -> list[Any]:
        return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]

    before = drawn()
    found = await evaluate(pinned(dqn().policy()), lambda: ChainEnv(6, slip=0.4), 4)
    found.settle()
    assert drawn() == before
