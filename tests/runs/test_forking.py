"""A fork: a run that begins with another one's checkpoint and history, and disturbs nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    CheckpointCorrupt,
    CheckpointNotFound,
    ConfigError,
    DQNConfig,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    RunBroken,
    RunNotFound,
    TrainingRun,
    TrainingSession,
    list_runs,
)
from stoker.errors import JournalBroken
from stoker.runs import fork
from stoker.writer import load_checkpoint

pytestmark = pytest.mark.anyio
CONFIG = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=8, buffer_size=40, epsilon_decay_steps=90)


def dqn() -> DQN:
    box = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    return DQN(box, gymnasium.spaces.Discrete(2), CONFIG, seed=3)


async def feed(session: TrainingSession, first: int, last: int) -> None:
    for k in range(first, last):
        rng = np.random.default_rng(k)
        before, after = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
        status = EpisodeStatus.TERMINATED if k % 10 == 9 else EpisodeStatus.CONTINUING
        await session.observe(Experience(before, int(rng.integers(2)), float(rng.normal()), after, status, 0))
        if k % 10 == 9:
            await session.on_episode(float(k), 10, EpisodeStatus.TERMINATED)
        if k % 30 == 29:
            await session.checkpoint()


def settings(**more: Any) -> dict[str, Any]:
    return {"checkpoint_freq": 0, "keep_checkpoints": None, "journal_segment_bytes": 1000} | more


@pytest.fixture
async def source(tmp_path: Path) -> TrainingRun:
    """150 steps in two attempts, the second from step 60; best policies at 60 and 120."""
    run = await TrainingRun.create("source", root=tmp_path)
    await run.write_config({"env": "Chain-v0"})
    async with TrainingSession(dqn(), run, **settings(keep_best=3)) as session:
        await feed(session, 0, 60)
        await session.maybe_save_best(5.0)
        await session.on_eval_episode(EpisodeRecord(5.0, 10, EpisodeStatus.TERMINATED))
        await feed(session, 60, 75)
    for name in ("step_75.pt", "latest.pt"):
        (run.checkpoints_directory / name).unlink()
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(dqn(), resumed, roll_forward=False, **settings(keep_best=3)) as session:
        assert session.total_steps == 60
        await feed(session, 60, 120)
        await session.maybe_save_best(7.0)
        await session.on_eval_episode(EpisodeRecord(7.0, 10, EpisodeStatus.TERMINATED))
        await feed(session, 120, 150)
    return resumed


def contents(run: TrainingRun) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("step", "best", "evaluations", "attempts"),
    [(30, None, [], 1), (90, (5.0, 60), [60], 2), (150, (7.0, 120), [60, 120], 2)],
)
async def test_a_fork_is_the_source_up_to_its_checkpoint(
    source: TrainingRun, tmp_path: Path, step: int, best: Any, evaluations: list[int], attempts: int
) -> None:
    before = contents(source)
    forked = await fork(source, step, "variant", "v2", root=tmp_path / "other")
    assert contents(source) == before
    assert forked.directory.parent == tmp_path / "other" / "variant" / "v2"
    metadata = (await TrainingRun.open(tmp_path / "other" / "variant")).metadata
    assert metadata == forked.metadata
    assert (metadata.name, metadata.version, metadata.run_id) == ("variant", "v2", forked.directory.name)
    assert (metadata.forked_from, metadata.forked_at_step) == (str(source.directory), step)
    assert (metadata.total_steps, metadata.total_episodes) == (step, step // 10)
    assert metadata.attempts == source.metadata.attempts[:attempts]
    assert (await forked.read_config()) == {"env": "Chain-v0"}
    rows = await forked.read_train_episodes(all_attempts=True)
    assert rows["episode"].tolist() == list(range(1, step // 10 + 1))
    assert (await forked.read_eval_episodes())["total_steps_at_eval"].tolist() == evaluations
    assert forked.checkpoint_steps() == [step]
    assert forked.checkpoint_path(step).samefile(forked.checkpoints_directory / "latest.pt")
    assert forked.load_best_score() == best
    assert (metadata.best_value, metadata.best_step) == (best or (None, None))
    for path in forked.directory.rglob("*"):
        links = 2 if path.name in (f"step_{step}.pt", "latest.pt") else 1
        assert path.is_dir() or path.stat().st_nlink == links, "nothing is shared with the source"
    assert forked.holder() is None


async def test_a_fork_continues_as_its_source_did(source: TrainingRun, tmp_path: Path) -> None:
    forked = await fork(source, 90, "variant", root=tmp_path)
    agent = dqn()
    async with TrainingSession(agent, await TrainingRun.resume(forked.directory), **settings()) as session:
        assert (session.total_steps, session.total_episodes) == (90, 9)
        await feed(session, 90, 150)
    ours, theirs = agent.state_dict(), load_checkpoint(source.checkpoint_path(150))["agent"]
    for name, weight in theirs["network"].items():
        assert torch.equal(ours["network"][name], weight), name
    rows = await forked.read_train_episodes()
    assert rows["episode"].tolist() == list(range(1, 16))
    again = await fork(await TrainingRun.open(forked.directory), 120, "variant2", root=tmp_path)
    assert again.metadata.forked_from == str(forked.directory)


async def test_the_journal_of_a_fork_ends_at_its_checkpoint(source: TrainingRun, tmp_path: Path) -> None:
    for step in (30, 60, 90, 150):
        forked = await fork(source, step, f"from-{step}", root=tmp_path)
        session = load_checkpoint(forked.checkpoint_path(step))["session"]
        assert forked.journal.n_events() == session["events"]
        report = forked.journal.check()
        assert (report.torn_bytes, report.problems) == (0, [])
        again = await fork(forked, step, f"again-{step}", root=tmp_path)
        assert again.journal.n_events() == session["events"]
    assert source.journal.n_events() >= 150 + 15


async def test_a_torn_tail_is_not_copied(source: TrainingRun, tmp_path: Path) -> None:
    last = source.journal.segments()[-1].path
    with last.open("ab") as file:
        file.write(b"\xf5\x4a torn")
    forked = await fork(source, 150, "variant", root=tmp_path)
    report = forked.journal.check()
    assert (report.torn_bytes, report.problems) == (0, [])
    assert forked.journal.n_events() == load_checkpoint(forked.checkpoint_path(150))["session"]["events"]


async def test_without_replay_no_journal_is_needed(source: TrainingRun, tmp_path: Path) -> None:
    for path in source.journal_directory.iterdir():
        path.unlink()
    with pytest.raises(
        JournalBroken, match=r"step 90 .*fork a newer step, or add --without-replay"
    ) as caught:
        await fork(source, 90, "variant", root=tmp_path / "a")
    assert "left empty" in caught.value.__notes__[0]
    assert await list_runs(tmp_path / "a") == [], "a half-made one is no run"
    with pytest.raises(RunNotFound):
        await TrainingRun.open(tmp_path / "a")
    forked = await fork(source, 90, "variant", root=tmp_path / "b", with_replay=False)
    state = load_checkpoint(forked.checkpoint_path(90))
    assert state["journal"] is None
    assert "replay" not in state
    assert not forked.journal_directory.exists()
    agent = dqn()
    async with TrainingSession(agent, forked, **settings()) as session:
        assert session.total_steps == 90
        await feed(session, 90, 100)


async def test_a_replay_that_is_in_the_checkpoint_is_forked_with_it(tmp_path: Path) -> None:
    run = await TrainingRun.create("source", root=tmp_path)
    async with TrainingSession(dqn(), run, **settings(journal=False)) as session:
        await feed(session, 0, 40)
    kept = await fork(run, 40, "kept", root=tmp_path)
    assert torch.is_tensor(next(iter(load_checkpoint(kept.checkpoint_path(40))["agent"]["network"].values())))
    assert "replay" in load_checkpoint(kept.checkpoint_path(40))
    bare = await fork(run, 40, "bare", root=tmp_path, with_replay=False)
    assert "replay" not in load_checkpoint(bare.checkpoint_path(40))


async def test_a_source_that_is_training_is_read_and_not_disturbed(tmp_path: Path) -> None:
    run = await TrainingRun.create("source", root=tmp_path)
    async with TrainingSession(dqn(), run, **settings()) as session:
        await feed(session, 0, 45)
        await session.flush()
        forked = await fork(run, 30, "variant", root=tmp_path)
        assert forked.metadata.total_episodes == 3
        await feed(session, 45, 60)
    assert run.checkpoint_steps() == [30, 60]


async def test_a_fork_that_is_refused_says_why(source: TrainingRun, tmp_path: Path) -> None:
    root = tmp_path / "other"
    with pytest.raises(CheckpointNotFound, match="no checkpoint of step 7: it has 30, 60, 90, 120, 150"):
        await fork(source, 7, "variant", root=root)
    for name, version in [("..", "v1"), ("a/b", "v1"), ("fine", ".")]:
        with pytest.raises(ConfigError):
            await fork(source, 30, name, version, root=root)
    content = bytearray(source.checkpoint_path(30).read_bytes())
    content[500] ^= 1
    source.checkpoint_path(30).write_bytes(content)
    with pytest.raises(CheckpointCorrupt):
        await fork(source, 30, "variant", root=root)
    assert not root.exists()
    rows = source.directory / "train_episodes.jsonl"
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(RunBroken, match="8 of the 9 episodes before step 90 are in it"):
        await fork(source, 90, "variant", root=root)
    assert await list_runs(root) == []


async def test_a_file_that_is_not_the_checkpoint_of_its_name_is_not_forked(
    source: TrainingRun, tmp_path: Path
) -> None:
    for other in (source.best_checkpoint_path, source.checkpoint_path(60)):
        source.checkpoint_path(30).write_bytes(other.read_bytes())
        with pytest.raises(CheckpointCorrupt, match=r"step_30\.pt: .* not a step checkpoint of step 30"):
            await fork(source, 30, "variant", root=tmp_path / "other")
    assert not (tmp_path / "other").exists()


async def test_a_damaged_journal_is_noticed(source: TrainingRun, tmp_path: Path) -> None:
    segments = source.journal.segments()
    assert len(segments) > 5
    for segment in segments:
        content = bytearray(segment.path.read_bytes())
        content[len(content) // 2] ^= 8
        segment.path.write_bytes(content)
    with pytest.raises(JournalBroken, match="fork a newer step"):
        await fork(source, 120, "variant", root=tmp_path / "other")


async def test_a_damaged_best_is_left_out(
    source: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(source.best_checkpoint_path.read_bytes())
    content[500] ^= 1
    source.best_checkpoint_path.write_bytes(content)
    forked = await fork(source, 150, "variant", root=tmp_path)
    assert forked.load_best_score() == (5.0, 60)
    assert any("goes without it" in record.message for record in caplog.records)
