"""The trainer: whole trainings, further ones, resumed ones, step by step, and from a data set."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from stoker import DQN, ConfigError, DQNConfig, EpisodeStatus, Experience, SessionError, TrainingRun
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent
from stoker.trainer import EvaluationSettings, Progress, Trainer, TrainerConfig

pytestmark = pytest.mark.anyio

SMALL = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=10, buffer_size=200)
EVALUATION = EvaluationSettings(n_episodes=2)


def agent_for(env: Any, seed: int = 1, **settings: Any) -> DQN:
    import msgspec

    return DQN(env.observation_space, env.action_space, msgspec.structs.replace(SMALL, **settings), seed=seed)


def chain_agent(seed: int = 1, **settings: Any) -> DQN:
    return agent_for(ChainEnv(), seed, **settings)


async def test_it_trains_evaluates_records_and_saves_at_its_periods(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    config = TrainerConfig(
        max_opts=100,
        eval_interval=40,
        record_interval=25,
        save_interval=30,
        num_envs=3,
        evaluation=EVALUATION,
    )
    trainer = Trainer(chain_agent(), ChainEnv, config, run=run, keep_checkpoints=None)
    result = await trainer.train()
    assert (result.opt_steps, trainer.agent.opt_steps) == (100, 100)
    assert result == trainer.result
    assert result.total_steps >= 109
    steps = run.checkpoint_steps()
    assert steps[:3] == [39, 69, 99]
    assert steps[-1] == result.total_steps
    metrics = await run.read_metrics()
    updates = metrics["metrics.train/n_updates"]
    assert updates[~np.isnan(updates)].tolist() == [25, 50, 75, 100]
    assert "metrics.eval/mean_reward" in metrics
    evaluated = await run.read_eval_episodes()
    assert {49, 89, result.total_steps} >= set(evaluated["total_steps_at_eval"]) > set()
    assert result.best_eval_reward is not None


async def test_a_second_training_does_as_much_again_and_a_resumed_one_does_the_rest(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_opts=60, save_interval=20), run=run)
    assert (await trainer.train()).opt_steps == 60
    assert (await trainer.train()).opt_steps == 120
    for step in run.checkpoint_steps()[-2:]:  # as a kill at the end of the second one leaves it
        run.checkpoint_path(step).unlink()
    (run.checkpoints_directory / "latest.pt").unlink()
    again = Trainer(
        chain_agent(),
        ChainEnv,
        TrainerConfig(max_opts=60, save_interval=20),
        run=await TrainingRun.resume(run.directory),
    )
    assert (await again.train()).opt_steps == 120
    assert again.run is not None
    assert again.run.metadata.attempts[-1].from_steps == trainer.agent.total_steps, "nothing was left to do"
    assert (await again.train()).opt_steps == 180


async def test_without_a_run_a_second_training_does_as_much_again_too() -> None:
    agent = chain_agent()
    trainer = Trainer(agent, ChainEnv, TrainerConfig(max_steps=50, num_envs=2))
    assert (await trainer.train()).total_steps == 50
    assert (await trainer.train()).total_steps == 100
    assert agent.opt_steps == 91


async def test_without_a_limit_it_would_never_end_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_opts or max_steps"):
        await Trainer(chain_agent(), ChainEnv).train()


async def test_steps_come_one_by_one(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_steps=40, num_envs=3), run=run)
    with pytest.raises(SessionError, match="async with"):
        await trainer.train_step()
    async with trainer:
        with pytest.raises(SessionError, match="already"):
            await trainer.train()
        for number in range(1, 41):
            step = await trainer.train_step()
            assert step is not None
            assert step.total_steps == number
            await trainer.session.flush()
            assert trainer.session.total_steps == number, "no further step was done ahead"
        assert await trainer.train_step() is None
        assert await trainer.train_step() is None
    assert trainer.result is not None
    assert trainer.result.total_steps == 40
    assert run.checkpoint_steps() == [40]


async def test_iterating_gives_every_step_of_every_actor_in_its_order_and_stops_at_the_limit() -> None:
    agent = chain_agent()
    seen: dict[Any, list[Any]] = {}
    async with Trainer(agent, partial(ChainEnv, 4), TrainerConfig(max_steps=200, num_envs=4)) as trainer:
        async for step in trainer:
            seen.setdefault(step.actor_id, []).append(step)
    assert sum(map(len, seen.values())) == 200 == agent.total_steps
    assert set(seen) == {0, 1, 2, 3}
    for steps in seen.values():
        episode, count, total = 0, 0, 0.0
        for step in steps:
            count, total = count + 1, total + step.reward
            assert (step.episode, step.episode_step, step.episode_reward) == (episode, count, total)
            assert step.episode_over == step.status.is_done
            assert 0 < step.exploration <= 1
            if step.episode_over:
                episode, count, total = episode + 1, 0, 0.0


async def test_a_run_is_whole_after_an_iteration_that_was_left(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with Trainer(chain_agent(), ChainEnv, TrainerConfig(num_envs=2), run=run) as trainer:
        async for step in trainer:
            if step.total_steps >= 30:
                break
    assert trainer.result is not None
    assert run.checkpoint_steps() == [trainer.result.total_steps]
    with pytest.raises(ZeroDivisionError):
        async with Trainer(chain_agent(), ChainEnv, TrainerConfig(num_envs=2), run=run) as trainer:
            async for _ in trainer:
                raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore")
async def test_a_crashing_environment_does_not_block_train_step() -> None:
    steps = itertools.count(1)

    def make() -> Any:
        return CrashingEnv(ChainEnv(), {4, 5, 21}, steps=steps)

    async with Trainer(chain_agent(), make, TrainerConfig(max_steps=30, num_envs=2)) as trainer:
        with anyio.fail_after(30):
            for _ in range(30):
                assert await trainer.train_step() is not None


async def test_an_error_that_ends_the_actors_reaches_train_step() -> None:
    def make() -> Any:
        return "no environment"

    with pytest.raises(ConfigError, match="without a method"):
        async with Trainer(chain_agent(), make, TrainerConfig(max_steps=30)) as trainer:
            with anyio.fail_after(30):
                await trainer.train_step()
                await anyio.sleep_forever()


def dataset(n: int, size: int = 3) -> list[Experience]:
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (n + 1, size)).astype(np.float32)
    return [
        Experience(
            rows[k],
            int(rng.integers(2)),
            float(k),
            rows[k + 1],
            EpisodeStatus.TERMINATED if k % 10 == 9 else EpisodeStatus.CONTINUING,
        )
        for k in range(n)
    ]


def columns(transitions: list[Experience]) -> dict[str, Any]:
    return {
        "observations": np.stack([t.observation for t in transitions]),
        "actions": np.array([t.action for t in transitions]),
        "rewards": np.array([t.reward for t in transitions]),
        "next_observations": np.stack([t.next_observation for t in transitions]),
        "terminated": np.array([t.status.is_terminal for t in transitions]),
        "truncated": np.array([t.status.is_truncated for t in transitions]),
    }


def box_agent(**settings: Any) -> DQN:
    import msgspec

    config = msgspec.structs.replace(SMALL, **settings)
    return DQN(Box(-1, 1, (3,), np.float32), Discrete(2), config, seed=2)


async def test_offline_it_learns_from_the_data_set_alone(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent, other = box_agent(n_step=3), box_agent(n_step=3)
    config = TrainerConfig(max_opts=300, save_interval=100, record_interval=50)
    result = await Trainer(agent, ChainEnv, config, run=run).train_offline(dataset(95))
    assert (result.opt_steps, result.total_steps, agent.total_steps) == (300, 300, 95)
    assert run.checkpoint_steps() == [100, 200, 300]
    assert len(agent.replay) == 95
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["metrics"]["train/n_updates"] for line in lines] == [50, 100, 150, 200, 250, 300]
    await Trainer(other, ChainEnv, TrainerConfig(max_opts=300)).train_offline(columns(dataset(95)))
    assert all(
        (a == b).all()
        for a, b in zip(*[list(x.state_dict()["network"].values()) for x in (agent, other)], strict=True)
    )

    fresh = box_agent(n_step=3)
    again = Trainer(fresh, ChainEnv, config, run=await TrainingRun.resume(run.directory))
    assert (await again.train_offline(dataset(95))).opt_steps == 600
    assert (fresh.total_steps, len(fresh.replay)) == (95, 95)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "empty"),
        (dataset(5), "waits for more than the 5 transitions"),
        (dataset(30, size=4), r"first 0 transitions.*experience 0.*shape \[4\]"),
        ({"observations": np.zeros((3, 3))}, "lacks the columns actions, rewards"),
        ({**columns(dataset(30)), "rewards": np.zeros(4)}, "rewards 4"),
        (["nothing"], "takes an Experience"),
    ],
    ids=["empty", "short", "other-space", "missing", "lengths", "foreign"],
)
async def test_a_data_set_that_does_not_fit_is_refused(data: Any, said: str) -> None:
    trainer = Trainer(box_agent(), ChainEnv, TrainerConfig(max_opts=10))
    with pytest.raises(ConfigError, match=said):
        await trainer.train_offline(data)


async def test_offline_a_schedule_in_environment_steps_is_refused() -> None:
    agent = box_agent(learning_rate_schedule="linear", schedule_steps=100)
    with pytest.raises(ConfigError, match="learning_rate_schedule='linear' counts environment steps"):
        await Trainer(agent, ChainEnv, TrainerConfig(max_opts=10)).train_offline(dataset(30))


async def test_offline_needs_a_number_of_optimization_steps() -> None:
    with pytest.raises(ConfigError, match="max_opts"):
        await Trainer(box_agent(), ChainEnv, TrainerConfig(max_steps=10)).train_offline(dataset(30))


async def test_a_setting_that_no_session_has_is_refused_before_anything_begins() -> None:
    with pytest.raises(ConfigError, match="unknown key 'lock_step'"):
        Trainer(FakeAgent(), ChainEnv, lock_step=True)


async def test_an_evaluation_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = TrainerConfig(
        max_steps=10**6,
        eval_interval=20,
        evaluation=EvaluationSettings(n_episodes=1, stop_at_reward=-1e9),
    )
    result = await Trainer(chain_agent(), ChainEnv, config).train()
    assert result.total_steps < 10**6
    assert result.stopped_because is not None
    assert "reached" in result.stopped_because


# However it ends, whoever steps is told ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "evaluation", "max_opts", "max_steps"])
@pytest.mark.parametrize("by", ["train_step", "iteration"])
async def test_stepping_ends_however_the_training_does(how: str, by: str) -> None:
    evaluation = EvaluationSettings(n_episodes=1, stop_at_reward=-1e9 if how == "evaluation" else None)
    config = TrainerConfig(
        num_envs=4,
        max_opts=30 if how == "max_opts" else None,
        max_steps=70 if how == "max_steps" else None,
        eval_interval=15,
        evaluation=evaluation,
    )
    with anyio.fail_after(20):
        async with Trainer(chain_agent(), ChainEnv, config) as trainer:
            count = 0
            while True:
                if how == "stop" and count == 40:
                    trainer.session.stop()
                step = await (trainer.train_step() if by == "train_step" else anext(trainer, None))
                if step is None:
                    break
                count += 1
    assert trainer.result is not None
    assert trainer.result.total_steps == count
    if how == "max_opts":
        assert trainer.result.opt_steps == 30


async def test_a_step_returns_when_it_is_learned() -> None:
    agent = chain_agent()
    async with Trainer(agent, ChainEnv, TrainerConfig(max_steps=30, num_envs=2)) as trainer:
        for number in range(1, 31):
            await trainer.train_step()
            assert agent.total_steps == number
            assert agent.opt_steps == max(0, number - 9)


@pytest.mark.filterwarnings("ignore")
async def test_in_lockstep_a_crashing_environment_holds_up_nobody(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    steps = itertools.count(1)

    def make() -> Any:
        return CrashingEnv(ChainEnv(), {4, 5, 21}, steps=steps)

    config = TrainerConfig(max_steps=30, num_envs=3)
    with anyio.fail_after(30):
        async with Trainer(chain_agent(), make, config, run=run, lockstep=True) as trainer:
            for _ in range(30):
                assert await trainer.train_step() is not None


async def test_one_training_at_a_time() -> None:
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_steps=200))
    trained: list[str] = []

    async def train() -> None:
        try:
            await trainer.train()
            trained.append("all of it")
        except SessionError as error:
            trained.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(train)
    assert sorted(trained) == ["all of it", "train: this trainer is in a training already"]
    async with trainer:
        assert trainer.result is None
        got: list[str] = []

        async def fetch() -> None:
            try:
                await trainer.train_step()
                got.append("a step")
            except SessionError as error:
                got.append(str(error))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(fetch)
    assert min(got) == "a step"
    assert "one after the other" in max(got)


async def test_offline_an_evaluation_ends_it_and_the_last_policy_is_evaluated(tmp_path: Path) -> None:
    def evaluated(stop_at_reward: float | None) -> TrainerConfig:
        evaluation = EvaluationSettings(n_episodes=1, stop_at_reward=stop_at_reward)
        return TrainerConfig(max_opts=2050, eval_interval=500, evaluation=evaluation)

    class Boxed(ChainEnv):
        def __init__(self) -> None:
            super().__init__(3)

    agent = agent_for(Boxed())
    rng = np.random.default_rng(0)
    shape = ChainEnv().observation_space.shape or ()
    rows = [
        Experience(
            rng.uniform(0, 1, shape).astype(np.float32),
            k % 2,
            1.0,
            rng.uniform(0, 1, shape).astype(np.float32),
            EpisodeStatus.CONTINUING,
        )
        for k in range(60)
    ]
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(agent, Boxed, evaluated(None), run=run)
    await trainer.train_offline(rows)
    metrics = await run.read_metrics()
    evaluated_at = metrics["opt_steps"][~np.isnan(metrics["metrics.eval/mean_reward"])]
    assert evaluated_at[-1] == 2050
    assert run.checkpoint_steps() == [0, 2050]
    stopped = Trainer(agent_for(Boxed()), Boxed, evaluated(-1e9))
    assert (await stopped.train_offline(rows)).opt_steps < 2050


async def test_offline_the_data_set_is_fed_once_wherever_it_was_interrupted(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    data = dataset(600)

    def breaking() -> Any:
        yield from data[:520]
        raise OSError("the data set's disk is gone")

    agent = box_agent(buffer_size=1000)
    config = TrainerConfig(max_opts=10)
    with pytest.raises(OSError, match="disk is gone"):
        await Trainer(agent, ChainEnv, config, run=run).train_offline(breaking())
    assert agent.total_steps == 256
    again = box_agent(buffer_size=1000)
    trainer = Trainer(again, ChainEnv, config, run=await TrainingRun.resume(run.directory))
    await trainer.train_offline(data)
    assert again.total_steps == 600
    assert again.replay.n_added == 600


async def test_a_data_set_is_observed_by_an_agent_that_has_learned_before() -> None:
    agent = agent_for(ChainEnv())
    await Trainer(agent, ChainEnv, TrainerConfig(max_steps=40)).train()
    shape = ChainEnv().observation_space.shape or ()
    rows = [
        Experience(np.zeros(shape, np.float32), 0, 1.0, np.zeros(shape, np.float32), EpisodeStatus.CONTINUING)
    ]
    offline = Trainer(agent, ChainEnv, TrainerConfig(max_opts=100))
    for _ in range(2):
        await offline.train_offline(rows * 50)
        assert agent.total_steps == 90


async def test_offline_it_can_be_cancelled() -> None:
    agent = box_agent()
    trainer = Trainer(agent, ChainEnv, TrainerConfig(max_opts=10**9))
    with anyio.move_on_after(0.5) as scope:
        await trainer.train_offline(dataset(95))
    assert scope.cancelled_caught
    assert 0 < agent.opt_steps < 10**9


# While it trains ------------------------------------------------------------------------------------------


async def until_training(trainer: Trainer) -> None:
    """Return when the trainer's session is open and has done a step."""
    while True:
        await anyio.lowlevel.checkpoint()
        with contextlib.suppress(SessionError):
            if trainer.session.total_steps:
                return


@pytest.mark.parametrize("by", ["task", "thread", "session", "watch", "before it is open"])
async def test_a_training_is_read_and_stopped_while_it_runs(by: str, tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_steps=5000, eval_interval=20), run=run)
    for call in (trainer.stop, lambda: trainer.session):
        with pytest.raises(SessionError, match="at the moment"):
            call()

    async def watch(progress: Progress) -> None:
        if by == "watch":
            await until_training(trainer)
            assert progress.session is trainer.session
            trainer.stop()

    results: list[Any] = []

    async def train() -> None:
        results.append(await trainer.train(watch=watch))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(train)
            if by == "before it is open":
                while True:
                    await anyio.lowlevel.checkpoint()
                    with contextlib.suppress(SessionError):
                        trainer.stop()
                        break
            elif by != "watch":
                await until_training(trainer)
                if by == "task":
                    trainer.stop()
                elif by == "thread":
                    await anyio.to_thread.run_sync(trainer.stop)
                else:
                    trainer.session.stop()
    assert results[0].total_steps < 5000
    assert (results[0].total_steps == 0) == (by == "before it is open")
    assert results[0].total_steps == run.metadata.total_steps == trainer.agent.total_steps
    with pytest.raises(SessionError, match="at the moment"):
        trainer.stop()


async def test_a_trainer_that_was_stopped_trains_again() -> None:
    trainer = Trainer(FakeAgent(), ChainEnv, TrainerConfig(max_steps=1000))

    async def watch(progress: Progress) -> None:
        trainer.stop()
        await anyio.sleep_forever()

    with anyio.fail_after(20):
        assert (await trainer.train(watch=watch)).total_steps < 1000
        assert (await trainer.train()).total_steps == 1000


async def test_leaving_after_a_stop_does_not_wait_for_the_evaluation_in_progress() -> None:
    entered = anyio.Event()

    class Held(AsyncChainEnv):
        async def step(self, action: Any) -> Any:
            entered.set()
            await anyio.sleep_forever()

    config = TrainerConfig(max_steps=1000, num_envs=2, eval_interval=5, evaluation=EVALUATION)
    with anyio.fail_after(20):
        async with Trainer(chain_agent(), ChainEnv, config, eval_factory=Held) as trainer:
            while not entered.is_set():
                assert await trainer.train_step() is not None
            trainer.stop()
    assert trainer.result is not None
    assert trainer.result.last_eval_reward is None


async def test_stepping_to_the_end_is_evaluated_and_leaving_before_is_not() -> None:
    config = TrainerConfig(max_steps=50, num_envs=2, eval_interval=10**6, evaluation=EVALUATION)
    for last in (50, 20):
        with anyio.fail_after(30):
            async with Trainer(chain_agent(), ChainEnv, config) as trainer:
                async for step in trainer:
                    if step.total_steps == last < 50:
                        break
        assert trainer.result is not None
        assert (trainer.result.last_eval_reward is not None) == (last == 50)


async def test_a_trainer_is_left_where_it_was_entered_and_entered_once_at_a_time() -> None:
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_steps=10**6, num_envs=2))
    told: list[str] = []

    async def call(function: Any) -> None:
        try:
            await function()
        except SessionError as error:
            told.append(str(error))

    await call(partial(trainer.__aexit__, None, None, None))
    async with trainer:
        await trainer.train_step()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, partial(trainer.__aexit__, None, None, None), name="another")
        await call(trainer.__aenter__)
        await call(trainer.train)
        assert await trainer.train_step() is not None, "none of these has ended it"
    async with trainer:
        assert await trainer.train_step() is not None
    assert [message.split(":")[0] for message in told] == [
        "this trainer was not entered",
        told[1].split(":")[0],
        "async with",
        "train",
    ]
    assert "left in task 'another'" in told[1]


async def test_a_trainer_that_is_just_ending_is_still_in_its_training(tmp_path: Path) -> None:
    class Slow(FakeAgent):
        def state_dict(self) -> dict[str, Any]:
            """Asked for the final checkpoint: the training is ending."""
            if not go.is_set():
                anyio.from_thread.run_sync(ending.set, token=token)
                assert go.wait(30)
            return super().state_dict()

    async def step_once() -> None:
        async with trainer:
            await trainer.train_step()

    go, ending, token = threading.Event(), anyio.Event(), anyio.lowlevel.current_token()
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(Slow(), ChainEnv, TrainerConfig(max_steps=20), run=run)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step_once)
            await ending.wait()
            with pytest.raises(SessionError, match="train: this trainer is in a training already"):
                await trainer.train()
            go.set()
        assert (await trainer.train()).total_steps == 20


async def test_a_training_begins_where_the_one_before_it_ended_and_not_earlier() -> None:
    """Its limits would count from there: it might have nothing to do, and say nothing."""
    agent = FakeAgent()
    first, second = (Trainer(agent, ChainEnv, TrainerConfig(max_steps=5)) for _ in range(2))
    with anyio.fail_after(30):
        async with first:
            with pytest.raises(SessionError, match="is in another open session"):
                await second.train()
            async for _ in first:
                pass
            with pytest.raises(SessionError, match="is in another open session"):
                await second.train()
        assert (await second.train()).total_steps == 10


async def test_a_limit_of_the_trainer_repeats_and_one_of_the_session_is_a_total() -> None:
    trainer = Trainer(chain_agent(), ChainEnv, TrainerConfig(max_steps=30), max_opts=50)
    assert (await trainer.train()).total_steps == 30
    assert [(await trainer.train()).opt_steps for _ in range(2)] == [50, 50]


@pytest.mark.parametrize("how", ["scope", "native"])
async def test_a_training_that_is_cancelled_anywhere_leaves_trainer_and_run_free(
    how: str, tmp_path: Path, anyio_backend_name: str
) -> None:
    if how == "native" and anyio_backend_name == "trio":
        pytest.skip("trio cancels scopes only")
    run = await TrainingRun.create("r", root=tmp_path)
    config = TrainerConfig(max_steps=100_000, num_envs=2, eval_interval=10, evaluation=EVALUATION)
    trainer = Trainer(chain_agent(), ChainEnv, config, run=run)
    with anyio.fail_after(100):
        for turns in [*range(40), *range(40, 400, 20)]:
            if how == "scope":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(trainer.train)
                    await rounds(turns)
                    tasks.cancel_scope.cancel()
            else:
                task = asyncio.create_task(trainer.train())
                await rounds(turns)
                while not task.done():  # whoever cancels may do so again
                    task.cancel()
                    await rounds(3)
                assert task.cancelled()
        async with trainer:
            assert await trainer.train_step() is not None
    assert run.metadata.total_steps == trainer.agent.total_steps > 0


async def rounds(n: int) -> None:
    """Let the event loop go round."""
    for _ in range(n):
        await anyio.lowlevel.checkpoint()


def test_an_environment_in_place_of_a_factory_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="^factory=.*ChainEnv.*: give a function that makes an environment"):
        Trainer(chain_agent(), cast("Any", ChainEnv(3)))
    with pytest.raises(ConfigError, match="^factory='CartPole-v1'"):
        Trainer(chain_agent(), ChainEnv, eval_factory=cast("Any", "CartPole-v1"))
