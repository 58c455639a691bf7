"""Bounded waits: whatever stops moving is named, and warned of or ended; who only waits is left in peace."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from obstacles import Gate
from stoker import (
    EpisodeStatus,
    Experience,
    SessionFailed,
    Stalled,
    TrainingRun,
    TrainingSession,
    run_actors,
)
from stoker.errors import RunFenced
from stoker.runs import Retention
from stoker.session.watching import Health
from stoker.testing import AsyncChainEnv, ChainEnv, FakeAgent
from stoker.writer.fencing import check_fence

pytestmark = pytest.mark.anyio


def step(k: int, actor_id: int | str = 0) -> Experience:
    return Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, actor_id)


@pytest.fixture
def gate() -> Iterator[Gate]:
    it = Gate()
    yield it
    it.release.set()


class HangingLearner(FakeAgent):
    def __init__(self, gate: Gate, at: int = 1) -> None:
        super().__init__()
        self.gate, self.at = gate, at

    def learn(self) -> dict[str, float]:
        if self.total_steps == self.at:
            self.gate()
        return {}


class HangingPolicy(FakeAgent):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def act(self, observations: Any, mode: Any) -> Any:
        self.gate()
        return super().act(observations, mode)


async def told(call: Any, causes: list[BaseException]) -> None:
    """A caller outside the session's care."""
    try:
        while True:
            await call()
    except SessionFailed as failure:
        causes.append(failure.__cause__ or failure)


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of other people's state
            await anyio.sleep(0.005)


async def test_everybody_who_waits_for_a_learner_that_hangs_is_told(tmp_path: Path, gate: Gate) -> None:
    run = await TrainingRun.create("stuck", root=tmp_path)
    session = TrainingSession(HangingLearner(gate), run, stall_timeout_s=0.3, queue_capacity=2)
    causes: list[BaseException] = []
    inside: list[bool] = []

    async def body() -> None:
        async with session:
            try:
                async with anyio.create_task_group() as callers:
                    await session.observe(step(0))
                    for actor_id in range(1, 6):
                        callers.start_soon(told, lambda a=actor_id: session.observe(step(0, a)), causes)
                    for call in (
                        session.flush,
                        session.checkpoint,
                        session.snapshot,
                        session.next_evaluation,
                    ):
                        callers.start_soon(told, call, causes)
            finally:
                inside.append(session.is_done)

    with (
        anyio.fail_after(20),
        pytest.raises(SessionFailed, match=r"agent failed: Stalled: the learner") as caught,
    ):
        await body()
    assert type(caught.value.__cause__) is Stalled
    assert [type(cause) for cause in causes] == [Stalled] * 9
    assert inside == [True], "without anybody leaving the session"
    assert "at step 1" in str(caught.value)
    assert "stall_timeout_s" in str(caught.value)


async def test_with_warn_it_is_told_once_and_goes_on(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("stuck", root=tmp_path)
    agent = HangingLearner(gate)
    async with TrainingSession(agent, run, stall_timeout_s=0.1, on_stall="warn") as session:
        await session.observe(step(0))
        await until(lambda: "the learner (in one call, at step 1) has not moved" in caplog.text)
        await anyio.sleep(0.3)
        gate.release.set()
        await session.observe(step(1))
        await session.flush()
        assert session.total_steps == 2
    assert sum("the learner" in record.getMessage() for record in caplog.records) == 1
    assert run.checkpoint_steps() == [2]


async def test_a_forward_pass_that_hangs_in_its_thread_ends_the_session(gate: Gate) -> None:
    causes: list[BaseException] = []

    with anyio.fail_after(20):
        async with anyio.create_task_group() as callers:
            with pytest.raises(SessionFailed, match=r"policy failed: Stalled: a forward pass"):
                async with TrainingSession(
                    HangingPolicy(gate), inference="thread", stall_timeout_s=0.2
                ) as session:
                    for actor_id in range(3):
                        callers.start_soon(told, lambda a=actor_id: session.act(0.0, actor_id=a), causes)
                    await anyio.sleep_forever()
    assert [type(cause) for cause in causes] == [Stalled] * 3


class SlowRun(TrainingRun):
    """A run whose checkpoints take as long as one likes."""

    gate: Gate

    def publish_step(self, staged: Any, step: int, retention: Retention | None = None) -> int:
        self.gate()
        return super().publish_step(staged, step, retention)


async def slow_run(root: Path, gate: Gate) -> TrainingRun:
    run = await SlowRun.create("slow", root=root)
    assert isinstance(run, SlowRun)
    run.gate = gate
    return run


async def test_a_checkpoint_that_hangs_in_the_writer_ends_the_session_by_name(
    tmp_path: Path, gate: Gate
) -> None:
    run = await slow_run(tmp_path, gate)
    causes: list[BaseException] = []

    async def body() -> None:
        async with (
            TrainingSession(FakeAgent(), run, stall_timeout_s=0.2) as session,
            anyio.create_task_group() as callers,
        ):
            await session.observe(step(0))
            callers.start_soon(told, session.checkpoint, causes)
            callers.start_soon(told, session.flush, causes)

    with (
        anyio.fail_after(20),
        pytest.raises(SessionFailed, match=r"writer failed: Stalled: the writer \(writing step_1\.pt\)"),
    ):
        await body()
    assert [type(cause) for cause in causes] == [Stalled] * 2


async def test_a_run_that_another_process_has_taken_over_ends_the_session_though_nothing_is_written(
    tmp_path: Path,
) -> None:
    run = await TrainingRun.create("lost", root=tmp_path)
    session = TrainingSession(FakeAgent(), run, stall_timeout_s=0.2)
    await session.open()
    (run.directory / ".lease.2").touch()
    (run.directory / ".lease.1").unlink()
    with pytest.raises(RunFenced):
        check_fence(run.metadata_path)  # what the renewal of the lease does now and then
    with anyio.fail_after(5):
        await until(lambda: session.is_done)
    with pytest.raises(SessionFailed, match="the run failed") as caught:
        await session.close()
    assert type(caught.value.__cause__) is RunFenced


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
async def test_a_file_that_hangs_ends_the_session_by_name(tmp_path: Path) -> None:
    """Opening a FIFO that nobody reads blocks in the system, where no cancellation reaches."""
    run = await TrainingRun.create("fifo", root=tmp_path)
    fifo = run.directory / "train_episodes.jsonl"
    os.mkfifo(fifo)
    reader: list[int] = []

    async def let_go() -> None:
        await until(lambda: session.is_done)
        reader.append(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    session = TrainingSession(FakeAgent(), run, stall_timeout_s=0.2)

    async def body() -> None:
        async with session:
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
            await session.flush()

    try:
        with (
            anyio.fail_after(20),
            pytest.raises(SessionFailed, match=r"writer failed: Stalled.*train_episodes\.jsonl"),
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(let_go)
                try:
                    await body()
                except SessionFailed as failure:
                    tasks.cancel_scope.cancel()
                    raised: SessionFailed = failure
            raise raised
    finally:
        for descriptor in reader:
            os.close(descriptor)


# Actors ---------------------------------------------------------------------------------------------


class HangingEnv(ChainEnv):
    """Hangs in its fifth step, once over all that are made."""

    def __init__(self, gate: Gate, made: list[Any]) -> None:
        super().__init__(3)
        made.append(self)
        self.gate, self.is_first, self.n_steps = gate, len(made) == 1, 0

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.is_first and self.n_steps == 5:
            self.gate()
        return super().step(action)


class HangingAsync(AsyncChainEnv):
    def __init__(self, gate: Gate, made: list[Any]) -> None:
        super().__init__(3)
        made.append(self)
        self.gate, self.is_first, self.n_steps = gate, len(made) == 1, 0

    async def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.is_first and self.n_steps == 5:
            self.gate.reached.set()
            await until(self.gate.release.is_set)
        return await super().step(action)


KINDS = pytest.mark.parametrize("kind", [HangingEnv, HangingAsync])


@KINDS
async def test_an_environment_that_hangs_is_warned_of(
    kind: Any, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Any] = []
    async with (
        TrainingSession(FakeAgent(action=1), max_steps=60, actor_timeout_s=0.5) as session,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(lambda: run_actors(session, lambda: kind(gate, made), 1, stepping="thread"))
        await until(lambda: "actor 0 (in its environment; its last event was step 4" in caplog.text)
        await anyio.sleep(0.7)
        gate.release.set()
    assert session.total_steps == 60
    assert len(made) == 1
    assert sum("in its environment" in record.getMessage() for record in caplog.records) == 1


@KINDS
async def test_an_environment_that_hangs_is_made_anew(kind: Any, gate: Gate) -> None:
    made: list[Any] = []
    settings: dict[str, Any] = {"actor_timeout_s": 0.5, "on_silent_actor": "restart"}
    with anyio.fail_after(20):
        async with TrainingSession(FakeAgent(action=1), max_steps=60, **settings) as session:
            (report,) = await run_actors(session, lambda: kind(gate, made), 1, stepping="thread")
    assert session.total_steps == 60
    assert (report.restarts, len(made)) == (1, 2)
    assert report.last_error is not None
    assert "Stalled" in report.last_error


@KINDS
async def test_an_environment_that_hangs_ends_the_session(kind: Any, gate: Gate) -> None:
    made: list[Any] = []

    async def body() -> None:
        settings: dict[str, Any] = {"actor_timeout_s": 0.5, "on_silent_actor": "fail"}
        async with TrainingSession(FakeAgent(action=1), **settings) as session:
            await run_actors(session, lambda: kind(gate, made), 1, stepping="thread")

    with anyio.fail_after(20), pytest.raises(Stalled, match="actor 0 .in its environment; .* step 4"):
        await body()


async def test_a_silent_task_of_the_user_is_warned_of_once_until_it_speaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warnings() -> int:
        return sum("actor 'robot'" in record.getMessage() for record in caplog.records)

    async with TrainingSession(FakeAgent(), actor_timeout_s=0.1) as session:
        await session.observe(step(0, "robot"))
        await until(lambda: warnings() == 1)
        await anyio.sleep(0.2)
        assert warnings() == 1
        await session.observe(step(1, "robot"))
        await session.flush()
        time.sleep(0.15)  # noqa: ASYNC251 - nobody can look until it is silent again
        await until(lambda: warnings() == 2)
        await session.on_episode(2.0, 2, EpisodeStatus.TERMINATED, actor_id="robot")
        await session.flush()
        await anyio.sleep(0.3)
        assert warnings() == 2, "between episodes it may rest"
    assert "on_episode_start gives its episode up" in caplog.text


async def test_the_silent_actors_of_a_service_are_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    async with TrainingSession(FakeAgent(), actor_timeout_s=0.1, numbered=True) as session:
        await session.observe(msgspec.structs.replace(step(0, "game"), seq=1))
        await until(lambda: [one.actor_id for one in session.health().silent] == ["game"])
        await anyio.sleep(0.3)
    assert "has not moved" not in caplog.text


async def test_many_silent_actors_that_another_part_watches_do_not_hide_one_of_the_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = range(150)
    async with TrainingSession(FakeAgent(), actor_timeout_s=0.1) as session:
        session.supervised_actors.update(watched)
        await session.observe_many(step(0, actor_id) for actor_id in watched)
        await session.barrier()
        await session.observe(step(0, "robot"))
        await until(lambda: "actor 'robot'" in caplog.text)
        await until(lambda: len(session.health().silent) == 100)


async def test_a_silent_task_of_the_user_ends_the_session() -> None:
    async def body() -> None:
        settings: dict[str, Any] = {"actor_timeout_s": 0.1, "on_silent_actor": "fail"}
        async with TrainingSession(FakeAgent(), **settings) as session:
            await session.observe(step(0, "robot"))
            await anyio.sleep_forever()

    with anyio.fail_after(20), pytest.raises(SessionFailed, match="actor 'robot' failed: Stalled") as caught:
        await body()
    assert type(caught.value.__cause__) is Stalled


async def test_nobody_is_silent_once_nothing_more_is_accepted() -> None:
    async with TrainingSession(
        FakeAgent(), max_steps=1, actor_timeout_s=0.1, on_silent_actor="fail"
    ) as session:
        await session.observe(step(0, "robot"))
        with anyio.move_on_after(0.5):  # the last evaluation takes its time
            await session.next_policy(after=10)
        assert session.health().silent == ()


SILENT: dict[str, Any] = {"actor_timeout_s": 0.1, "on_silent_actor": "fail", "stall_timeout_s": 60.0}


async def waits(session: TrainingSession, call: Any, gate: Gate, ready: Any = None) -> None:
    """Let somebody wait in a call for far longer than an actor may be silent, then let go."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as callers:
            callers.start_soon(call)
            if ready is not None:
                await until(ready)
            try:
                await until(gate.reached.is_set)
                await anyio.sleep(0.4)
                assert session.engine.parts.failure is None
            finally:
                gate.release.set()


async def test_an_actor_that_was_answered_after_a_long_wait_has_its_time_again(gate: Gate) -> None:
    settings = {**SILENT, "actor_timeout_s": 1.0}
    async with TrainingSession(HangingPolicy(gate), inference="thread", **settings) as session:
        await session.observe(step(0))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.act, 0.0)
            await until(gate.reached.is_set)
            await anyio.sleep(1.3)
            gate.release.set()
        await anyio.sleep(0.3)  # three looks of the watch
        assert session.engine.parts.failure is None


async def test_who_waits_in_act_is_not_silent(gate: Gate) -> None:
    async with TrainingSession(HangingPolicy(gate), inference="thread", **SILENT) as session:
        await session.observe(step(0))
        await waits(session, lambda: session.act(0.0), gate)


async def test_who_waits_for_room_or_for_the_learner_is_not_silent(gate: Gate) -> None:
    async with TrainingSession(HangingLearner(gate, 1), queue_capacity=1, **SILENT) as session:
        await session.observe(step(0))

        async def play() -> None:
            for k in range(5):
                await session.observe(step(k))

        await waits(session, play, gate)


async def test_who_waits_in_lockstep_for_its_step_to_be_learned_is_not_silent(gate: Gate) -> None:
    async with TrainingSession(HangingLearner(gate, 1), lockstep=True, **SILENT) as session:
        await waits(session, lambda: session.observe(step(0)), gate)


@pytest.mark.parametrize("what", ["flush", "checkpoint"])
async def test_who_waits_for_the_disk_is_not_silent(tmp_path: Path, gate: Gate, what: str) -> None:
    """A task that plays and now and then flushes: it waits for the session, not the session for it."""
    run = await slow_run(tmp_path, gate)
    async with TrainingSession(FakeAgent(), run, **SILENT) as session:

        async def play() -> None:
            await session.observe(step(0))
            if what == "flush":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(session.checkpoint)
                    await until(gate.reached.is_set)
                    await session.flush()
            else:
                await session.checkpoint()
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)

        await waits(session, play, gate)


# Health ---------------------------------------------------------------------------------------------


def sentence(health: Health, *words: str) -> bool:
    return any(all(word in line for word in words) for line in health.waits)


async def test_health_is_quiet_when_all_is_well(tmp_path: Path) -> None:
    run = await TrainingRun.create("well", root=tmp_path)
    session = TrainingSession(FakeAgent(action=1), run, max_steps=200)
    seen: list[Health] = []
    async with session:
        await run_actors(session, lambda: ChainEnv(3), 4)
        await session.flush()
        await anyio.wait_all_tasks_blocked()
        seen.append(session.health())
    seen.append(session.health())
    for health in seen:
        assert health.waits == health.silent == ()
        assert health.failure is None
        assert (health.n_events_waiting, health.n_observing, health.n_acting, health.n_asking) == (0, 0, 0, 0)
    assert [health.is_running for health in seen] == [True, False]


async def test_health_of_a_learner_that_hangs(gate: Gate) -> None:
    async with (
        anyio.create_task_group() as callers,
        TrainingSession(HangingLearner(gate), queue_capacity=1) as session,
    ):
        await session.observe(step(0))
        await until(gate.reached.is_set)
        for actor_id in range(3):
            callers.start_soon(session.observe, step(0, actor_id))
        callers.start_soon(session.flush)
        await until(lambda: session.health().n_observing == 3)
        health = session.health()
        assert sentence(
            health, "3 callers wait in observe", "before the learner, which has been in one call for"
        )
        assert health.learner_s is not None
        assert (health.n_observing + health.n_asking, health.n_events_waiting) == (4, 1)
        assert health.is_running
        gate.release.set()
        with anyio.fail_after(20):
            await session.flush()
        assert session.health().waits == ()


async def test_health_of_a_policy_that_hangs(gate: Gate) -> None:
    async with (
        TrainingSession(HangingPolicy(gate), inference="thread") as session,
        anyio.create_task_group() as callers,
    ):
        for actor_id in range(3):
            callers.start_soon(lambda a=actor_id: session.act(0.0, actor_id=a))
        await until(gate.reached.is_set)
        health = session.health()
        gate.release.set()
    assert health.n_acting == 3
    assert sentence(health, "3 callers wait in act")


async def test_health_of_a_disk_that_hangs(tmp_path: Path, gate: Gate) -> None:
    run = await slow_run(tmp_path, gate)
    async with anyio.create_task_group() as callers, TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
        callers.start_soon(session.checkpoint)
        await until(gate.reached.is_set)
        health = session.health()
        assert health.writer == "writing step_1.pt"
        assert health.n_asking == 1
        assert sentence(
            health, "1 caller waits for an answer for the writer", "has been writing step_1.pt for"
        )
        gate.release.set()


async def test_health_of_a_silent_actor() -> None:
    async with TrainingSession(FakeAgent()) as session:
        await session.observe(step(0, "robot"))
        await session.observe(step(0, "other"))
        await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED, actor_id="other")
        await until(lambda: session.health().silent)
        health = session.health()
        (silent,) = health.silent
        assert silent.actor_id == "robot"
        assert silent.silent_s >= 1.0
        assert sentence(health, "actor 'robot' has not stepped for", "episode 1")


async def test_health_of_what_has_failed() -> None:
    session = TrainingSession(FakeAgent(fail_at=1))
    with contextlib.suppress(SessionFailed):
        async with session:
            await session.observe(step(0))
            await session.flush()
    health = session.health()
    assert health.failure is not None
    assert "RuntimeError: failed at" in health.failure or "failed at 1 steps" in health.failure
    assert not health.is_running
    assert health.learner_s is None


def holds_the_loop() -> None:
    time.sleep(0.5)


async def test_what_holds_the_event_loop_is_named_by_file_and_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with TrainingSession(FakeAgent(), actor_timeout_s=0.1):
        await anyio.sleep(0.05)
        holds_the_loop()
        await anyio.sleep(0.02)
    (warning,) = [r.getMessage() for r in caplog.records if "event loop has not turned" in r.getMessage()]
    assert "holds_the_loop" in warning
    assert "test_watching.py" in warning
