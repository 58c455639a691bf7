"""What a session writes to its journal: every event that training is a function of, in its order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import astuple
from training_parts import bits, dqn, feed, restore_into, transition, unequal

from stoker import (
    ConfigError,
    EpisodeStatus,
    Experience,
    RunBroken,
    SessionFailed,
    TrainingRun,
    TrainingSession,
)
from stoker.journal import EpisodeEnded, EpisodeStarted, Journal, SegmentEncoder
from stoker.journal.header import VERSION
from stoker.runs.verifying import verify_run
from stoker.session.replaying import replay_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
TERMINATED = EpisodeStatus.TERMINATED


class Noting(FakeAgent):
    """Notes starts of episodes among the transitions."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[Any] = []

    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        self.order += [(step.actor_id, step.observation) for step in experiences]

    def on_episode_start(self, actor_id: Any) -> None:
        self.order.append(actor_id)


def step(k: int, actor_id: int | str = 0) -> Experience:
    return Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, actor_id)


def journal_of(run: TrainingRun) -> Journal:
    return run.journal


async def play(session: TrainingSession, actor_id: int, n: int) -> None:
    for k in range(n):
        if k % 10 == 0:
            await session.on_episode_start(actor_id, seed=1000 * actor_id + k)
        await session.observe(step(k, actor_id))
        if k % 3 == actor_id % 3:
            await anyio.lowlevel.checkpoint()
        if k % 10 == 9:
            await session.on_episode(float(k), 10, TERMINATED, {"x": 1.5}, actor_id)


async def test_it_holds_every_event_in_the_order_of_consumption(tmp_path: Path) -> None:
    run = await TrainingRun.create("all", root=tmp_path)
    agent = Noting()
    async with (
        TrainingSession(agent, run, checkpoint_freq=0, keep_journal="all", queue_capacity=16) as session,
        anyio.create_task_group() as actors,
    ):
        for actor_id in range(7):
            actors.start_soon(play, session, actor_id, 30)
    events = list(journal_of(run).read(0, session.engine.parts.learner.n_events))
    assert [number for number, _ in events] == list(range(7 * (30 + 3 + 3)))
    order: list[Any] = [
        (e.actor_id, e.observation) if isinstance(e, Experience) else e.actor_id for _, e in events
    ]
    assert order == agent.order, "ends of episodes are told to the agent as the next one's start"
    steps = [e for _, e in events if isinstance(e, Experience)]
    assert list(map(astuple, steps)) == list(map(astuple, agent.experiences))
    assert len(steps) == session.total_steps
    ended = [e for _, e in events if isinstance(e, EpisodeEnded)]
    assert len(ended) == session.total_episodes == 21
    assert {(e.record.total_reward, e.record.length, e.record.extras["x"]) for e in ended} == {
        (k, 10, 1.5) for k in (9.0, 19.0, 29.0)
    }
    started = [e for _, e in events if isinstance(e, EpisodeStarted)]
    assert {e.seed for e in started if e.actor_id == 2} == {2000, 2010, 2020}
    state = torch.load(run.latest_checkpoint_path, weights_only=True)
    assert state["session"]["events"] == state["journal"]["events"] == len(events)
    assert [header.total_steps for header in journal_of(run).headers()] == [0]


async def test_a_flush_covers_it(tmp_path: Path) -> None:
    run = await TrainingRun.create("flush", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, flush_interval_s=3600.0) as session:
        for n in (1, 5, 300):
            await session.observe_many([step(k) for k in range(n)])
            await session.flush()
            assert run.journal.n_events() == session.total_steps == session.engine.parts.learner.n_events
        await session.on_episode(1.0, 1, TERMINATED)
        await session.flush()
        assert run.journal.n_events() == 307


async def test_segments_end_where_they_are_full_and_each_begins_with_its_own_point(tmp_path: Path) -> None:
    run = await TrainingRun.create("segments", root=tmp_path)
    async with TrainingSession(
        dqn(), run, journal_segment_bytes=500, keep_journal="all", opt_interval=2, checkpoint_freq=20
    ) as session:
        for k in range(0, 100, 5):
            await feed(session, k, k + 5)
            await session.flush()
    segments, headers = run.journal.segments(), run.journal.headers()
    assert len(segments) == len(headers) > 5
    assert [segment.first_event for segment in segments] == [header.first_event for header in headers]
    assert all(500 <= segment.path.stat().st_size < 2500 for segment in segments[:-1])
    for header in headers:
        before = [e for _, e in run.journal.read(0, header.first_event)]
        n_steps = sum(isinstance(e, Experience) for e in before)
        assert (header.total_steps, header.rebuild["n_added"]) == (n_steps, n_steps)
        assert (header.attempt, header.opt_interval) == (1, 2)
    assert run.journal.check().problems == []


async def test_what_comes_at_once_may_overrun_a_segment_but_no_more(tmp_path: Path) -> None:
    run = await TrainingRun.create("overrun", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, journal_segment_bytes=1, checkpoint_freq=0) as session:
        await session.observe_many([step(k) for k in range(20)])
        await session.flush()
        await session.observe_many([step(k) for k in range(5)])
        await session.flush()
        await session.observe(step(0))
        await session.flush()
        assert [segment.first_event for segment in run.journal.segments()][-2:] == [20, 25]
        assert run.journal.check().problems == []
        assert run.journal.n_events() == 26


@pytest.mark.parametrize(
    ("keep_journal", "keep_checkpoints"), [("needed", 1), ("needed", 3), ("needed", None), ("all", 1)]
)
async def test_the_journal_reaches_back_as_far_as_the_newest_checkpoints_need(
    tmp_path: Path, keep_journal: str, keep_checkpoints: int | None
) -> None:
    run = await TrainingRun.create("pruned", root=tmp_path)
    async with TrainingSession(
        dqn(),
        run,
        checkpoint_freq=50,
        keep_checkpoints=keep_checkpoints,
        keep_journal=keep_journal,
        journal_segment_bytes=600,
    ) as session:
        for k in range(0, 400, 10):
            await feed(session, k, k + 10)
            await session.flush()
    states = [torch.load(run.checkpoint_path(step), weights_only=True) for step in run.checkpoint_steps()]
    needed = min(state["journal"]["needs_from"] for state in states)
    first = run.journal.leads_from(run.journal.n_events())
    assert first is not None
    if keep_journal == "all":
        assert first == 0
    else:
        segments = [segment.first_event for segment in run.journal.segments()]
        assert first == segments[0] == needed, "nothing that is needed is gone, nothing else is there"
        assert (first == 0) == (keep_checkpoints is None)
    assert len(states) == (keep_checkpoints or 8)
    for state in states:  # the replay holds 50, so what is needed is hardly more than that
        assert state["journal"]["needs_from"] >= state["session"]["events"] - 50 - 5 - 22
    for step_ in run.checkpoint_steps():
        for later in (s for s in run.checkpoint_steps() if s > step_):
            run.checkpoint_path(later).unlink()
    # Also the oldest that is kept can be resumed.
    (run.checkpoints_directory / "latest.pt").unlink()
    oldest = run.checkpoint_steps()[0]
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(dqn(seed=9), resumed, roll_forward=False) as session:
        assert session.total_steps == oldest


async def test_without_a_journal_the_replay_is_in_the_checkpoint(tmp_path: Path) -> None:
    run = await TrainingRun.create("none", root=tmp_path)
    first, second = dqn(), dqn(seed=9)
    async with TrainingSession(first, run, journal=False) as session:
        await feed(session, 0, 77)
    assert run.journal.segments() == []
    state = torch.load(run.latest_checkpoint_path, weights_only=True)
    assert state["journal"] is None
    assert state["replay"]["size"] == 50
    async with TrainingSession(second, await TrainingRun.resume(run.directory), journal=False) as session:
        assert session.total_steps == 77
        assert list(unequal(state["replay"], second.replay.state_dict())) == []


@pytest.mark.parametrize(
    "journaled",
    [(True, False, True), (False, True, False), (False, True, True), (True, False, True, True)],
    ids=str,
)
@pytest.mark.parametrize("length", [23, 70], ids=["the ring holds several attempts", "an attempt fills it"])
async def test_the_journal_may_be_switched_between_attempts(
    tmp_path: Path, journaled: tuple[bool, ...], length: int
) -> None:
    """What a resume gives back is what was there at the end, to the bit, whoever has held it meanwhile."""
    run = await TrainingRun.create("switched", root=tmp_path)
    before: dict[str, Any] | None = None
    for i, journal in enumerate(journaled):
        agent = dqn(seed=3 + i, n_step=3)
        run = await TrainingRun.resume(run.directory) if i else run
        async with TrainingSession(agent, run, journal=journal, journal_segment_bytes=900) as session:
            assert session.total_steps == i * length
            await feed(session, i * length, (i + 1) * length)
        before = bits(agent)
    assert before is not None
    last = dqn(seed=99, n_step=3)
    opening = TrainingSession(last, await TrainingRun.resume(run.directory))
    async with opening:
        state = torch.load(run.latest_checkpoint_path, weights_only=True)
        assert state["session"]["total_steps"] == len(journaled) * length
    again = dqn(seed=98, n_step=3)  # as it was before its open episodes were given up
    restore_into(again, state, run)
    assert list(unequal(before, bits(again))) == []


@pytest.mark.parametrize(
    "bad",
    [{1, 2}, object(), np.array([None]), {"camera": [{3}]}],
    ids=["set", "object", "object array", "deep"],
)
async def test_what_it_cannot_hold_is_one_error_that_names_the_way_out(tmp_path: Path, bad: Any) -> None:
    run = await TrainingRun.create("bad", root=tmp_path)
    told: list[SessionFailed] = []

    async def body() -> None:
        async with TrainingSession(FakeAgent(), run) as session:
            await session.observe(step(0))
            await session.flush()
            await session.observe(Experience(bad, 0, 1.0, 1, EpisodeStatus.CONTINUING))
            try:
                await session.flush()
            except SessionFailed as failure:
                told.append(failure)
                raise

    with anyio.fail_after(20), pytest.raises(SessionFailed, match="journal=False") as caught:
        await body()
    assert type(caught.value.__cause__) is ConfigError
    assert "observation" in str(caught.value)
    assert len(told) == 1
    assert run.journal.n_events() == 1, "what came before is whole"
    other = await TrainingRun.create("bad", root=tmp_path)
    async with TrainingSession(FakeAgent(), other, journal=False) as session:
        await session.observe(Experience(bad, 0, 1.0, 1, EpisodeStatus.CONTINUING))
    assert session.total_steps == 1


async def test_an_observation_that_is_one_array_written_over_and_over_is_kept_as_it_was(
    tmp_path: Path,
) -> None:
    """A caller hands arrays over; what the journal holds is what the agent saw."""
    run = await TrainingRun.create("arrays", root=tmp_path)
    agent = dqn()
    async with TrainingSession(agent, run) as session:
        await feed(session, 0, 30)
        held = np.zeros(3, np.float32)
        for _ in range(5):
            held += 0.1
            await session.observe(Experience(held, 0, 1.0, held, EpisodeStatus.CONTINUING))
            await session.flush()
    seen = [e for _, e in run.journal.read(0, run.journal.n_events()) if isinstance(e, Experience)]
    columns = agent.replay.state_dict()["observations"][30:35].numpy()
    assert np.array_equal(columns, np.stack([e.observation for e in seen[30:]]))
    assert [e.reward for e in seen[:30]] == [transition(k).reward for k in range(30)]


async def test_the_journal_keeps_what_came_with_a_step_and_the_settings_it_was_learned_with(
    tmp_path: Path,
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent = dqn()
    async with TrainingSession(agent, run, record_freq=5, opt_interval=2, warmup_period=12) as session:
        for seq in range(20):
            step = transition(seq)
            action = await session.act(step.observation, actor_id=step.actor_id)
            await session.observe(msgspec.structs.replace(step, action=action, seq=seq))
            await session.barrier()  # so that the next action is one of the newest policy
    steps = [event for _, event in run.journal.read(0, 20) if isinstance(event, Experience)]
    assert [step.seq for step in steps] == list(range(20))
    learned = [k // 2 - 5 if k >= 12 else 0 for k in range(20)]
    assert [step.policy_version for step in steps] == learned
    [header] = run.journal.headers()
    assert (header.agent_type, header.agent) == ("DQN", msgspec.to_builtins(agent.config))
    assert (header.opt_interval, header.warmup_period, header.max_opts) == (2, 12, None)
    assert header.torch_threads == torch.get_num_threads()


async def test_a_journal_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with TrainingSession(dqn(), run, checkpoint_freq=10) as session:
        await feed(session, 0, 30)
    [segment] = run.journal.segments()
    whole = segment.path.read_bytes()
    [header] = run.journal.headers()
    older = msgspec.structs.replace(header, version=VERSION - 1)
    size = len(SegmentEncoder().begin(header))
    segment.path.write_bytes(SegmentEncoder().begin(older) + whole[size:])
    problem = f"{segment.path.name}: it is of journal format {VERSION - 1}, and this stoker reads"
    with pytest.raises(RunBroken, match=problem):
        await TrainingSession(dqn(), await TrainingRun.resume(run.directory)).open()
    with pytest.raises(RunBroken, match=problem):
        replay_run(run, dqn())
    damaged = [found for found in verify_run(run) if found.kind == "damaged"]
    assert any(f"journal format {VERSION - 1}" in found.text for found in damaged)
    segment.path.write_bytes(whole)
    assert not replay_run(run, dqn()).comparisons[-1].differences
