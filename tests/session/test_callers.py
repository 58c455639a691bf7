"""Callers as they are: generators, reused arrays, numpy numbers, wrong types, endless ids."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import wait_all_tasks_blocked

from stoker import (
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    SessionClosed,
    SessionError,
    SessionFailed,
    StatsTracker,
    SyncTrainingSession,
    TrainingRun,
    TrainingSession,
)
from stoker.stats import Mean
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
TERMINATED = EpisodeStatus.TERMINATED


def step(k: int, actor_id: int = 0) -> Experience:
    return Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, actor_id)


async def test_observe_many_takes_a_generator() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session:
        await session.observe_many(step(k) for k in range(5))
    assert [experience.observation for experience in agent.experiences] == [0, 1, 2, 3, 4]


def test_a_plain_loops_observe_many_takes_a_generator() -> None:
    agent = FakeAgent()
    with SyncTrainingSession(agent, max_steps=4) as session:
        session.observe_many(step(k) for k in range(5))
        assert session.refused_steps == 1
    assert [experience.observation for experience in agent.experiences] == [0, 1, 2, 3]


@pytest.mark.parametrize("thing", [None, 5, Experience(0, 0, 1.0, 1, EpisodeStatus.CONTINUING)])
async def test_observe_many_of_what_is_no_list_is_refused(thing: Any) -> None:
    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(InvalidExperience, match="observe_many takes Experiences"):
            await session.observe_many(thing)


@pytest.mark.parametrize("value", [np.float32(7), np.float64(7), np.int64(7), 7])
async def test_numbers_of_numpy_are_numbers(value: Any) -> None:
    async with TrainingSession(FakeAgent()) as session:
        assert await session.maybe_save_best(value)
        assert session.best_value == 7.0
        assert type(session.best_value) is float


async def test_what_is_no_agent_or_no_run_is_told_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"LearningAgent: it lacks total_steps, needs_policy_extras, policy"
    ):
        TrainingSession(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"run='runs/x': give a TrainingRun"):
        TrainingSession(FakeAgent(), "runs/x")  # type: ignore[arg-type]


async def test_what_is_no_record_is_refused() -> None:
    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(InvalidExperience, match="give an EpisodeRecord"):
            await session.on_eval_episode({"total_reward": 1})  # type: ignore[arg-type]


async def test_an_eval_report_before_the_session_is_open_is_empty() -> None:
    report = TrainingSession(FakeAgent()).eval_report(5)
    assert (report.total_steps, report.n_episodes) == (0, 0)


async def test_an_eval_report_is_of_the_policy_that_was_evaluated() -> None:
    async with TrainingSession(FakeAgent()) as session:
        await session.observe_many([step(k) for k in range(7)])
        pinned = await session.snapshot()
        await session.observe_many([step(k) for k in range(9)])
        await session.flush()
        await session.on_eval_episode(EpisodeRecord(3.0, 2, TERMINATED), pinned)
        report = session.eval_report(5)
        assert (report.total_steps, report.n_episodes) == (7, 1), "at once, without a flush"
        with pytest.raises(ConfigError, match="n_episodes=0"):
            session.eval_report(0)


async def test_a_caller_waits_for_a_newer_policy() -> None:
    found: list[int] = []
    async with TrainingSession(FakeAgent()) as session, anyio.create_task_group() as tasks:

        async def wait() -> None:
            found.append(await session.next_policy(after=1))

        assert await session.next_policy(after=-1) == 0
        tasks.start_soon(wait)
        await session.observe(step(0))
        await session.barrier()
        await wait_all_tasks_blocked()
        assert (session.policy_version, found) == (1, [])
        await session.observe(step(1))
        await session.barrier()
    assert found == [2]


@pytest.mark.parametrize(
    ("agent", "error"), [(FakeAgent(fail_at=1), SessionFailed), (FakeAgent(), SessionClosed)]
)
async def test_who_waits_for_a_policy_gets_the_end_of_the_session(agent: FakeAgent, error: Any) -> None:
    session = TrainingSession(agent)
    await session.open()

    async def wait() -> None:
        with pytest.raises(error):
            await session.next_policy(after=5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        await session.observe(step(0))
        with contextlib.suppress(SessionFailed):
            await session.barrier()
        with contextlib.suppress(SessionFailed):
            await session.close()


async def test_once_stopped_it_stays_done() -> None:
    async with TrainingSession(FakeAgent(), queue_capacity=1) as session:
        async with anyio.create_task_group() as actors:
            for actor_id in range(20):
                actors.start_soon(session.observe, step(0, actor_id))
            await anyio.lowlevel.checkpoint()
            session.stop()
            actors.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert session.is_done
        before = session.refused_steps
        await session.observe(step(1))
        assert session.refused_steps == before + 1


async def test_a_stat_that_raises_is_named() -> None:
    stats = StatsTracker.empty().with_stat("ratio", lambda record: 1 / 0, Mean())

    async def body() -> None:
        async with TrainingSession(FakeAgent(), stats=stats) as session:
            await session.on_episode(1.0, 1, TERMINATED)

    with pytest.raises(SessionFailed, match=r"stat 'ratio': its source raised ZeroDivisionError"):
        await body()


async def test_a_broken_best_does_not_keep_a_run_from_going_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("best", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
        assert await session.maybe_save_best(5.0)
    run.best_checkpoint_path.write_bytes(b"torn")
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory)) as session:
        assert session.best_value == 5.0
        assert not await session.maybe_save_best(4.0)
    assert "best.pt.broken" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.log_eval_episode(EpisodeRecord(1.0, 1, TERMINATED), "7"), "total_steps='7'"),
        (lambda run: run.update_metadata(-1, 2), "total_steps=-1"),
        (
            lambda run: run.write_config({"learning": {"rate": float("nan")}}),
            r"config\['learning'\]\['rate'\]=nan",
        ),
        (lambda run: TrainingRun.create(5), "run name 5 is a int"),  # type: ignore[arg-type]
    ],
)
async def test_a_run_refuses_what_it_could_not_read_back(tmp_path: Path, call: Any, message: str) -> None:
    run = await TrainingRun.create("strict", root=tmp_path)
    with pytest.raises(ConfigError, match=message):
        await call(run)
    with pytest.raises(ConfigError, match="step=-1"):
        run.checkpoint_path(-1)


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_cancelled_observe_is_out_also_if_another_was_refused_while_it_waited(turns: int) -> None:
    go = threading.Event()

    class Held(FakeAgent):
        def observe(self, experiences: Sequence[Experience]) -> None:
            assert go.wait(30)
            super().observe(experiences)

    returned = False

    async def wait_for_room() -> None:
        nonlocal returned
        await session.observe(step(2, actor_id=2))
        returned = True

    agent = Held()
    async with TrainingSession(agent, queue_capacity=1, max_steps=3) as session:
        await session.observe(step(0))
        while session.health().n_events_waiting:  # until the learner has it
            await anyio.wait_all_tasks_blocked()
        await session.observe(step(1, actor_id=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_room)
            while not session.health().n_observing:
                await anyio.lowlevel.checkpoint()
            await session.observe(step(3, actor_id=3))
            assert session.refused_steps == 1
            go.set()
            while session.health().n_observing:
                await anyio.lowlevel.checkpoint()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert (2 in [e.observation for e in agent.experiences]) == returned


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.act(0),
        lambda session: session.act_many([0], [0]),
        lambda session: session.decide(0),
        lambda session: session.observe_many([step(0)]),
        lambda session: session.on_episode(1.0, 1, TERMINATED),
        lambda session: session.flush(),
    ],
    ids=["act", "act_many", "decide", "observe_many", "on_episode", "flush"],
)
async def test_a_call_on_another_threads_event_loop_is_refused_and_not_left_waiting(call: Any) -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session:

        async def from_elsewhere() -> None:
            with pytest.raises(SessionError, match="on the event loop of another thread: call it there"):
                await call(session)

        await anyio.to_thread.run_sync(anyio.run, from_elsewhere)
        await session.act(0)
    assert agent.experiences == []
