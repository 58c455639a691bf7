"""What happens when a part of a session dies: the rest stops, and everybody is told the cause."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import (
    ActMode,
    EpisodeStatus,
    Experience,
    InvalidAgentState,
    RunLocked,
    SessionError,
    SessionFailed,
    TrainingRun,
    TrainingSession,
    WriteFailed,
)
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


def step(k: int, actor_id: int = 0) -> Experience:
    return Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING, actor_id)


async def play_until_told(session: TrainingSession, actor_id: int, told: list[BaseException]) -> None:
    """An actor outside the session's care, such as a request handler: it must be told, too."""
    k = 0
    try:
        while True:
            await session.act(0.0, actor_id=actor_id)
            await session.observe(step(k, actor_id))
            k += 1
    except SessionFailed as failure:
        told.append(failure)


async def test_an_agent_that_raises_takes_the_session_down_with_its_cause(tmp_path: Path) -> None:
    run = await TrainingRun.create("dies", root=tmp_path)
    told: list[BaseException] = []
    async with anyio.create_task_group() as outside:
        with pytest.raises(SessionFailed, match="the agent failed: RuntimeError: failed at") as caught:
            async with TrainingSession(FakeAgent(fail_at=500), run) as session:
                for actor_id in range(5):
                    outside.start_soon(play_until_told, session, actor_id, told)
                await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
                await anyio.sleep_forever()  # cancelled by the failure
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert len(told) == 5
    assert all(isinstance(error.__cause__, RuntimeError) for error in told)
    assert run.checkpoint_steps() == [], "the state of a failed agent is not saved"
    assert len((run.directory / "train_episodes.jsonl").read_text().splitlines()) == 1, "rows are"


async def test_waiting_calls_are_told() -> None:
    session = TrainingSession(FakeAgent(fail_at=1))

    async def body() -> None:
        async with session:
            await session.observe(step(0))
            await session.flush()

    with pytest.raises(SessionFailed) as caught:
        await body()
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_a_policy_that_raises_fails_the_session() -> None:
    class Broken(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            raise ArithmeticError("no action")

    async def body() -> None:
        async with TrainingSession(Broken()) as session:
            await session.act(0.0)

    with pytest.raises(SessionFailed, match="the policy failed: ArithmeticError: no action"):
        await body()


async def test_a_policy_that_gives_too_few_actions_fails_the_session() -> None:
    class Short(FakeAgent):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            return [], None

    async def body() -> None:
        async with TrainingSession(Short()) as session:
            await session.act(0.0)

    with pytest.raises(SessionFailed, match="answered 1 observations with 0 actions"):
        await body()


async def test_a_full_disk_fails_the_session_with_the_file_and_the_cause(tmp_path: Path) -> None:
    run = await TrainingRun.create("full", root=tmp_path)
    (run.directory / "train_episodes.jsonl").symlink_to("/dev/full")

    async def body() -> None:
        async with TrainingSession(FakeAgent(), run) as session:
            while True:
                await session.observe(step(0))
                await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)

    with (
        anyio.fail_after(10),
        pytest.raises(SessionFailed, match=r"writer failed.*train_episodes") as caught,
    ):
        await body()
    assert isinstance(caught.value.__cause__, WriteFailed)
    assert isinstance(caught.value.__cause__.__cause__, OSError)
    assert caught.value.__cause__.__cause__.errno == errno.ENOSPC


async def test_a_flush_on_a_full_disk_raises_rather_than_hangs(tmp_path: Path) -> None:
    run = await TrainingRun.create("full", root=tmp_path)
    (run.directory / "train_episodes.jsonl").symlink_to("/dev/full")

    async def body() -> None:
        async with TrainingSession(FakeAgent(), run) as session:
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
            await session.flush()

    with anyio.fail_after(10), pytest.raises(SessionFailed, match="No space left"):
        await body()


async def test_a_checkpoint_that_cannot_be_published_fails_the_session(tmp_path: Path) -> None:
    run = await TrainingRun.create("in-the-way", root=tmp_path)
    run.checkpoint_path(1).mkdir()

    async def body() -> None:
        async with TrainingSession(FakeAgent(), run, checkpoint_freq=1) as session:
            await session.observe(step(0))
            await session.checkpoint()

    with anyio.fail_after(10), pytest.raises(SessionFailed, match=r"the writer failed.*step_1\.pt"):
        await body()


async def test_a_state_that_would_not_load_safely_is_refused(tmp_path: Path) -> None:
    class Unsafe(FakeAgent):
        def state_dict(self) -> dict[str, Any]:
            return {"optimizer": {"lr": threading.Lock()}}

    run = await TrainingRun.create("unsafe", root=tmp_path)

    async def body() -> None:
        async with TrainingSession(Unsafe(), run) as session:
            await session.observe(step(0))

    with pytest.raises(
        SessionFailed, match=r"state\['agent'\]\['optimizer'\]\['lr'\] is a _thread.lock"
    ) as caught:
        await body()
    assert isinstance(caught.value.__cause__, InvalidAgentState)


async def test_agent_extras_that_are_not_finite_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Diverging(FakeAgent):
        def episode_extras(self, actor_id: int | str) -> dict[str, float]:
            return {"loss": float("nan"), "epsilon": 0.5}

    run = await TrainingRun.create("nan", root=tmp_path)
    async with TrainingSession(Diverging(), run) as session:
        await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
        await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert [row["extras"] for row in rows] == [{"epsilon": 0.5}] * 2
    assert [record.message.count("loss=nan") for record in caplog.records] == [1]


async def test_a_learner_that_does_not_move_is_given_up(tmp_path: Path) -> None:
    release = threading.Event()

    class Stuck(FakeAgent):
        def learn(self) -> None:
            release.wait(30)

    run = await TrainingRun.create("stuck", root=tmp_path)
    agent = Stuck()

    async def body() -> None:
        async with TrainingSession(agent, run, stall_timeout_s=0.2) as session:
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED)
            await session.observe(step(0))

    try:
        with (
            anyio.fail_after(10),
            pytest.raises(SessionFailed, match=r"agent failed.*not moved for 0.2"),
        ):
            await body()
        # The call that was given up may still change the agent, and what it learned may still be written.
        with pytest.raises(RunLocked, match="abandoned"):
            await TrainingSession(FakeAgent(), run).open()
        with pytest.raises(SessionError, match="in another open session"):
            await TrainingSession(agent).open()
    finally:
        release.set()


async def test_the_first_failure_wins_over_what_it_causes_in_the_body(tmp_path: Path) -> None:
    async def body() -> None:
        async with TrainingSession(FakeAgent(fail_at=1)) as session:
            try:
                await session.observe(step(0))
                await anyio.sleep_forever()
            finally:
                raise KeyError("clean-up failed, too")

    with pytest.raises(SessionFailed) as caught:
        await body()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value.__context__, KeyError) or caught.value.__suppress_context__
