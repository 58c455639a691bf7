"""A whole training from a config, on tiny environments; and going on with it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import msgspec
import pytest
import torch

from stoker import (
    ActorFailed,
    ConfigError,
    SessionFailed,
    TrainingRun,
    train,
)
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent
from stoker.trainer import EvaluationSettings, Progress, agent_for, config_from
from stoker.trainer.training import trainer_config

pytestmark = pytest.mark.anyio

TINY: dict[str, Any] = {
    "env": "StokerChain-v0", "num_envs": 3, "vectorize": "none", "total_timesteps": 300, "seed": 1,
    "checkpoint_freq": 100, "eval_freq": 100, "eval_episodes": 3, "learning_starts": 16, "batch_size": 8,
    "buffer_size": 1000, "hidden_sizes": [8], "epsilon_decay_steps": 300, "learning_rate": 0.01,
}  # fmt: skip


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("StokerChain-v0", lambda: ChainEnv(3))
    yield
    del gymnasium.registry["StokerChain-v0"]


def rows(run: TrainingRun, name: str = "train_episodes.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.directory / name).read_text().splitlines()]


async def test_from_a_config_to_a_complete_run(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    config = config_from(TINY)
    result = await train(config, run)
    assert (result.run, result.total_steps) == (str(run.directory), 300)
    assert result.steps_per_sec > 0
    assert result.restarts == 0
    written = rows(run)
    assert [row["episode"] for row in written] == list(range(1, result.total_episodes + 1))
    assert {row["actor_id"] for row in written} == {0, 1, 2}
    evaluated = rows(run, "eval_episodes.jsonl")
    assert {row["total_steps_at_eval"] for row in evaluated} <= {100, 200, 300}
    assert [row["total_steps_at_eval"] for row in evaluated][-3:] == [300] * 3, "the end is always evaluated"
    assert run.checkpoint_steps() == [100, 200, 300]
    assert result.best_eval_reward == run.metadata.best_value
    metadata = json.loads((run.directory / "metadata.json").read_text())
    assert (metadata["total_steps"], metadata["total_episodes"]) == (300, result.total_episodes)
    state = torch.load(run.checkpoint_path(300), weights_only=True)
    assert state["agent"]["opt_steps"] == 300 - 16 + 1


async def test_a_chain_is_learnt_from_a_factory(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    config = config_from({**TINY, "total_timesteps": 3000, "stop_at_reward": 1.0, "eval_freq": 250})
    result = await train(config, run, factory=lambda: AsyncChainEnv(3))
    assert result.best_eval_reward == 1.0
    assert result.last_eval_reward == 1.0


async def test_a_resumed_run_continues(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    first = await train(config_from(TINY), run)
    resumed = await TrainingRun.resume(tmp_path / "chain")
    second = await train(config_from({**TINY, "total_timesteps": 450}), resumed)
    assert second.run == first.run
    assert second.total_steps == 450
    assert second.total_episodes > first.total_episodes
    assert second.best_eval_reward is not None
    assert first.best_eval_reward is not None
    assert second.best_eval_reward >= first.best_eval_reward
    assert [row["episode"] for row in rows(resumed)] == list(range(1, second.total_episodes + 1))
    assert [attempt.from_steps for attempt in resumed.metadata.attempts] == [0, 300]
    assert torch.load(resumed.checkpoint_path(450), weights_only=True)["journal"]["replay"]["size"] == 450


async def test_a_run_that_has_its_steps_only_evaluates(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    await train(config_from(TINY), run)
    result = await train(config_from(TINY), await TrainingRun.resume(run.directory))
    assert result.total_steps == 300
    assert result.last_eval_reward is not None


async def test_evaluations_end_where_the_environment_sets_no_limit(tmp_path: Path) -> None:
    run = await TrainingRun.create("cliff", root=tmp_path)
    few = {"env": "CliffWalking-v1", "total_timesteps": 40, "eval_freq": 20, "eval_max_episode_steps": 7}
    await train(config_from({**TINY, **few}), run)
    evaluated = rows(run, "eval_episodes.jsonl")
    assert {(row["length"], row["status"]) for row in evaluated} == {(7, "Truncated")}  # the goal: 13 steps


async def test_never_is_never(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    result = await train(
        config_from({**TINY, "eval_freq": 0, "checkpoint_freq": 0, "total_timesteps": 60}), run
    )
    assert result.best_eval_reward is None
    assert result.last_eval_reward is None
    assert not (run.directory / "eval_episodes.jsonl").exists()
    assert run.checkpoint_steps() == [60]


async def test_the_watcher_sees_it_and_can_stop_it(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    ended: list[str] = []

    async def watch(progress: Progress) -> None:
        try:
            while progress.session.total_steps < 50:
                await anyio.lowlevel.checkpoint()
            progress.session.stop()
            await anyio.sleep_forever()
        finally:
            ended.append(progress.config.env)

    result = await train(config_from({**TINY, "total_timesteps": 1_000_000}), run, watch=watch)
    assert 50 <= result.total_steps < 1_000_000
    assert ended == ["StokerChain-v0"], "it is cancelled when the training ends"
    assert run.checkpoint_steps()[-1] == result.total_steps


async def test_a_watcher_that_raises_ends_the_training_which_is_saved(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)

    async def watch(progress: Progress) -> None:
        while progress.session.total_steps < 50:
            await anyio.lowlevel.checkpoint()
        raise LookupError("no terminal")

    with pytest.raises(LookupError, match="no terminal"):
        await train(config_from({**TINY, "total_timesteps": 1_000_000}), run, watch=watch)
    assert run.checkpoint_steps()


async def test_environments_that_fail_are_counted_or_end_it_alone(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    numbers = itertools.count(1)
    config = config_from({**TINY, "eval_freq": 0, "num_envs": 2})
    result = await train(config, run, factory=lambda: CrashingEnv(ChainEnv(3), {40, 90}, steps=numbers))
    assert (result.total_steps, result.restarts) == (300, 2)

    def no_env() -> Any:
        raise ConnectionRefusedError("no simulator")

    with pytest.raises(ActorFailed) as caught:
        await train(config, await TrainingRun.create("other", root=tmp_path), factory=no_env)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_an_agent_that_dies_comes_out_alone(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    with pytest.raises(SessionFailed, match="the agent failed: RuntimeError") as caught:
        await train(config_from(TINY), run, agent=FakeAgent(action=1, fail_at=100))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_agent_that_cannot_be_made_is_refused() -> None:
    for changes, message in [
        ({"env": "CartPole-v9"}, "CartPole-v9"),
        ({"env": "NoSuchEnv-v0"}, "NoSuchEnv"),
        ({"env": "Pendulum-v1"}, "action"),
        ({"device": "gpu"}, "gpu"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(ConfigError, match=message):
            agent_for(config_from({**TINY, **changes}))


async def test_a_run_of_another_agent_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    await train(config_from({**TINY, "eval_freq": 0}), run, agent=FakeAgent(action=1))
    with pytest.raises(ConfigError, match="trained by the agent FakeAgent, this is DQN"):
        await train(config_from(TINY), await TrainingRun.resume(run.directory))


async def test_the_run_holds_the_config_unless_a_factory_makes_the_environments(tmp_path: Path) -> None:
    config = config_from({**TINY, "total_timesteps": 30, "eval_freq": 0})
    run = await TrainingRun.create("chain", root=tmp_path)
    await train(config, run)
    assert config_from(await run.read_config()) == config
    longer = msgspec.structs.replace(config, total_timesteps=60)
    await train(longer, await TrainingRun.resume(run.directory))
    assert config_from(await run.read_config()) == longer
    other = await TrainingRun.create("other", root=tmp_path)
    await train(config, other, factory=lambda: AsyncChainEnv(3))
    assert not (other.directory / "config.json").exists()


async def test_the_config_in_the_run_has_the_settings_of_the_agent_that_was_given(tmp_path: Path) -> None:
    config = config_from({**TINY, "total_timesteps": 30, "eval_freq": 0})
    other = config_from({**TINY, "total_timesteps": 30, "eval_freq": 0, "gamma": 0.5})
    run = await TrainingRun.create("chain", root=tmp_path)
    await train(config, run, agent=agent_for(other))
    assert config_from(await run.read_config()) == other


async def test_an_agent_of_another_kind_than_the_config_names_is_refused(tmp_path: Path) -> None:
    ppo = agent_for(config_from({"env": "StokerChain-v0", "agent": "ppo"}))
    run = await TrainingRun.create("chain", root=tmp_path)
    message = "agent='dqn' in the config, but the given agent is a PPO: set agent='ppo'"
    with pytest.raises(ConfigError, match=message):
        await train(config_from(TINY), run, agent=ppo)
    with pytest.raises(ConfigError, match=message):
        await train(config_from(TINY), run, agent=ppo, factory=lambda: ChainEnv(3))
    assert run.holder() is None
    assert not (run.directory / "config.json").exists()


async def test_a_config_that_does_not_fit_the_run_leaves_the_runs_own(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    config = config_from({**TINY, "total_timesteps": 30, "eval_freq": 0})
    await train(config, run)
    ppo = config_from({"env": "StokerChain-v0", "agent": "ppo", "total_timesteps": 60})
    with pytest.raises(ConfigError, match="trained by the agent DQN, this is PPO"):
        await train(ppo, await TrainingRun.resume(run.directory))
    assert config_from(await run.read_config()) == config


async def test_a_training_that_is_refused_leaves_its_run_unlocked(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    config = config_from({**TINY, "actors": "processes", "eval_freq": 0})
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        await train(config, run, factory=lambda: ChainEnv(3))
    assert run.holder() is None
    config = config_from({**TINY, "warm_data": str(tmp_path / "missing.npz")})
    with pytest.raises(ConfigError, match="missing.npz"):
        await train(config, run)  # when config.json is written
    assert run.holder() is None


async def test_prior_data_of_a_name_are_those_of_its_newest_run_when_the_training_was_configured(
    tmp_path: Path,
) -> None:
    first = await TrainingRun.create("chain", root=tmp_path)
    await train(config_from({**TINY, "total_timesteps": 60, "eval_freq": 0}), first)
    config = config_from(
        {**TINY, "total_timesteps": 60, "eval_freq": 0, "warm_data": str(tmp_path / "chain")}
    )
    second = await TrainingRun.create("chain", root=tmp_path)  # now the newest one of that name
    await train(config, second)
    assert (await second.read_config())["warm_data"] == str(first.directory)


async def test_evaluations_are_those_that_the_config_describes() -> None:
    settings: dict[str, Any] = {
        "eval_episodes": 7,
        "eval_max_episode_steps": 50,
        "seed": 3,
        "best_by": "lower_bound",
        "confirm_best": True,
        "stop_at_reward": 9.0,
        "patience": 4,
        "reference_scores": (0.0, 5.0),
    }
    assert trainer_config(config_from({**TINY, **settings})).evaluation == EvaluationSettings(
        n_episodes=7,
        max_episode_steps=50,
        seed=3,
        best_by="lower_bound",
        confirm=True,
        stop_at_reward=9.0,
        patience=4,
        reference_scores=(0.0, 5.0),
    )


async def test_torch_has_its_threads_back_after_a_training(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    async def watch(progress: Progress) -> None:
        seen.append(torch.get_num_threads())
        await anyio.sleep_forever()

    config = config_from({**TINY, "total_timesteps": 30, "eval_freq": 0, "torch_threads": before + 1})
    await train(config, await TrainingRun.create("chain", root=tmp_path), watch=watch)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


async def test_plain_values_are_enough_and_the_run_is_named_after_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="unknown key 'total_timestep'"):
        await train({**TINY, "total_timestep": 60})
    with pytest.raises(ConfigError, match="gpu"):
        await train({**TINY, "device": "gpu"})
    with pytest.raises(ConfigError, match="view='panel': choose auto or none"):
        await train(TINY, view="panel")  # pyright: ignore
    assert not await anyio.Path("runs").exists(), "what cannot be trained leaves no run behind"
    result = await train({**TINY, "total_timesteps": 60})
    assert result.total_steps == 60
    assert Path(result.run).parent == tmp_path / "runs/StokerChain-v0/v1"
    assert (await TrainingRun.open(result.run)).metadata.total_steps == 60
