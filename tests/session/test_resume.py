"""A resumed session goes on: weights, replay, counters, stats, best value, exploration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    CheckpointCorrupt,
    ConfigError,
    DQNConfig,
    EpisodeStatus,
    Experience,
    TrainingRun,
    TrainingSession,
)
from stoker.runs.verifying import verify_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
CONFIG = DQNConfig(
    hidden_sizes=(8,), batch_size=4, learning_starts=10, buffer_size=50, epsilon_decay_steps=100
)


def dqn() -> DQN:
    box = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    return DQN(box, gymnasium.spaces.Discrete(2), CONFIG, seed=3)


def transition(k: int) -> Experience:
    rng = np.random.default_rng(k)
    first, second = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    status = EpisodeStatus.TERMINATED if k % 10 == 9 else EpisodeStatus.CONTINUING
    return Experience(first, int(rng.integers(2)), float(rng.normal()), second, status, k % 3)


async def feed(session: TrainingSession, first: int, last: int) -> None:
    for k in range(first, last):
        await session.observe(transition(k))
        if k % 10 == 9:
            await session.on_episode(float(k), 10, EpisodeStatus.TERMINATED, actor_id=k % 3)


async def test_two_halves_equal_one_whole(tmp_path: Path) -> None:
    whole = dqn()
    async with TrainingSession(whole, await TrainingRun.create("whole", root=tmp_path)) as session:
        await feed(session, 0, 200)
    run = await TrainingRun.create("halves", root=tmp_path)
    async with TrainingSession(dqn(), run) as session:
        await feed(session, 0, 120)
        assert await session.maybe_save_best(7.0)
    resumed = await TrainingRun.resume(tmp_path / "halves")
    half = dqn()
    async with TrainingSession(half, resumed) as second:
        assert (second.total_steps, second.total_episodes, second.best_value) == (120, 12, 7.0)
        assert second.steps_per_sec == 0.0
        assert half.exploration_rate < 1.0
        assert not await second.maybe_save_best(6.9)
        await feed(second, 120, 200)
    ours, theirs = half.state_dict(), whole.state_dict()
    assert set(ours["network"]) == set(theirs["network"])
    for name, weight in theirs["network"].items():
        assert torch.equal(ours["network"][name], weight), name
    assert second.stats_summary() == pytest.approx(session.stats_summary() | second.stats_summary())
    assert second.total_episodes == 20
    rows = [
        json.loads(line) for line in (resumed.directory / "train_episodes.jsonl").read_text().splitlines()
    ]
    assert [row["episode"] for row in rows] == list(range(1, 21))
    assert [row["attempt"] for row in rows] == [1] * 12 + [2] * 8
    assert [attempt.from_steps for attempt in resumed.metadata.attempts] == [0, 120]


async def test_a_checkpoint_of_another_run_is_refused_though_all_counters_agree(tmp_path: Path) -> None:
    runs = [await TrainingRun.create(name, root=tmp_path) for name in ("mine", "theirs")]
    for run in runs:
        async with TrainingSession(dqn(), run) as session:
            await feed(session, 0, 30)
    shutil.copy(runs[1].checkpoint_path(30), runs[0].checkpoint_path(30))
    assert [f.file for f in verify_run(runs[0]) if f.kind == "damaged"] == ["checkpoints/step_30.pt"]
    with pytest.raises(CheckpointCorrupt, match="another run"):
        await TrainingSession(dqn(), await TrainingRun.resume(runs[0].directory)).open()


async def test_rows_of_an_abandoned_future_are_told_apart(tmp_path: Path) -> None:
    run = await TrainingRun.create("abandoned", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=100) as session:
        for k in range(150):
            await session.observe(transition(k))
            if k % 10 == 9:
                await session.on_episode(float(k), 10, EpisodeStatus.TERMINATED)
    run.checkpoint_path(150).unlink()  # as if it had been killed before the final one
    (run.checkpoints_directory / "latest.pt").unlink()
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), resumed, roll_forward=False) as session:
        # The checkpoint at step 100 lies before the tenth episode's end, which came after it.
        assert (session.total_steps, session.total_episodes) == (100, 9)
        await session.on_episode(-1.0, 1, EpisodeStatus.TERMINATED)
    effective = await resumed.read_train_episodes()
    assert effective["episode"].tolist() == list(range(1, 11))
    assert effective["total_reward"].tolist() == [9.0 + 10 * i for i in range(9)] + [-1.0]
    everything = await resumed.read_train_episodes(all_attempts=True)
    assert len(everything["episode"]) == 16
    assert resumed.metadata.total_episodes == 10


async def test_a_broken_newest_checkpoint_is_set_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("broken", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=10) as session:
        for k in range(20):
            await session.observe(transition(k))
    torn = run.checkpoint_path(20)
    torn.write_bytes(torn.read_bytes()[:200])
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 20, "the journal leads there from the checkpoint before"
    assert session.run is not None
    assert session.run.metadata.attempts[-1].checkpoint_step == 10
    assert "step_20.pt" in caplog.text
    assert (run.checkpoints_directory / "step_20.pt.broken").exists()


async def test_a_run_whose_checkpoints_are_all_broken_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("broken", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(transition(0))
    for path in run.checkpoints_directory.glob("*.pt"):
        path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointCorrupt, match="not a whole checkpoint"):
        await TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)).__aenter__()


async def test_a_run_of_another_agent_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("other", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(transition(0))
    with pytest.raises(ConfigError, match="trained by the agent FakeAgent, this is DQN"):
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()


async def test_only_latest_is_enough_to_resume(tmp_path: Path) -> None:
    run = await TrainingRun.create("latest", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=10, keep_checkpoints=0) as session:
        for k in range(25):
            await session.observe(transition(k))
    assert run.checkpoint_steps() == []
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 25


async def test_one_run_object_serves_two_sessions_in_turn(tmp_path: Path) -> None:
    run = await TrainingRun.create("twice", root=tmp_path)
    agent: Any = FakeAgent()
    for expected in (10, 20):
        async with TrainingSession(agent, run) as session:
            for k in range(10):
                await session.observe(transition(k))
        assert session.total_steps == agent.total_steps == expected
    assert [attempt.from_steps for attempt in run.metadata.attempts] == [0, 10]
