"""Ends that nobody planned: native cancellation, deaths that are no errors, interrupts, slow disks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from obstacles import Gate
from stoker import (
    EpisodeStatus,
    Experience,
    SessionClosed,
    SessionFailed,
    SyncTrainingSession,
    TrainingRun,
    TrainingSession,
)
from stoker.actors import run_actors
from stoker.errors import first_error
from stoker.testing import AsyncChainEnv, FakeAgent


def step(k: Any, actor_id: int = 0) -> Experience:
    return Experience(k, 0, 1.0, k, EpisodeStatus.CONTINUING, actor_id)


class Slow(FakeAgent):
    def learn(self) -> dict[str, float]:
        time.sleep(0.01)
        return {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_native_timeout_during_the_exit_still_gets_everything_saved(tmp_path: Path) -> None:
    run = await TrainingRun.create("timeout", root=tmp_path)
    session = TrainingSession(Slow(), run)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit, session:
            await session.observe_many(step(k) for k in range(60))
            limit.reschedule(asyncio.get_running_loop().time() + 0.05)  # which the exit exceeds
    assert session.total_steps == 60
    assert run.checkpoint_steps() == [60]
    assert not [task for task in asyncio.all_tasks() if "stoker" in repr(task.get_coro())]


def dies_of(death: type[BaseException], backend: str) -> BaseException | None:
    """What comes out of a whole program whose agent dies of something that is no error."""

    class Dying(FakeAgent):
        def learn(self) -> dict[str, float]:
            raise death

    async def main() -> None:
        with anyio.fail_after(20):
            async with TrainingSession(Dying()) as session:
                await session.observe(step(0))
                await session.flush()

    try:
        anyio.run(main, backend=backend)
    except BaseException as error:  # noqa: BLE001 - the very question
        return first_error(error)
    return None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("death", [asyncio.CancelledError, SystemExit])
def test_a_part_that_dies_without_an_error_is_noticed_at_once(
    death: type[BaseException], backend: str
) -> None:
    assert isinstance(dies_of(death, backend), SessionFailed | SystemExit)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_an_environment_that_raises_cancelled_error_itself_costs_one_episode() -> None:
    class Library(AsyncChainEnv):
        steps = 0

        async def step(self, action: Any) -> Any:
            Library.steps += 1
            if Library.steps == 10:
                raise asyncio.CancelledError("the reader task of a client library")
            return await super().step(action)

    async with TrainingSession(FakeAgent(action=1), max_steps=60) as session:
        (report,) = await run_actors(session, Library, 1)
    assert session.total_steps == 60
    assert report.restarts == 1


@pytest.mark.anyio
async def test_checkpoints_do_not_pile_up_before_a_slow_disk(tmp_path: Path) -> None:
    run = await TrainingRun.create("slow-disk", root=tmp_path)
    publish, most = run.publish_step, 0

    def slowly(*arguments: Any) -> int:
        time.sleep(0.02)
        return publish(*arguments)

    run.publish_step = slowly  # type: ignore[method-assign]
    session = TrainingSession(FakeAgent(), run, checkpoint_freq=10, keep_checkpoints=2)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(session.engine.parts.writer))
            await anyio.sleep(0.001)

    async with session, anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await session.observe_many(step(k) for k in range(400))
        await session.flush()
        tasks.cancel_scope.cancel()
    assert run.checkpoint_steps() == [390, 400]
    assert most <= 4, "the learner waits for the disk, not the disk's queue for memory"


@pytest.mark.anyio
async def test_what_came_before_an_agents_failure_is_written(tmp_path: Path) -> None:
    run = await TrainingRun.create("before", root=tmp_path)

    async def use() -> None:
        async with TrainingSession(FakeAgent(fail_at=101), run, checkpoint_freq=50) as session:
            for k in range(120):
                await session.observe(step(k))
                if k % 10 == 9:
                    await session.on_episode(10.0, 10, EpisodeStatus.TERMINATED)

    with pytest.raises(SessionFailed):
        await use()
    assert run.checkpoint_steps() == [50, 100]
    assert (await run.read_train_episodes())["episode"].tolist() == list(range(1, 11))


@pytest.mark.anyio
async def test_a_stuck_policy_does_not_keep_anybody_from_leaving() -> None:
    release = threading.Event()

    class Stuck(FakeAgent):
        def act(self, observations: Any, mode: Any) -> Any:
            release.wait(30)
            return super().act(observations, mode)

    told: list[BaseException] = []

    async def ask(session: TrainingSession) -> None:
        try:
            await session.act(0.0)
        except SessionClosed as error:
            told.append(error)

    try:
        with anyio.fail_after(10):
            async with (
                anyio.create_task_group() as outside,
                TrainingSession(Stuck(), inference="thread") as session,
            ):
                outside.start_soon(ask, session)
                await anyio.wait_all_tasks_blocked()
    finally:
        release.set()
    assert len(told) == 1


@pytest.mark.anyio
async def test_the_policy_extras_of_an_action_survive_a_cancelled_observe() -> None:
    agent = FakeAgent(policy_extras=True)
    async with TrainingSession(agent, queue_capacity=1) as session:
        await session.act("seen", actor_id=7)
        async with anyio.create_task_group() as tasks:
            for other in range(5):
                tasks.start_soon(session.observe, step(0, other))
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(session.observe, step("seen", 7))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        before = [e for e in agent.experiences if e.actor_id == 7]
        if not before:
            await session.observe(step("seen", 7))
    (mine,) = [e for e in agent.experiences if e.actor_id == 7]
    assert mine.policy_extras == "seen"


@pytest.mark.anyio
async def test_a_decision_made_while_the_outcome_before_it_waits_for_room_is_kept() -> None:
    gate = Gate()

    class Held(FakeAgent):
        needs_policy_extras = True

        def observe(self, experiences: Sequence[Experience]) -> None:
            gate()
            super().observe(experiences)

    async def outcome(seen: str, actor_id: int) -> None:
        await session.observe(step(seen, actor_id))

    agent = Held(policy_extras=True)
    async with TrainingSession(agent, queue_capacity=1) as session, anyio.create_task_group() as tasks:
        for actor_id, seen in ((1, "held"), (2, "queued"), (7, "first")):
            await session.act(seen, actor_id=actor_id)
            tasks.start_soon(outcome, seen, actor_id)
            with anyio.fail_after(20):
                while not gate.reached.is_set():  # noqa: ASYNC110 - in another thread
                    await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
        assert session.health().n_observing == 1
        await session.act("second", actor_id=7)
        gate.release.set()
        await session.flush()
        await outcome("second", 7)
    assert [e.policy_extras for e in agent.experiences if e.actor_id == 7] == ["first", "second"]


def test_no_thread_is_turned_away_in_silence_while_a_plain_session_ends() -> None:
    """What observe returned for is consumed, also when another thread leaves the session meanwhile."""
    for _ in range(5):
        agent = FakeAgent()
        accepted = [0, 0, 0]

        def feed(actor_id: int, session: SyncTrainingSession, accepted: list[int] = accepted) -> None:
            try:
                for k in range(100_000):
                    session.observe(step(k, actor_id))
                    accepted[actor_id] += 1
            except SessionClosed:
                pass

        with SyncTrainingSession(agent) as session:
            threads = [threading.Thread(daemon=True, target=feed, args=(i, session)) for i in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(30)
        assert len(agent.experiences) == sum(accepted)


def test_the_first_error_is_the_one_that_says_most() -> None:
    cancelled, wrong, leave = asyncio.CancelledError(), ValueError("x"), SystemExit(3)
    assert first_error(wrong) is wrong
    assert first_error(BaseExceptionGroup("", [cancelled, ExceptionGroup("", [wrong])])) is wrong
    assert first_error(BaseExceptionGroup("", [wrong, BaseExceptionGroup("", [leave])])) is leave
    assert first_error(BaseExceptionGroup("", [cancelled])) is cancelled
