"""Evaluation: whole episodes on the same seeds, of exactly the policy that may become the best."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import anyio
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
    Evaluator,
    Experience,
    FailureLimit,
    PolicySnapshot,
    TrainingRun,
    TrainingSession,
    evaluate,
)
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent

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


async def test_training_is_the_same_with_and_without_evaluation() -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for evaluates in (False, True):
        agent = dqn()
        async with TrainingSession(agent) as session:
            for first in range(0, 120, 40):
                await feed(session, first, first + 40)
                if evaluates:
                    await evaluate(await session.snapshot(), lambda: ChainEnv(3), 3)
            await session.flush()
            explored = [await session.act(np.zeros(1, np.float32)) for _ in range(20)]
        weights.append({**agent.state_dict()["online"], "explored": torch.tensor(explored)})
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


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
    ("factory", "n_episodes", "message"),
    [(lambda: ChainEnv(3), 0, "n_episodes=0"), (lambda: ChainEnv, 2, "is the class ChainEnv")],
)
async def test_what_cannot_be_evaluated_is_refused(factory: Any, n_episodes: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await evaluate(pinned(Counting()), factory, n_episodes)


class Gated(AsyncChainEnv):
    """Waits in its first step until the test lets it go on."""

    entered: anyio.Event
    let_go: anyio.Event

    async def step(self, action: Any) -> Any:
        type(self).entered.set()
        await type(self).let_go.wait()
        return await super().step(action)


async def test_the_best_holds_exactly_the_weights_that_were_evaluated(tmp_path: Path) -> None:
    Gated.entered, Gated.let_go = anyio.Event(), anyio.Event()
    run = await TrainingRun.create("x", root=tmp_path)
    with anyio.fail_after(30):
        # A checkpoint at the very step of the snapshot says what its weights were.
        async with TrainingSession(
            dqn(), run, eval_freq=40, checkpoint_freq=40, keep_checkpoints=None
        ) as session:
            evaluator = Evaluator(session, lambda: Gated(3), 3)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                await feed(session, 0, 40)
                await Gated.entered.wait()
                await feed(session, 40, 75)  # the learner goes on while the evaluation is under way
                await session.flush()
                Gated.let_go.set()
                while evaluator.last is None:
                    await anyio.lowlevel.checkpoint()
                beside.cancel_scope.cancel()
    assert evaluator.last.total_steps == 40
    assert evaluator.last.is_best
    assert session.best_value == evaluator.last.mean_reward
    best = torch.load(run.best_checkpoint_path, weights_only=True)
    assert best["best"] == {"value": evaluator.last.mean_reward, "total_steps": 40}
    then = torch.load(run.checkpoint_path(40), weights_only=True)
    later = torch.load(run.checkpoint_path(75), weights_only=True)
    for name, weight in best["agent"]["online"].items():
        assert torch.equal(weight, then["agent"]["online"][name]), name
    assert any(
        not torch.equal(weight, later["agent"]["online"][name])
        for name, weight in best["agent"]["online"].items()
    )
    assert best["agent"]["total_steps"] == best["session"]["total_steps"] == 40
    columns = await run.read_eval_episodes()
    assert columns["total_steps_at_eval"].tolist() == [40] * 3


async def test_only_what_is_better_becomes_the_best(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    lengths = iter([9, 3, 9, 3])  # the fake agent goes right for as long as there is a chain
    async with TrainingSession(FakeAgent(action=1), run) as session:
        found: list[tuple[float, bool]] = []
        for _ in range(4):
            length = next(lengths)

            class Paying(ChainEnv):
                def step(self, action: Any) -> Any:
                    observation, _, *rest = super().step(action)
                    return observation, 1.0, *rest

            evaluator = Evaluator(session, lambda length=length: Paying(length), 2)
            await session.observe(Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING))
            await evaluator.finish()
            assert evaluator.last is not None
            found.append((evaluator.last.mean_reward, evaluator.last.is_best))
    assert found == [(9.0, True), (3.0, False), (9.0, False), (3.0, False)]
    assert torch.load(run.best_checkpoint_path, weights_only=True)["best"] == {"value": 9.0, "total_steps": 1}
    assert run.metadata.best_step == 1


async def test_stop_at_reward_stops_the_session_and_nothing_more_is_evaluated() -> None:
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=10) as session:
            evaluator = Evaluator(session, lambda: ChainEnv(3), 2, stop_at_reward=1.0)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                while not session.is_done:
                    await session.observe(Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING))
                beside.cancel_scope.cancel()
            first = evaluator.last
            await evaluator.finish()
    assert evaluator.reached_goal
    assert evaluator.last is first is not None
    assert first.mean_reward == 1.0


async def test_a_session_that_was_stopped_is_not_evaluated_once_more() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), 2)
        session.stop()
        await evaluator.finish()
        assert evaluator.last is None


async def test_a_reward_below_the_goal_stops_nothing() -> None:
    async with TrainingSession(FakeAgent(action=1), eval_freq=10) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), 2, stop_at_reward=1.5)
        await evaluator.finish()
        assert not session.is_done
        assert not evaluator.reached_goal


async def test_finish_evaluates_the_end_once() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), 2)
        await session.observe(Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING))
        await evaluator.finish()
        await evaluator.finish()
        await session.flush()
        assert session.eval_report(10).n_episodes == 2
        assert evaluator.last is not None
        assert evaluator.last.total_steps == 1
