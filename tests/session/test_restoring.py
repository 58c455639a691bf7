"""What a checkpoint and the journal give back together: the agent as it was, to the bit, or an error."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from anyio import to_thread
from hypothesis import given, settings, strategies as st
from training_parts import bits, dqn, feed, restore_into, transition, unequal

from stoker import (
    CheckpointCorrupt,
    CheckpointNotFound,
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    JournalBroken,
    RunBroken,
    TrainingRun,
    TrainingSession,
)
from stoker.cli.main import main
from stoker.journal import EpisodeStarted
from stoker.runs import fork
from stoker.writer import load_checkpoint, publish_checkpoint

TERMINATED = EpisodeStatus.TERMINATED


async def live(root: Path, attempts: list[list[int]], n_actors: int, **given: Any) -> None:
    """Train over several attempts, and hold each checkpoint beside what the agent was then."""
    agent_settings = {name: given[name] for name in ("buffer_size", "n_step")}
    agent_settings |= {"learning_starts": 4, "normalize_observations": given["n_step"] == 2}
    run = await TrainingRun.create("rebuilt", root=root)
    saved: dict[int, dict[str, Any]] = {}
    k = 0
    for number, pieces in enumerate(attempts):
        agent = dqn(seed=number, **agent_settings)
        if number:
            run = await TrainingRun.resume(run.directory)
        async with TrainingSession(
            agent, run, checkpoint_freq=0, keep_checkpoints=None, journal_segment_bytes=given["segment_bytes"]
        ) as session:
            for length in pieces:
                for _ in range(length):
                    step = transition(k, n_actors, episode=7)
                    if k % 13 == 5:  # gives an episode up
                        await session.on_episode_start(k % n_actors)
                    await session.observe(step)
                    if step.status.is_done:
                        await session.on_episode(0.0, 7, step.status, actor_id=step.actor_id)
                    k += 1
                await session.checkpoint()
                saved[session.total_steps] = bits(agent)
        if session.total_steps in saved:  # giving episodes up may have made the last one another
            saved[session.total_steps] = bits(agent)
    assert run.checkpoint_steps() == sorted(saved)
    for step_, was in saved.items():
        state = load_checkpoint(run.checkpoint_path(step_))
        assert ("replay" in state) == (state["session"]["events"] == 0), (
            "it is in the journal, once there is one"
        )
        again = dqn(seed=99, **agent_settings)
        learner = restore_into(again, state, run)
        assert list(unequal(was, bits(again))) == []
        assert (learner.total_steps, learner.opt_steps) == (step_, was["agent"]["opt_steps"])


@settings(max_examples=4)
@given(
    attempts=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), min_size=1, max_size=3),
    n_actors=st.integers(1, 5),
    buffer_size=st.integers(4, 40),
    n_step=st.integers(1, 4),
    segment_bytes=st.sampled_from([1, 300, 2_000, 1 << 20]),
)
def test_a_rebuilt_agent_is_the_live_one_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[list[int]], n_actors: int, **given: Any
) -> None:
    """However large the ring, the windows and the segments are, and wherever the checkpoints fall."""
    root = tmp_path_factory.mktemp("runs")
    anyio.run(lambda: live(root, attempts, n_actors, **given))


def ordered(agent: Any) -> list[float]:
    """The rewards that the replay holds, the oldest first."""
    state = agent.replay.state_dict()
    found = state["rewards"].tolist()
    at = state["position"] if state["size"] == state["capacity"] else 0
    return found[at:] + found[:at]


@pytest.mark.anyio
@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("buffer_size", [10, 51])
async def test_with_another_size_the_newest_that_fit_are_there(
    tmp_path: Path, journal: bool, buffer_size: int
) -> None:
    run = await TrainingRun.create("resized", root=tmp_path)
    first, second, third = dqn(), dqn(buffer_size=buffer_size), dqn(buffer_size=buffer_size)
    async with TrainingSession(first, run, journal=journal, journal_segment_bytes=500) as session:
        await feed(session, 0, 130)
    expected = ordered(first)[-buffer_size:]
    async with TrainingSession(second, await TrainingRun.resume(run.directory), journal=journal) as session:
        assert ordered(second)[-len(expected) :] == expected
        assert len(second.replay) <= buffer_size
        await feed(session, 130, 170)
    # What was rebuilt at another size goes on, and can be rebuilt itself.
    async with TrainingSession(third, await TrainingRun.resume(run.directory), journal=journal) as session:
        assert session.total_steps == 170
        assert list(unequal(bits(second)["replay"], bits(third)["replay"])) == []


@pytest.mark.anyio
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_another_n_step_is_refused_by_name(tmp_path: Path, before: int, after: int) -> None:
    run = await TrainingRun.create("n_step", root=tmp_path)
    async with TrainingSession(dqn(n_step=before), run) as session:
        await feed(session, 0, 33)
    for _ in range(2):  # the run stays as it was, and unlocked
        with pytest.raises(ConfigError, match=r"n_step"):
            await TrainingSession(dqn(n_step=after), await TrainingRun.resume(run.directory)).__aenter__()
    async with TrainingSession(dqn(n_step=before), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 33


def damage(run: TrainingRun, event: int) -> str:
    """Flip a bit in the segment that holds the event; its name."""
    segment = max((s for s in run.journal.segments() if s.first_event <= event), key=lambda s: s.first_event)
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 2] ^= 1
    segment.path.write_bytes(bytes(data))
    return segment.path.name


async def trained(root: Path, **settings: Any) -> TrainingRun:
    run = await TrainingRun.create("damaged", root=root)
    async with TrainingSession(
        dqn(), run, checkpoint_freq=30, journal_segment_bytes=400, keep_journal="all", **settings
    ) as session:
        for k in range(0, 120, 3):
            await feed(session, k, k + 3)
            await session.flush()
    return run


@pytest.mark.anyio
async def test_where_the_journal_fails_the_newest_the_one_before_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await trained(tmp_path)
    assert run.checkpoint_steps() == [60, 90, 120]
    name = damage(run, load_checkpoint(run.checkpoint_path(120))["session"]["events"] - 5)
    agent, whole = dqn(seed=8), dqn(seed=7)
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(agent, resumed, roll_forward=False) as session:
        assert session.total_steps == 90
        assert session.total_episodes == 8, "the ninth ended behind the ninetieth step"
        was = bits(agent)
        await feed(session, 90, 120)
    warnings = [record.getMessage() for record in caplog.records]
    assert any("step_120.pt cannot be resumed" in text and name in text for text in warnings)
    assert (run.checkpoints_directory / "step_120.pt.abandoned").exists()
    restore_into(whole, load_checkpoint(run.checkpoint_path(90)), run)
    whole.on_episode_start(0)
    whole.on_episode_start(1)
    whole.on_episode_start(2)
    assert list(unequal(bits(whole), was)) == []
    # What was trained anew stands on the journal as it is now.
    async with TrainingSession(dqn(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 120


@pytest.mark.anyio
async def test_a_replay_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    """The checkpoint before the failing one brings no replay: the run is a fork without one."""
    run = await TrainingRun.create("source", root=tmp_path)
    async with TrainingSession(dqn(), run) as session:
        await feed(session, 0, 30)
    forked = await fork(run, 30, "fork", root=tmp_path, with_replay=False)
    again = await TrainingRun.resume(forked.directory)
    async with TrainingSession(dqn(), again, journal_segment_bytes=400) as session:
        for k in range(30, 90, 3):
            await feed(session, k, k + 3)
            await session.flush()
    assert again.checkpoint_steps() == [30, 90]
    damage(again, load_checkpoint(again.checkpoint_path(90))["session"]["events"] - 5)
    agent = dqn()
    resumed = await TrainingRun.resume(forked.directory)
    async with TrainingSession(agent, resumed, roll_forward=False) as session:
        assert session.total_steps == 30
        assert len(agent.replay) == 0


@pytest.mark.anyio
async def test_where_the_journal_fails_them_all_that_is_said(tmp_path: Path) -> None:
    run = await trained(tmp_path)
    for step in (60, 90, 120):
        damage(run, load_checkpoint(run.checkpoint_path(step))["session"]["events"] - 2)
    for _ in range(2):
        with pytest.raises(JournalBroken, match=r"cannot be read") as caught:
            await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
        [note] = caught.value.__notes__
    assert run.checkpoint_steps() == [60, 90, 120], "nothing was set aside: the files are whole"
    # The way out that it names is one.
    words = shlex.split(note.partition("`")[2].removesuffix("`"))
    assert words[:5] == ["stoker", "fork", str(run.directory), "--at-step", "120"]
    assert await to_thread.run_sync(main, [*words[1:], "--runs-dir", str(tmp_path)]) == 0
    async with TrainingSession(dqn(), await TrainingRun.resume(tmp_path / "NEW")) as session:
        assert session.total_steps == 120
        assert len(session.engine.parts.learner.agent.replay) == 0  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_with_nothing_but_latest_the_way_out_is_one_as_well(tmp_path: Path) -> None:
    run = await trained(tmp_path, keep_checkpoints=0)
    assert run.checkpoint_steps() == []
    damage(run, load_checkpoint(run.latest_checkpoint_path)["session"]["events"] - 2)
    with pytest.raises(JournalBroken) as caught:
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
    assert "--at-step 120 " in caught.value.__notes__[0]
    forked = await fork(run, 120, "NEW", root=tmp_path, with_replay=False)
    async with TrainingSession(dqn(), await TrainingRun.resume(forked.directory)) as session:
        assert session.total_steps == 120


@pytest.mark.anyio
async def test_a_resume_that_fails_fails_again_and_never_begins_anew(tmp_path: Path) -> None:
    run = await trained(tmp_path)
    whole = {path: path.read_bytes() for path in run.checkpoints_directory.glob("*.pt")}
    for path in whole:
        path.write_bytes(b"torn")
    for _ in range(3):
        with pytest.raises(CheckpointCorrupt, match="step_120"):
            await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
    for path in whole:
        path.unlink()
    for _ in range(2):
        with pytest.raises(CheckpointNotFound, match="put one back"):
            await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
    run.checkpoint_path(90).write_bytes(whole[run.checkpoint_path(90)])
    async with TrainingSession(dqn(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 120


@pytest.mark.anyio
async def test_a_best_policy_under_the_name_of_a_step_is_refused_by_its_kind(tmp_path: Path) -> None:
    run = await trained(tmp_path)
    path = run.checkpoint_path(120)
    state = load_checkpoint(path)
    del state["session"]["run_started_at"]
    publish_checkpoint({**state, "kind": "best"}, path)
    with pytest.raises(ConfigError, match=r"120\.pt: it is a 'best' of format 4, this stoker resumes a"):
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()


@pytest.mark.anyio
@pytest.mark.parametrize("part", ["session", "agent", "agent_type", "all"])
async def test_a_checkpoint_with_the_content_of_another_version_is_refused_in_one_line(
    tmp_path: Path, part: str
) -> None:
    run = await trained(tmp_path)
    path = run.checkpoint_path(120)
    state = load_checkpoint(path)
    if part == "session":
        state["session"]["actor_episodes"] = [(0, 1, 2)]
    elif part == "agent":
        state["agent"]["steps"] = [(0, 1, 2)]
    elif part == "agent_type":
        del state["agent_type"]
    else:
        state = {"weights": state["agent"]}
    publish_checkpoint(state, path)
    with pytest.raises((RunBroken, ConfigError)) as raised:
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
    assert str(raised.value).startswith(f"{path}: it")
    assert "use the version of stoker and of the agent that wrote it" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("file", "cut", "said"),
    [
        ("train_episodes.jsonl", slice(3, 4), "1 of 12 rows are missing, from line 4 on"),
        ("train_episodes.jsonl", slice(10, 12), "2 of 12 rows are missing, from line 11 on"),
        ("train_episodes.jsonl", slice(0, 12), "12 of 12 rows are missing, from line 1 on"),
        ("eval_episodes.jsonl", slice(2, 3), "1 of 3 rows are missing, from line 3 on"),
        ("train_episodes.jsonl", None, "line 4 is not a row (its checksum"),
        ("eval_episodes.jsonl", slice(3, 3), ""),
        ("train_episodes.jsonl", slice(12, 12), ""),
    ],
)
async def test_rows_that_are_lost_are_told_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, cut: slice | None, said: str
) -> None:
    run = await TrainingRun.create("rows", root=tmp_path)
    async with TrainingSession(dqn(), run) as session:
        await feed(session, 0, 120)
        for _ in range(3):
            await session.on_eval_episode(EpisodeRecord(1.0, 5, TERMINATED))
    path = run.directory / file
    lines = path.read_bytes().splitlines(keepends=True)
    if cut is None:
        lines[3] = lines[3].replace(b"1", b"2", 1)
    else:
        del lines[cut]
    path.write_bytes(b"".join(lines))
    async with TrainingSession(dqn(), await TrainingRun.resume(run.directory)) as session:
        assert session.total_steps == 120
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if not said:
        assert told == []
        return
    [text] = told
    assert text.startswith(f"{path}: {said}")
    assert f"`stoker verify {run.directory}`" in text


@pytest.mark.anyio
async def test_a_segment_that_is_gone_is_as_bad_as_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await trained(tmp_path)
    needed = load_checkpoint(run.checkpoint_path(120))["journal"]["rebuild_from"]
    (first,) = [s for s in run.journal.segments() if s.first_event == needed]
    earlier = load_checkpoint(run.checkpoint_path(60))["session"]["events"]
    first.path.unlink()
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(dqn(), resumed, roll_forward=False) as session:
        assert session.total_steps == (60 if needed < earlier + 30 else 90)
    assert "step_120.pt cannot be resumed" in caplog.text


@pytest.mark.anyio
async def test_all_goes_on_but_the_running_episodes(tmp_path: Path) -> None:
    run = await TrainingRun.create("on", root=tmp_path)
    first, second = dqn(n_step=3), dqn(seed=9, n_step=3)
    async with TrainingSession(first, run) as session:
        await feed(session, 0, 95)
        assert await session.maybe_save_best(4.0)
    before, events = bits(first), session.engine.parts.learner.n_events
    open_before = dict(session.engine.parts.learner.actors.running)
    assert open_before.keys() == {0, 1, 2}
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(second, resumed) as again:
        assert (again.total_steps, again.total_episodes, again.opt_steps) == (95, 9, first.opt_steps)
        assert again.best_value == 4.0
        assert second.exploration_rate == first.exploration_rate
        assert again.stats_summary() == session.stats_summary()
        assert {a: again.actor_episodes(a) for a in range(3)} == {
            a: session.actor_episodes(a) for a in range(3)
        }
        assert again.engine.parts.learner.actors.running == {}
        for part in ("network", "target", "optimizer", "explore_generator"):
            assert list(unequal(before["agent"][part], bits(second)["agent"][part])) == []
        for actor_id in open_before:
            first.on_episode_start(actor_id)
        assert list(unequal(bits(first), bits(second))) == [], "given up as if new ones had begun"
        await again.flush()
        assert [event for _, event in resumed.journal.read(events, events + 3)] == [
            EpisodeStarted(actor_id) for actor_id in open_before
        ]
        await feed(again, 95, 100)


@pytest.mark.anyio
async def test_a_checkpoint_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    run = await TrainingRun.create("format", root=tmp_path)
    async with TrainingSession(dqn(), run) as session:
        await feed(session, 0, 20)
    for change, message in (({"format": 1}, "format 1"), ({"kind": "best"}, "'best'")):
        state = load_checkpoint(run.latest_checkpoint_path)
        with pytest.raises(ConfigError, match=message):
            restore_into(dqn(), {**state, **change}, run)
    state = load_checkpoint(run.checkpoint_path(20))
    with pytest.raises(ConfigError, match="RebuildsReplay"):
        restore_into(Forgetful(), {**state, "agent_type": "Forgetful"}, run)
    publish_checkpoint({**state, "format": 99}, run.checkpoint_path(20))
    with pytest.raises(ConfigError, match="99"):
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).__aenter__()
    assert torch.load(run.checkpoint_path(20), weights_only=True)["format"] == 99


class Forgetful:
    """An agent that cannot read a journal."""

    total_steps = 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
