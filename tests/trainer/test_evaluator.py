"""The evaluator keeps the very policy that was best, changes nothing else, and repeats its episodes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from gymnasium import spaces

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
    SessionClosed,
    SessionError,
    SessionFailed,
    TrainingRun,
    TrainingSession,
    evaluate,
    run_actors,
)
from stoker.envs import episode_seed
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent
from stoker.trainer.evaluation import Evaluation, EvaluationSettings, NoImprovement, StopRule
from stoker.writer import stage

pytestmark = pytest.mark.anyio
CONFIG = DQNConfig(
    hidden_sizes=(8,), batch_size=8, learning_starts=8, epsilon_decay_steps=100, learning_rate=0.01
)

TWO = EvaluationSettings(n_episodes=2)


def dqn(seed: int = 1) -> DQN:
    env = ChainEnv(3)
    return DQN(env.observation_space, env.action_space, CONFIG, seed=seed)


async def feed(session: TrainingSession, first: int, last: int) -> None:
    """Transitions that DQN can learn from."""
    for k in range(first, last):
        position = k % 3
        status = EpisodeStatus.TERMINATED if position == 2 else EpisodeStatus.CONTINUING
        before, after = np.array([position], np.float32), np.array([position + 1], np.float32)
        await session.observe(Experience(before, 1, float(position == 2), after, status))


def step() -> Experience:
    return Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING)


class Paying(gymnasium.Env[Any, Any]):
    """One step, which pays what the seed of the episode is worth."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, worth: Callable[[int], float]) -> None:
        self._worth = worth
        self._seed = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert seed is not None
        self._seed = seed
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), self._worth(self._seed), True, False, {}


USUAL = [episode_seed(0, index, 0, stream="evaluation") for index in range(4)]
"""The seeds of the four episodes of each evaluation below."""


def lucky(usual: float, else_: float) -> Callable[[], Paying]:
    """A policy's world in which the usual seeds pay otherwise than all others."""
    return lambda: Paying(lambda seed: usual if seed in USUAL else else_)


async def evaluated(
    session: TrainingSession,
    factory: Any,
    *,
    stop_rules: Sequence[StopRule] = (),
    on_evaluation: Callable[[Evaluation], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """What a new evaluator finds, one environment step later."""
    await session.observe(step())
    chosen = EvaluationSettings(n_episodes=4, **settings)
    evaluator = Evaluator(session, factory, chosen, stop_rules=stop_rules, on_evaluation=on_evaluation)
    await evaluator.finish()
    assert evaluator.last is not None
    return evaluator.last


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
        weights.append({**agent.state_dict()["network"], "explored": torch.tensor(explored)})
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


class HeldAgent(FakeAgent):
    """Learns nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def observe(self, experiences: Sequence[Experience]) -> None:
        assert self.go.wait(30), "nobody let it go"
        super().observe(experiences)


class Gated(AsyncChainEnv):
    """Waits in its first step until the test lets it go on."""

    entered: anyio.Event
    let_go: anyio.Event

    async def step(self, action: Any) -> Any:
        type(self).entered.set()
        await type(self).let_go.wait()
        return await super().step(action)


@pytest.mark.parametrize("confirm", [False, True])
async def test_the_best_holds_exactly_the_weights_that_were_evaluated(
    tmp_path: Path, *, confirm: bool
) -> None:
    Gated.entered, Gated.let_go = anyio.Event(), anyio.Event()
    run = await TrainingRun.create("x", root=tmp_path)
    with anyio.fail_after(30):
        # A checkpoint at the very step of the snapshot says what its weights were.
        async with TrainingSession(
            dqn(), run, eval_freq=40, checkpoint_freq=40, keep_checkpoints=None
        ) as session:
            evaluator = Evaluator(
                session, lambda: Gated(3), EvaluationSettings(n_episodes=3, confirm=confirm)
            )
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
    assert evaluator.last_s > 0
    assert evaluator.last.is_best
    assert session.best_value == evaluator.last.mean_reward
    best = torch.load(run.best_checkpoint_path, weights_only=True)
    assert best["best"] == {"value": evaluator.last.mean_reward, "total_steps": 40}
    then = torch.load(run.checkpoint_path(40), weights_only=True)
    later = torch.load(run.checkpoint_path(75), weights_only=True)
    for name, weight in best["agent"]["network"].items():
        assert torch.equal(weight, then["agent"]["network"][name]), name
    assert any(
        not torch.equal(weight, later["agent"]["network"][name])
        for name, weight in best["agent"]["network"].items()
    )
    assert best["agent"]["total_steps"] == best["session"]["total_steps"] == 40
    columns = await run.read_eval_episodes()
    assert columns["total_steps_at_eval"].tolist() == [40] * (6 if confirm else 3)


async def test_only_what_is_better_becomes_the_best(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    lengths = iter([9, 3, 9, 3])  # the fake agent goes right for as long as there is a chain
    async with TrainingSession(FakeAgent(action=1), run) as session:
        found: list[tuple[float, bool]] = []
        for _ in range(4):
            length = next(lengths)

            class PayingChain(ChainEnv):
                def step(self, action: Any) -> Any:
                    observation, _, *rest = super().step(action)
                    return observation, 1.0, *rest

            evaluator = Evaluator(session, lambda length=length: PayingChain(length), TWO)
            await session.observe(step())
            await evaluator.finish()
            assert evaluator.last is not None
            found.append((evaluator.last.mean_reward, evaluator.last.is_best))
    assert found == [(9.0, True), (3.0, False), (9.0, False), (3.0, False)]
    assert torch.load(run.best_checkpoint_path, weights_only=True)["best"] == {"value": 9.0, "total_steps": 1}
    assert run.metadata.best_step == 1


async def test_stop_at_reward_stops_the_session_and_nothing_more_is_evaluated() -> None:
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=10) as session:
            evaluator = Evaluator(
                session, lambda: ChainEnv(3), EvaluationSettings(n_episodes=2, stop_at_reward=1.0)
            )
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                while not session.is_done:
                    await session.observe(step())
            first = evaluator.last
            await evaluator.finish()
    assert evaluator.stopped_because == "the mean reward 1 reached 1"
    assert evaluator.last is first is not None
    assert first.mean_reward == 1.0


async def test_a_session_that_was_stopped_is_not_evaluated_once_more() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), TWO)
        session.stop()
        await evaluator.finish()
        assert evaluator.last is None


@pytest.mark.parametrize("how", ["max_steps", "max_opts", "stop", "stop when idle", "done before"])
async def test_it_ends_by_itself_when_the_session_is_done(how: str) -> None:
    limits: dict[str, Any] = {
        "max_steps": {"max_steps": 25},
        "max_opts": {"max_opts": 25},
        "done before": {"max_steps": 0},
    }
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=10, **limits.get(how, {})) as session:
            evaluator = Evaluator(session, lambda: ChainEnv(3), TWO)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                if how != "done before":
                    await session.observe_many([step()] * 25)
                if how == "stop when idle":
                    await session.flush()
                    while evaluator.last is None or evaluator.last.total_steps < 20:
                        await anyio.lowlevel.checkpoint()
                    await anyio.wait_all_tasks_blocked()
                if how.startswith("stop"):
                    session.stop()
    last = evaluator.last and evaluator.last.total_steps
    # Whoever stops a session wants it to end soon: nothing more is evaluated.
    assert last == {"stop": None, "stop when idle": 20, "done before": 0}.get(how, 25)


async def test_a_step_that_was_cancelled_at_the_limit_leaves_the_session_and_its_evaluator_going() -> None:
    agent = HeldAgent()
    with anyio.fail_after(30):
        async with TrainingSession(agent, eval_freq=10, max_steps=4, queue_capacity=1) as session:
            evaluator = Evaluator(session, lambda: ChainEnv(3), TWO)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                async with anyio.create_task_group() as actors:
                    for actor_id in range(4):
                        actors.start_soon(session.observe, msgspec.structs.replace(step(), actor_id=actor_id))
                    await anyio.wait_all_tasks_blocked()
                    assert session.is_done, "the last of them counts while it waits for room"
                    actors.cancel_scope.cancel()
                agent.go.set()
                await session.flush()
                await anyio.wait_all_tasks_blocked()
                assert not session.is_done
                assert evaluator.last is None
                while not session.is_done:
                    await session.observe(step())
    assert evaluator.last is not None
    assert evaluator.last.total_steps == 4


async def test_it_ends_with_a_session_that_is_closed_first_and_says_what_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Gated.entered, Gated.let_go = anyio.Event(), anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as outside:
            async with TrainingSession(dqn(), eval_freq=10) as session:
                idle, busy = (Evaluator(session, lambda: Gated(3), TWO) for _ in range(2))
                outside.start_soon(busy.run)
                await feed(session, 0, 15)
                await Gated.entered.wait()
                outside.start_soon(idle.run)
                await anyio.wait_all_tasks_blocked()
            Gated.let_go.set()
    assert busy.last is idle.last is None
    assert caplog.text.count("the session was closed before the last evaluation") == 2


async def test_it_raises_the_failure_of_the_session() -> None:
    told: list[BaseException] = []

    async def run(evaluator: Evaluator) -> None:
        try:
            await evaluator.run()
        except SessionError as error:
            told.append(error)

    session = TrainingSession(FakeAgent(fail_at=5), eval_freq=10)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as outside:
            await run(Evaluator(session, lambda: ChainEnv(3), TWO))
            with pytest.raises(SessionFailed):
                async with session:
                    outside.start_soon(run, Evaluator(session, lambda: ChainEnv(3), TWO))
                    await anyio.wait_all_tasks_blocked()
                    await session.observe_many([step()] * 5)
                    await anyio.sleep_forever()
    assert [type(error) for error in told] == [SessionClosed, SessionFailed]


async def test_a_reward_below_the_goal_stops_nothing() -> None:
    async with TrainingSession(FakeAgent(action=1), eval_freq=10) as session:
        evaluator = Evaluator(
            session, lambda: ChainEnv(3), EvaluationSettings(n_episodes=2, stop_at_reward=1.5)
        )
        await evaluator.finish()
        assert not session.is_done
        assert evaluator.stopped_because is None


async def test_finish_evaluates_the_end_once() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), TWO)
        await session.observe(step())
        await evaluator.finish()
        await evaluator.finish()
        await session.flush()
        assert session.eval_report(10).n_episodes == 2
        assert evaluator.last is not None
        assert evaluator.last.total_steps == 1


async def test_a_policy_that_learned_without_a_further_step_is_another_one() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(3), TWO)
        await session.observe(step())
        await evaluator.finish()
        assert await session.optimize(1) == 1
        await evaluator.finish()
        await session.flush()
        assert session.eval_report(10).n_episodes == 4


async def test_finish_waits_for_the_evaluation_in_progress() -> None:
    Gated.entered, Gated.let_go = anyio.Event(), anyio.Event()
    n_made = itertools.count(1)
    made: list[int] = []

    def make() -> Gated:
        made.append(next(n_made))
        return Gated(3)

    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), eval_freq=5) as session:
            evaluator = Evaluator(session, make, TWO)
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                await session.observe_many([step()] * 6)
                await Gated.entered.wait()
                beside.start_soon(evaluator.finish)
                await anyio.wait_all_tasks_blocked()
                assert made == [1, 2], "those of the evaluation in progress"
                Gated.let_go.set()
                while evaluator.last is None or evaluator.last.total_steps < 6:
                    await anyio.lowlevel.checkpoint()
                session.stop()
    assert made == [1, 2, 3, 4]


# The noise guard --------------------------------------------------------------------------------------


async def test_luck_on_the_usual_seeds_makes_no_best(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        first = await evaluated(session, lucky(6.0, 6.0), confirm=True)
        assert (first.value, first.is_best, first.n_episodes, first.n_confirming) == (6.0, True, 8, 4)
        fluke = await evaluated(session, lucky(10.0, 0.0), confirm=True)
        assert (fluke.value, fluke.is_best, fluke.n_episodes, fluke.n_confirming) == (5.0, False, 8, 4)
        assert fluke.rewards == (10.0,) * 4 + (0.0,) * 4
        assert session.best_value == 6.0
        good = await evaluated(session, lucky(10.0, 8.0), confirm=True)
        assert (good.value, good.is_best) == (9.0, True)
        worse = await evaluated(session, lucky(9.0, 50.0), confirm=True)
        assert (worse.value, worse.is_best, worse.n_episodes, worse.n_confirming) == (9.0, False, 4, 0)
        unguarded = await evaluated(session, lucky(10.0, 0.0))
        assert (unguarded.value, unguarded.is_best) == (10.0, True)
    assert torch.load(run.best_checkpoint_path, weights_only=True)["best"] == {
        "value": 10.0,
        "total_steps": 5,
    }
    columns = await run.read_eval_episodes()
    assert columns["total_steps_at_eval"].tolist() == [1] * 8 + [2] * 8 + [3] * 8 + [4] * 4 + [5] * 4


async def test_further_episodes_are_logged_and_marked(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        found = await evaluated(session, lucky(6.0, 2.0), confirm=True)
        assert session.eval_report(10).n_episodes == 8
    assert [record.extras for record in found.records] == [{}] * 4 + [{"confirmation": 1.0}] * 4
    assert (await run.read_eval_episodes())["total_reward"].tolist() == [6.0] * 4 + [2.0] * 4


async def test_each_step_is_confirmed_on_seeds_of_its_own_again_and_again_the_same() -> None:
    async def played() -> list[list[int]]:
        seeds: list[list[int]] = []
        async with TrainingSession(FakeAgent()) as session:
            for value in (1.0, 2.0, 3.0):  # at the steps 0, 1 and 2
                seeds.append([])
                worth = lambda seed, value=value: seeds[-1].append(seed) or value  # noqa: E731
                env = lambda worth=worth: Paying(worth)  # noqa: E731
                await Evaluator(
                    session, env, EvaluationSettings(n_episodes=4, confirm=True, concurrency=1)
                ).finish()
                await session.observe(step())
        return seeds

    first = await played()
    assert [seeds[:4] for seeds in first] == [USUAL] * 3
    assert len({seed for seeds in first for seed in seeds}) == 4 + 3 * 4
    assert await played() == first


async def test_the_guard_takes_luck_off_the_best_of_many() -> None:
    """Thirty policies, each worth 0 on average: the highest mean of four is luck alone, some 1.02 of it."""
    promised: dict[bool, list[float]] = {False: [], True: []}
    for confirm, bests in promised.items():
        for training in range(8):
            async with TrainingSession(FakeAgent()) as session:
                found: list[Evaluation] = []
                for policy in range(30):
                    factory = lambda policy=policy: Paying(  # noqa: E731
                        lambda seed: float(np.random.default_rng((seed, policy)).normal())
                    )
                    found.append(await evaluated(session, factory, confirm=confirm, seed=training))
                bests.append(max(evaluation.value for evaluation in found if evaluation.is_best))
                assert session.best_value == bests[-1]
            again = [evaluation for evaluation in found if evaluation.n_confirming]
            assert all(evaluation.value == fmean(evaluation.rewards) for evaluation in again)
            assert [len(evaluation.rewards) for evaluation in again] == [8] * len(again)
            assert (1 <= len(again) < 30) == confirm, "only candidates are evaluated again"
            assert confirm or bests[-1] == max(evaluation.value for evaluation in found)
    assert fmean(promised[False]) == pytest.approx(1.02, abs=0.2)
    assert 0.2 < fmean(promised[True]) < 0.7 * fmean(promised[False])


# What is best -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("best_by", "winner"), [("mean", "uneven"), ("lower_bound", "steady")])
async def test_the_best_is_best_by_the_mean_or_by_its_lower_bound(best_by: Any, winner: str) -> None:
    uneven = lambda: Paying(lambda seed: 12.0 * (USUAL.index(seed) % 2))  # noqa: E731 - a mean of 6
    async with TrainingSession(FakeAgent()) as session:
        steady = await evaluated(session, lucky(5.0, 5.0), best_by=best_by)
        other = await evaluated(session, uneven, best_by=best_by)
        assert (steady.is_best, other.is_best) == (True, winner == "uneven")
        assert (steady.value, other.mean_reward) == (5.0, 6.0)
        assert other.value == (6.0 if winner == "uneven" else other.mean_interval.low)
        assert session.best_value == (other if winner == "uneven" else steady).value


# Stopping ---------------------------------------------------------------------------------------------


async def test_no_improvement_stops_the_session_and_is_reported() -> None:
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(), eval_freq=10) as session:
            rule, seen = NoImprovement(2), list[Evaluation]()
            evaluator = Evaluator(
                session,
                lucky(5.0, 5.0),
                EvaluationSettings(n_episodes=4),
                stop_rules=[rule],
                on_evaluation=seen.append,
            )
            async with anyio.create_task_group() as beside:
                beside.start_soon(evaluator.run)
                while not session.is_done:
                    await session.observe(step())
    assert [found.is_best for found in seen] == [True, False, False]
    assert evaluator.stopped_because == "no evaluation of the last 2 was better than 5"
    assert session.is_stopped


async def test_each_rule_sees_each_evaluation_also_behind_one_that_ends_the_training() -> None:
    async with TrainingSession(FakeAgent()) as session:
        rules = [NoImprovement(3), NoImprovement(3)]
        await evaluated(session, lucky(5.0, 5.0), stop_at_reward=5.0, stop_rules=rules)
        assert session.is_stopped
        assert [rule.to_beat for rule in rules] == [5.0, 5.0]


async def test_a_resumed_run_must_beat_its_own_best(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        assert (await evaluated(session, lucky(7.0, 7.0))).is_best
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)) as session:
        rules = [NoImprovement(1)]
        assert not (await evaluated(session, lucky(6.0, 6.0), stop_rules=rules)).is_best
        assert session.is_stopped


async def test_a_training_that_ended_by_itself_did_not_end_for_want_of_improvement() -> None:
    async with TrainingSession(FakeAgent(), max_steps=1) as session:
        await session.maybe_save_best(9.0)
        await session.observe(step())
        rule = NoImprovement(1)
        evaluator = Evaluator(session, lucky(5.0, 5.0), EvaluationSettings(n_episodes=4), stop_rules=[rule])
        await evaluator.finish()
        assert rule.n_without == 1
        assert evaluator.stopped_because is None
        assert not session.is_stopped
        late = Evaluator(session, lucky(5.0, 5.0), EvaluationSettings(n_episodes=4, stop_at_reward=5.0))
        await late.finish()
        assert late.stopped_because == "the mean reward 5 reached 5"


# Around it --------------------------------------------------------------------------------------------


async def test_a_recorder_gets_each_evaluation_whole() -> None:
    seen: list[Evaluation] = []
    async with TrainingSession(FakeAgent()) as session:
        found = await evaluated(session, lucky(6.0, 2.0), confirm=True, on_evaluation=seen.append)
        assert len(seen) == 1
        assert seen[0] is found
        assert found.metrics()["eval/mean_reward"] == 4.0
        assert (found.total_steps, found.is_best) == (1, True)


async def test_an_error_of_a_recorder_is_raised() -> None:
    def refuse(found: Evaluation) -> None:
        raise LookupError(f"no sink for {found.mean_reward}")

    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(LookupError, match="no sink for 6.0"):
            await evaluated(session, lucky(6.0, 6.0), on_evaluation=refuse)


async def test_it_evaluates_as_its_settings_say() -> None:
    settings = EvaluationSettings(
        n_episodes=2,
        seed=3,
        max_episode_steps=3,
        concurrency=1,
        confirm=True,
        patience=1,
        best_by="lower_bound",
    )
    seen: list[Evaluation] = []
    async with TrainingSession(FakeAgent(action=1)) as session:
        evaluator = Evaluator(session, lambda: AsyncChainEnv(4), settings, on_evaluation=seen.append)
        await evaluator.finish()
        assert [(record.length, record.status.value) for record in seen[0].records] == [(3, "Truncated")] * 4
        assert (seen[0].n_confirming, seen[0].best_by, seen[0].value) == (2, "lower_bound", 0.0)
        assert evaluator.stopped_because is None
        await session.observe(step())
        await evaluator.finish()
        assert evaluator.stopped_because == "no evaluation of the last 1 was better than 0"


@pytest.mark.parametrize("n_actors", [1, 3])
async def test_a_training_in_lockstep_is_the_same_to_the_bit_with_an_evaluator_beside_it(
    tmp_path: Path, n_actors: int
) -> None:
    found: list[tuple[dict[str, Any], bytes]] = []
    seen: list[Evaluation] = []
    for evaluates in (False, True):
        run = await TrainingRun.create(f"{evaluates}", root=tmp_path)
        agent = dqn()
        with anyio.fail_after(60):
            async with TrainingSession(
                agent, run, max_steps=160, lockstep=True, eval_freq=20 if evaluates else 0
            ) as session:
                slippery = lambda: ChainEnv(3, slip=0.2)  # noqa: E731
                evaluator = Evaluator(
                    session,
                    slippery,
                    EvaluationSettings(n_episodes=3, confirm=True),
                    on_evaluation=seen.append,
                )
                async with anyio.create_task_group() as beside:
                    if evaluates:
                        beside.start_soon(evaluator.run)
                    await run_actors(session, slippery, n_actors, seed=1)
        state = stage({"agent": agent.state_dict(), "replay": agent.replay.state_dict()})
        journal = b"".join(path.read_bytes() for path in sorted((run.directory / "journal").iterdir()))
        found.append((state, journal))
    assert seen[-1].total_steps == 160
    assert len(seen) > 1, "it was busy while the training went on"
    assert sum(evaluation.n_confirming for evaluation in seen) >= 3
    assert list(unequal(found[0][0], found[1][0])) == []
    assert found[0][1] == found[1][1], "the events that the training consumed"


def unequal(one: Any, other: Any, where: str = "") -> Any:
    """The places where two trees are not the same to the bit."""
    match one:
        case torch.Tensor():
            if one.dtype != other.dtype or one.numpy().tobytes() != other.numpy().tobytes():
                yield where
        case dict():
            assert one.keys() == other.keys()
            for key in one:
                yield from unequal(one[key], other[key], f"{where}[{key!r}]")
        case list() | tuple():
            assert len(one) == len(other)
            for place, (mine, its) in enumerate(zip(one, other, strict=True)):
                yield from unequal(mine, its, f"{where}[{place}]")
        case _:
            if one != other:
                yield where


PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)


def pinned(policy: Any, total_steps: int = 5) -> PolicySnapshot:
    return PolicySnapshot(policy, total_steps=total_steps, state={})


class Counting:
    """Goes right; notes the modes and how many observations it got at once."""

    def __init__(self) -> None:
        self.modes: set[ActMode] = set()
        self.sizes: list[int] = []

    def act(self, observations: Any, mode: ActMode) -> Any:
        self.modes.add(mode)
        self.sizes.append(len(observations))
        return [1] * len(observations), None


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
    assert (
        caplog.text.count("its environment failed (RuntimeError: simulator crashed); playing it again") == 3
    )


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
    found.compute_intervals()
    assert drawn() == before
