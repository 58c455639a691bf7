"""A run that is trained from a data set: it is one data set, observed once, and the journal has all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker import DQN, ConfigError, DQNConfig, EpisodeStatus, Experience, Trainer, TrainerConfig, TrainingRun
from stoker.journal import DatasetGiven, Optimized
from stoker.nested import differences
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv

pytestmark = pytest.mark.anyio
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
N = 600
KEPT: dict[str, Any] = {"keep_journal": "all", "keep_checkpoints": None}


def agent(**settings: Any) -> DQN:
    small: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 8, "learning_starts": 50, "n_step": 3}
    return DQN(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**{**small, **settings}), seed=2)


def dataset(n: int = N, seed: int = 0) -> list[Experience]:
    """One actor's; the last episode is long, and broken off."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, (n, 2, 3)).astype(np.float32)
    actions, rewards = rng.integers(2, size=n).tolist(), rng.normal(size=n).tolist()
    return [
        Experience(
            rows[k, 0],
            actions[k],
            rewards[k],
            rows[k, 1],
            EpisodeStatus.TRUNCATED if k < 200 and k % 20 == 19 else EpisodeStatus.CONTINUING,
        )
        for k in range(n)
    ]


def columns(steps: list[Experience]) -> dict[str, Any]:
    return {
        "observations": np.stack([step.observation for step in steps]),
        "actions": np.array([step.action for step in steps]),
        "rewards": np.array([step.reward for step in steps]),
        "next_observations": np.stack([step.next_observation for step in steps]),
        "terminated": np.array([step.status.is_terminal for step in steps]),
        "truncated": np.array([step.status.is_truncated for step in steps]),
    }


def bits(trained: DQN) -> dict[str, Any]:
    return {"agent": trained.state_dict(), "replay": trained.replay.state_dict()}


async def train(run: TrainingRun, data: Any, max_opts: int = 100, **settings: Any) -> DQN:
    trained = agent()
    config = TrainerConfig(max_opts=max_opts, save_interval=40)
    await Trainer(trained, ChainEnv, config, run=run, **KEPT, **settings).train_offline(data)
    return trained


async def test_the_run_is_replayed_without_the_data_set(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trained = await train(run, columns(dataset()), max_opts=300)
    events = [event for _, event in run.journal.read(0, run.journal.n_events())]
    assert sum(event.n for event in events if isinstance(event, Optimized)) == 300
    given = [event for event in events if isinstance(event, DatasetGiven)]
    assert given[-1].n == N
    assert len([event for event in events if isinstance(event, Experience)]) == N
    again = agent()
    replayed = replay_run(run, again)
    assert [one.differences for one in replayed.comparisons] == [()]
    assert list(differences(bits(again), bits(trained), "")) == []


@pytest.mark.parametrize("stop_at", [100, 256, 300, 513])
async def test_one_that_was_stopped_while_it_read_the_data_set_goes_on_there(
    tmp_path: Path, stop_at: int
) -> None:
    """Also within an episode, of which n-step windows are open: it does not end where the reading did."""
    data = dataset()
    whole = await train(await TrainingRun.create("whole", root=tmp_path), data)
    run = await TrainingRun.create("stopped", root=tmp_path)
    trainer = Trainer(agent(), ChainEnv, TrainerConfig(max_opts=100), run=run, **KEPT)

    def stopping() -> Iterator[Experience]:
        for k, step in enumerate(data):
            if k == stop_at:
                trainer.stop()
            yield step

    result = await trainer.train_offline(stopping())
    assert 0 < result.total_steps < N or stop_at <= 256
    resumed = await train(await TrainingRun.resume(run.directory), data)
    assert list(differences(bits(resumed), bits(whole), "")) == []


async def test_the_same_data_goes_on_in_any_form_and_longer(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    await train(run, iter(dataset()[:400]))
    again = await train(await TrainingRun.resume(run.directory), columns(dataset()[:400]))
    assert (again.total_steps, again.opt_steps) == (400, 200)
    longer = await train(await TrainingRun.resume(run.directory), dataset())
    assert (longer.total_steps, longer.opt_steps) == (N, 300)


@pytest.mark.parametrize("other", [dataset(seed=1), dataset()[: N - 1], []], ids=["other", "shorter", "none"])
async def test_another_data_set_is_refused(tmp_path: Path, other: list[Experience]) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trained = await train(run, dataset())
    message = (
        rf"another data set .* first {len(other)} transitions have the digest \w{{64}}, and those {N} the"
    )
    with pytest.raises(ConfigError, match=message):
        await train(await TrainingRun.resume(run.directory), other)
    resumed = await train(await TrainingRun.resume(run.directory), dataset())
    assert resumed.opt_steps == 2 * trained.opt_steps


async def test_without_a_journal_checkpoints_hold_the_replay(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    first = await train(run, dataset(), journal=False)
    assert not run.journal.segments()
    again = await train(await TrainingRun.resume(run.directory), dataset(), journal=False)
    assert (again.total_steps, again.opt_steps) == (N, 2 * first.opt_steps)
