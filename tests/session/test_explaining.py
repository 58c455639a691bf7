"""A planted bottleneck is the one that a session's explanation names."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import (
    DQN,
    ConfigError,
    DQNConfig,
    EpisodeStatus,
    EvaluationSettings,
    Evaluator,
    Experience,
    SessionClosed,
    SyncTrainingSession,
    TrainingSession,
    make_gym,
    run_actors,
)
from stoker.telemetry import Explanation
from stoker.testing import AsyncChainEnv, ChainEnv, FakeAgent, SlowEnv
from stoker.types import ActMode

pytestmark = pytest.mark.anyio


class SlowLearner(FakeAgent):
    """Needs 4 ms for an optimization step."""

    def learn(self) -> Mapping[str, float] | None:
        time.sleep(0.004)
        return super().learn()


class SlowPolicy(FakeAgent):
    """Needs 3 ms for a forward pass, whatever its size."""

    def policy(self) -> SlowPolicy:
        return SlowPolicy()

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        time.sleep(0.003)
        return super().act(observations, mode)


class SlowRecorder:
    """Needs 50 ms for a record."""

    name = "slow"

    def open(self, context: Any) -> None:
        pass

    def write(self, step: int, record: Any) -> None:
        time.sleep(0.05)

    def flush(self) -> None:
        pass

    def close(self, status: Any) -> None:
        pass


async def explained_after(session: TrainingSession, make: Callable[[], Any], n_actors: int) -> Explanation:
    async with session:
        await run_actors(session, make, n_actors, seed=0)
        return session.explain()


def shares_add_up(found: Explanation) -> bool:
    return all(sum(shares.values()) == pytest.approx(1) for shares in found.profile.shares.values())


async def test_slow_environments() -> None:
    session = TrainingSession(FakeAgent(), max_steps=1600)
    found = await explained_after(session, lambda: SlowEnv(ChainEnv(), 0.005), 8)
    assert found.bottleneck.culprit == "environments", str(found)
    assert shares_add_up(found)


async def test_a_slow_learner() -> None:
    found = await explained_after(
        TrainingSession(SlowLearner(), max_steps=250, queue_capacity=16), ChainEnv, 8
    )
    assert found.bottleneck.culprit == "learner", str(found)
    assert shares_add_up(found)


async def test_too_few_actors() -> None:
    session = TrainingSession(FakeAgent(), max_steps=150)
    found = await explained_after(session, lambda: AsyncChainEnv(latency=0.005), 1)
    assert found.bottleneck.culprit == "actors", str(found)


async def test_a_blocked_event_loop() -> None:
    async with TrainingSession(FakeAgent(), max_steps=300) as session, anyio.create_task_group() as beside:

        async def block() -> None:
            while True:
                time.sleep(0.03)  # noqa: ASYNC251 - that is what is tested
                await anyio.sleep(0.001)

        beside.start_soon(block)
        await run_actors(session, ChainEnv, 8, seed=0)
        found = session.explain()
        beside.cancel_scope.cancel()
    assert found.bottleneck.culprit == "event loop", str(found)
    assert "block" in found.profile.blocked_in


async def test_forward_passes_of_one() -> None:
    async with TrainingSession(SlowPolicy()) as session:
        for k in range(300):
            actor_id = k % 8
            action = await session.act(0, actor_id=actor_id)
            await session.observe(Experience(0, action, 0.0, 0, EpisodeStatus.CONTINUING, actor_id))
        found = session.explain()
    assert found.bottleneck.culprit == "forward passes", str(found)
    assert found.profile.actions_per_pass == pytest.approx(1, abs=0.1)


async def test_a_thread_that_holds_the_interpreter_lock() -> None:
    has_ended, env = threading.Event(), make_gym("CartPole-v1")
    agent = DQN(env.observation_space, env.action_space, DQNConfig(learning_starts=64), seed=0)

    def spin() -> None:
        while not has_ended.is_set():
            pass

    spinning = threading.Thread(target=spin, name="spinner", daemon=True)
    try:
        # Without an end: each of torch's calls gives the lock back, and waits 5 ms for it on an idle machine.
        async with TrainingSession(agent, queue_capacity=16) as session, anyio.create_task_group() as beside:
            spinning.start()
            beside.start_soon(partial(run_actors, session, lambda: make_gym("CartPole-v1"), 4, seed=0))
            with anyio.fail_after(30):
                while (found := session.explain()).bottleneck.culprit != "interpreter lock":
                    await session.barrier()
            has_ended.set()
            beside.cancel_scope.cancel()
    finally:
        has_ended.set()
        spinning.join()
    assert found.profile.busiest_thread == "spinner"


async def test_evaluations() -> None:
    async with TrainingSession(FakeAgent(), max_steps=1500, eval_freq=100) as session:
        evaluator = Evaluator(session, lambda: ChainEnv(50, slip=0.6), EvaluationSettings(n_episodes=64))
        async with anyio.create_task_group() as beside:
            beside.start_soon(evaluator.run)
            await run_actors(session, ChainEnv, 2, seed=0)
            found = session.explain()
    assert found.bottleneck.culprit == "evaluation", str(found)


async def test_a_slow_recorder() -> None:
    session = TrainingSession(
        SlowLearner(), recorders=[SlowRecorder()], max_steps=250, record_freq=5, queue_capacity=16
    )
    found = await explained_after(session, ChainEnv, 8)
    assert "recorder" in [finding.culprit for finding in found.findings], str(found)


async def test_a_queue_that_is_too_small() -> None:
    found = await explained_after(TrainingSession(FakeAgent(), max_steps=2000, queue_capacity=1), ChainEnv, 8)
    assert found.bottleneck.culprit == "queue", str(found)


async def test_no_session_no_explanation() -> None:
    with pytest.raises(SessionClosed):
        TrainingSession(FakeAgent()).explain()


async def test_seconds_are_not_negative() -> None:
    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(ConfigError, match="seconds=-5"):
            session.explain(-5)


async def test_an_ended_session_explains_its_last_minute_and_writes_its_trace(tmp_path: Path) -> None:
    session = TrainingSession(SlowLearner(), max_steps=100, queue_capacity=16)
    await explained_after(session, ChainEnv, 4)
    found = session.explain()
    assert found.bottleneck.culprit == "learner"
    assert found.profile.seconds == session.explain().profile.seconds
    session.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert tracks == {"loop", "learner", "inference", "writer", "checkpoints", "actors"}


def test_a_sync_session_explains_itself() -> None:
    with SyncTrainingSession(SlowLearner(), max_steps=200) as session:
        for _ in range(200):
            session.observe(Experience(0, session.act(0), 0.0, 0, EpisodeStatus.CONTINUING, 0))
        session.flush()
        found = session.explain()
    assert found.bottleneck.culprit == "learner", str(found)
