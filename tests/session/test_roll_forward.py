"""A resume learns the tail of the journal: what was durable when a process was killed is there afterwards."""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import torch
from dying import Order, agent_for, chain_agent, kept_of, play, play_in_turns
from training_parts import bits, feed, rows, unequal

import launching
from stoker import TrainingRun, TrainingSession
from stoker.errors import ConfigError, JournalBroken, RelearningFailed, UnexpectedExit
from stoker.runs.verifying import verify_run
from stoker.session.replaying import replay_run
from stoker.session.tail import progress_told
from stoker.stats import EpisodeRecord
from stoker.testing import FakeAgent
from stoker.types import EpisodeStatus

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).with_name("dying.py")
SETTINGS: dict[str, Any] = {
    "checkpoint_freq": 100,
    "journal_segment_bytes": 3000,
    "keep_journal": "all",
    "keep_checkpoints": None,
    "record_freq": 40,
}


def run_to_death(root: Path, until: int, agent: str = "dqn", **more: Any) -> int:
    """Train in a process of its own that is killed at that step; return its exit code."""
    settings = {**SETTINGS, **more.pop("settings", {})}
    order = Order(root=str(root), agent=agent, until=until, settings=settings, **more)
    return launching.run([sys.executable, str(PROGRAM), msgspec.json.encode(order).decode()]).returncode


def live_and_die(root: Path, until: int, agent: str = "dqn", **more: Any) -> Any:
    """The same; return what the training was when it was killed."""
    assert run_to_death(root, until, agent, **more) == -signal.SIGKILL
    return torch.load(root / "at_death.pt", weights_only=True)


async def dying(root: Path) -> TrainingRun:
    return await TrainingRun.resume(root / "dying")


def lines(run: TrainingRun, name: str) -> list[dict[str, Any]]:
    path = run.directory / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_each_episode_once(run: TrainingRun) -> bool:
    numbers = [row["episode"] for row in lines(run, "train_episodes.jsonl")]
    return len(numbers) > 3 and numbers == list(range(1, len(numbers) + 1))


def contents(run: TrainingRun) -> dict[Path, bytes]:
    """All files but for the lock and the lease, which name their holder."""
    files = (path for path in run.directory.rglob("*") if path.stem not in (".lock", ".lease"))
    return {path: path.read_bytes() for path in files if path.is_file()}


def damaged(run: TrainingRun) -> list[str]:
    return [f"{finding.file}: {finding.text}" for finding in verify_run(run) if finding.kind == "damaged"]


@pytest.mark.parametrize(("kind", "n_rows"), [("dqn", 1), ("dqn", 8), ("ppo", 1), ("ppo", 8)])
async def test_what_was_flushed_is_there_after_each_kill(tmp_path: Path, kind: str, n_rows: int) -> None:
    """The first kill comes before any checkpoint, the others come between two."""
    for until in (56, 168, 296):
        was = live_and_die(tmp_path, until, kind, n_rows=n_rows)
        run, agent = await dying(tmp_path), agent_for(kind)
        async with TrainingSession(agent, run, **SETTINGS) as session:
            assert list(unequal(was, kept_of(session, agent))) == []
            assert session.total_steps == until
        assert damaged(run) == []
    assert is_each_episode_once(run)
    records = [(row["total_steps"], row["opt_steps"]) for row in lines(run, "metrics.jsonl")]
    assert [steps for steps, _ in records] == list(range(40, 296, 40))
    replayed = replay_run(run, agent_for(kind))
    assert (replayed.from_steps, replayed.total_steps) == (0, 296)
    assert [found for found in replayed.comparisons if found.differences] == []
    assert len(replayed.comparisons) >= 5


async def test_a_kill_while_the_tail_is_learned_changes_nothing(tmp_path: Path) -> None:
    was = live_and_die(tmp_path, 180)
    run = await dying(tmp_path)
    before = contents(run)
    for opt_step in (100, 150, 120):
        assert run_to_death(tmp_path, 999, dies_in_learning=opt_step) == -signal.SIGKILL
        assert contents(run) == before
    async with TrainingSession(agent := agent_for("dqn"), await dying(tmp_path), **SETTINGS) as session:
        assert list(unequal(was, kept_of(session, agent))) == []


async def test_rows_that_a_kill_kept_from_the_disk_are_written_once(tmp_path: Path) -> None:
    """Also if the next process is killed as soon as its session is open."""
    live_and_die(tmp_path, 180)
    run = await dying(tmp_path)
    whole = {name: lines(run, name) for name in ("train_episodes.jsonl", "metrics.jsonl")}
    for name, kept in (("train_episodes.jsonl", 11), ("metrics.jsonl", 3)):
        path = run.directory / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    live_and_die(tmp_path, 180)
    live_and_die(tmp_path, 180)
    async with TrainingSession(agent_for("dqn"), await dying(tmp_path), **SETTINGS):
        pass
    assert is_each_episode_once(run)
    assert damaged(run) == []
    left_out = {"time", "crc", "attempt", "metrics"}
    for name, expected in whole.items():
        plain = [{key: row[key] for key in row.keys() - left_out} for row in lines(run, name)]
        assert plain == [{key: row[key] for key in row.keys() - left_out} for row in expected]
    attempts = [row["attempt"] for row in lines(run, "train_episodes.jsonl")]
    assert attempts[:11] == [1] * 11
    assert min(attempts[11:]) > 1


async def test_rows_whose_events_are_lost_do_not_count(tmp_path: Path) -> None:
    live_and_die(tmp_path, 180, settings={"journal_segment_bytes": 1 << 20})
    run = await dying(tmp_path)
    newest = run.journal.segments()[-1].path
    newest.write_bytes(newest.read_bytes()[:-1000])  # as a power cut may leave it
    end, steps = run.journal.end()
    async with TrainingSession(agent_for("dqn"), await dying(tmp_path), **SETTINGS) as session:
        assert session.total_steps == steps < 175
        await play(session, 180)
    columns = await run.read_train_episodes()
    assert columns["episode"].tolist() == list(range(1, 19))
    assert len((await run.read_train_episodes(all_attempts=True))["episode"]) > 18
    assert damaged(run) == []
    assert end < session.engine.parts.learner.n_events


async def damage(run: TrainingRun, event: int) -> Path:
    """Flip a bit of that event's record."""
    [path] = [path for path, length in run.journal.parts(event, event + 1)]
    length = dict(run.journal.parts(event, event + 1))[path] or path.stat().st_size
    data = bytearray(path.read_bytes())
    data[length - 3] ^= 1
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("n_behind", "n_lost"), [(60, 60), (5, 4)], ids=["in-an-older-segment", "in-the-newest"]
)
async def test_a_damaged_tail_is_learned_up_to_the_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n_behind: int, n_lost: int
) -> None:
    live_and_die(tmp_path, 190)
    run = await dying(tmp_path)
    end, _ = run.journal.end()
    path = await damage(run, end - n_behind)
    before = contents(run)
    with pytest.raises(JournalBroken, match=path.name) as caught:
        await TrainingSession(agent_for("dqn"), run, roll_forward="strict", **SETTINGS).open()
    assert "--strict" in caught.value.__notes__[0]
    assert contents(run) == before
    agent = agent_for("dqn")
    async with TrainingSession(agent, await dying(tmp_path), **SETTINGS) as session:
        assert 100 < session.total_steps < 190
        assert session.core.learner.n_events >= end - n_behind
        reached = session.total_steps
        await play(session, 195)
    [told] = [record.getMessage() for record in caplog.records if path.name in record.getMessage()]
    assert "byte" in told
    assert f"from step {reached}, and the {n_lost} event" in told
    assert path.exists()
    assert (await run.read_train_episodes())["episode"].tolist() == list(range(1, 20))
    again = agent_for("dqn")
    assert [
        found for found in replay_run(await dying(tmp_path), again).comparisons if found.differences
    ] == []
    assert list(unequal(bits(agent)["replay"], bits(again)["replay"])) == []


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_it_ends_exactly_where_it_is_told_to_or_fails(tmp_path: Path, is_damaged: bool) -> None:
    run = await TrainingRun.create("place", root=tmp_path)
    async with TrainingSession(agent_for("dqn"), run, **SETTINGS) as session:
        await play(session, 150)
    place = run.journal.n_events() - 20
    if is_damaged:
        await damage(run, place - 5)
    before = contents(run)
    again = await TrainingRun.resume(run.directory)
    resumed = TrainingSession(agent_for("dqn"), again, roll_forward_to=place, **SETTINGS)
    if is_damaged:
        with pytest.raises(JournalBroken, match="cannot be read"):
            await resumed.open()
        assert contents(run) == before
    else:
        async with resumed:
            assert 100 < resumed.total_steps < 150
        assert again.metadata.attempts[-1].from_events == place


async def test_without_the_segment_behind_it_a_resume_goes_back_to_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live_and_die(tmp_path, 190)
    run = await dying(tmp_path)
    first = torch.load(run.checkpoint_path(100), weights_only=True)["session"]["events"]
    last, length = run.journal.parts(first - 1, first)[0]
    behind = [segment for segment in run.journal.segments() if segment.first_event >= first]
    assert len(behind) > (behind[0].first_event == first), "or nothing would be missing"
    if behind[0].first_event == first:
        behind[0].path.unlink()
    last.write_bytes(last.read_bytes()[:length])
    async with TrainingSession(agent_for("dqn"), await dying(tmp_path), **SETTINGS) as session:
        assert session.total_steps == 100
    assert "cannot be read" in caplog.text
    assert "goes on from step 100" in caplog.text


async def test_it_goes_back_to_the_checkpoint_if_it_is_told_to(tmp_path: Path) -> None:
    live_and_die(tmp_path, 190)
    run = await dying(tmp_path)
    async with TrainingSession(agent_for("dqn"), run, roll_forward=False, **SETTINGS) as session:
        assert session.total_steps == 100
    assert run.metadata.attempts[-1].relearned_steps == 0


async def test_limits_below_the_tail_end_the_session_at_once(tmp_path: Path) -> None:
    was = live_and_die(tmp_path, 190)
    agent = agent_for("dqn")
    async with TrainingSession(agent, await dying(tmp_path), max_steps=150, max_opts=20) as session:
        assert session.is_done
        assert list(unequal(was, kept_of(session, agent))) == []


async def test_the_last_evaluation_that_was_due_is_handed_out_once(tmp_path: Path) -> None:
    live_and_die(tmp_path, 190)
    settings = {**SETTINGS, "eval_freq": 60, "checkpoint_freq": 0}
    for number in range(2):
        run = await dying(tmp_path)
        async with TrainingSession(agent_for("dqn"), run, **settings) as session:
            session.stop()
            snapshot = await session.next_evaluation()
            if number == 0:
                assert snapshot is not None
                assert snapshot.total_steps == 180
                await session.on_eval_episode(EpisodeRecord(1.0, 3, EpisodeStatus.TERMINATED), snapshot)
            else:
                assert snapshot is None
        for name in ("step_190.pt", "latest.pt"):  # the next one learns the same tail
            (run.checkpoints_directory / name).unlink()
    assert [row["total_steps_at_eval"] for row in lines(run, "eval_episodes.jsonl")] == [180]


async def test_an_agent_that_fails_on_an_event_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    was = live_and_die(tmp_path, 190)
    run, agent = await dying(tmp_path), agent_for("dqn")
    before, learn = contents(run), agent.learn

    def fail() -> Any:
        if agent.opt_steps == 150:
            raise ArithmeticError("no such number")
        return learn()

    agent.learn = sys.exit
    with pytest.raises(UnexpectedExit, match="the agent"):
        await TrainingSession(agent, run, **SETTINGS).open()
    agent.learn = fail
    with pytest.raises(RelearningFailed, match=r"after step 1[56]\d, with ArithmeticError: no such number"):
        await TrainingSession(agent, run, **SETTINGS).open()
    assert contents(run) == before
    async with TrainingSession(agent := agent_for("dqn"), await dying(tmp_path), **SETTINGS) as session:
        assert list(unequal(was, kept_of(session, agent))) == []


async def test_an_agent_that_fails_where_there_is_no_checkpoint_is_as_new_for_the_next_try(
    tmp_path: Path,
) -> None:
    run = await TrainingRun.create("new", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=0, final_checkpoint=False) as session:
        await feed(session, 0, 30)
    agent = FakeAgent(fail_at=20)
    again = await TrainingRun.resume(run.directory)
    with pytest.raises(RelearningFailed):
        await TrainingSession(agent, again).open()
    assert agent.total_steps == 0
    agent.fail_at = None
    async with TrainingSession(agent, again) as session:
        assert session.total_steps == 30


async def test_another_agent_than_the_journals_is_refused_by_both_names(tmp_path: Path) -> None:
    live_and_die(tmp_path, 60)
    with pytest.raises(ConfigError, match=r"by the agent DQN, this is PPO"):
        await TrainingSession(agent_for("ppo"), await dying(tmp_path)).open()


@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("trio", {})],
    ids=["asyncio", "trio"],
    indirect=True,
)
@pytest.mark.parametrize("freq", [0, 100], ids=["without-a-checkpoint", "behind-one"])
async def test_open_can_be_cancelled_within_the_tail(tmp_path: Path, freq: int) -> None:
    settings = {**SETTINGS, "checkpoint_freq": freq, "journal_segment_bytes": 1 << 20}
    was = live_and_die(tmp_path, 199, settings=settings)
    agent, learn = agent_for("dqn"), None
    learn, is_there, may_go = agent.learn, threading.Event(), threading.Event()

    def wait() -> Any:
        if agent.opt_steps == 130:
            is_there.set()
            may_go.wait(30)
        return learn()

    agent.learn = wait
    session = TrainingSession(agent, await dying(tmp_path), **settings)

    async def let_go() -> None:
        await anyio.to_thread.run_sync(is_there.wait, 30)
        opening.cancel()
        may_go.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_go)
        with anyio.CancelScope() as opening:
            await session.open()
    assert opening.cancelled_caught
    del agent.learn
    # The session can be opened again, and so can another one, with the same agent and run.
    await session.open()
    assert list(unequal(was, kept_of(session, agent))) == []
    await session.close()


async def test_the_progress_is_told_and_a_tail_that_no_kill_leaves_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live_and_die(tmp_path, 190)
    said: list[str] = []
    settings = {**SETTINGS, "checkpoint_freq": 8}
    with progress_told(said.append):
        async with TrainingSession(agent_for("dqn"), await dying(tmp_path), **settings) as session:
            assert session.total_steps == 190
    assert said[0] == "learning 90 steps again that were journaled after step 100"
    assert said[-1].startswith("learned 90 steps again in ")
    assert (
        "the journal holds 90 steps behind the checkpoint of step 100, more than 10 periods of 8"
        in caplog.text
    )


async def test_in_lockstep_a_training_that_is_killed_anywhere_ends_as_the_uninterrupted_one(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "lockstep": True, "max_steps": 160, "checkpoint_freq": 50,
        "journal_segment_bytes": 1500, "record_freq": 0,
    }  # fmt: skip
    whole = await TrainingRun.create("whole", root=tmp_path)
    async with TrainingSession(expected := chain_agent(), whole, **{**SETTINGS, **settings}) as session:
        await play_in_turns(session)
    for step in sorted(random.Random(7).sample(range(20, 155), 5)):
        assert run_to_death(tmp_path, step, "chain", settings=settings) == -signal.SIGKILL
    run, agent = await dying(tmp_path), chain_agent()
    async with TrainingSession(agent, run, **{**SETTINGS, **settings}) as session:
        assert session.total_steps > 100, "flushed at the 101st step at the latest"
        await play_in_turns(session)
    assert list(unequal(bits(expected), bits(agent))) == []
    assert [{**row, "attempt": 1} for row in rows(run)] == rows(whole)
    assert len({row["attempt"] for row in rows(run)}) > 1


async def test_an_agent_that_begins_with_other_weights_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live_and_die(tmp_path, 60)
    run = await dying(tmp_path)
    replay_run(run, agent_for("dqn"))
    assert "begins with other weights" not in caplog.text
    replay_run(run, agent_for("dqn", seed=4))
    assert caplog.text.count("begins with other weights") == 1
    async with TrainingSession(agent_for("dqn", seed=4), run, **SETTINGS) as session:
        assert session.total_steps == 60, "no experience is lost"
    assert caplog.text.count("begins with other weights") == 2
