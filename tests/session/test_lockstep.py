"""Lockstep: a training is repeatable, and one that was stopped anywhere goes on as if it had not been."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from training_parts import bits, rows, unequal

from stoker import (
    DQN,
    ConfigError,
    DQNConfig,
    EpisodeStatus,
    Experience,
    SyncTrainingSession,
    TrainingRun,
    TrainingSession,
    run_actors,
)
from stoker.testing import AsyncChainEnv, ChainEnv, FakeAgent

STEPS = 120
Factory = Callable[[], Any]


class SlippingAsync(AsyncChainEnv):
    """An awaited chain whose steps go astray by the seeded generator."""

    def __init__(self, latency: Any = 0.0) -> None:
        super().__init__(4, latency)
        self._chain = ChainEnv(4, slip=0.2)


def inline() -> Any:
    return ChainEnv(4, slip=0.2)


class Nested(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A chain whose cell is shown by a Dict with a Tuple and an image."""

    def __init__(self) -> None:
        super().__init__(ChainEnv(4, slip=0.2))
        picture = spaces.Box(0, 255, (2, 2, 1), np.uint8)
        pair = spaces.Tuple((spaces.Box(0, 4, (1,), np.float32), picture))
        self.observation_space = spaces.Dict({"cell": spaces.Discrete(5, start=1), "pair": pair})

    def observation(self, observation: Any) -> Any:
        cell = int(observation[0])
        return {"cell": cell + 1, "pair": (observation, np.full((2, 2, 1), 60 * cell, np.uint8))}


def agent_for(n_step: int = 3, seed: int = 5, factory: Factory = inline) -> DQN:
    env = factory()
    config = DQNConfig(
        hidden_sizes=(8,),
        batch_size=4,
        learning_starts=8,
        buffer_size=60,
        epsilon_decay_steps=200,
        n_step=n_step,
    )
    return DQN(env.observation_space, env.action_space, config, seed=seed)


async def whole(root: Path, name: str, factory: Factory, n_actors: int, **given: Any) -> Any:
    """A training in one go: the agent to the bit, and the rows."""
    run, agent = await TrainingRun.create(name, root=root), agent_for(factory=factory)
    async with TrainingSession(agent, run, max_steps=STEPS, lockstep=True, **given) as session:
        await run_actors(session, factory, n_actors, seed=1)
    return bits(agent), [{**row, "attempt": 1} for row in rows(run)]


async def attempt(
    run: TrainingRun, agent: DQN, factory: Factory, n_actors: int, ending: str, after: int, **given: Any
) -> int:
    """Go on with a run for some turns of the event loop, or to the end; return where it came to."""
    session = TrainingSession(agent, run, lockstep=True, **{"max_steps": STEPS, **given})

    async def end(scope: anyio.CancelScope) -> None:
        for _ in range(after):
            await anyio.lowlevel.checkpoint()
        if ending == "stop":
            session.stop()
        elif ending == "cancelled":
            scope.cancel()

    with anyio.CancelScope() as scope:
        async with session, anyio.create_task_group() as tasks:
            tasks.start_soon(end, scope)
            await run_actors(session, factory, n_actors, seed=1)
            tasks.cancel_scope.cancel()
    return session.total_steps


async def in_pieces(
    root: Path, factory: Factory, n_actors: int, endings: list[tuple[str, int]], **given: Any
) -> Any:
    """The same training, ended again and again, each time gone on with by a new agent."""
    run = await TrainingRun.create("pieces", root=root)
    agent, came_to = agent_for(factory=factory), 0
    for number, (ending, after) in enumerate([*endings, ("", 0)]):
        if number:
            run = await TrainingRun.resume(run.directory)
            agent = agent_for(seed=100 + number, factory=factory)
        more = {"max_steps": min(STEPS, came_to + after // 8)} if ending == "limit" else {}
        came_to = await attempt(run, agent, factory, n_actors, ending, after, **{**given, **more})
    assert came_to == STEPS
    columns = await run.read_train_episodes()
    effective = set(columns["episode"].tolist())
    assert sorted(effective) == columns["episode"].tolist(), "each episode once"
    return bits(agent), [{**row, "attempt": 1} for row in rows(run)]


@pytest.mark.anyio
@pytest.mark.parametrize(("factory", "n_actors"), [(inline, 1), (inline, 5), (SlippingAsync, 5)])
async def test_the_same_training_twice_is_the_same(tmp_path: Path, n_actors: int, factory: Factory) -> None:
    first = await whole(tmp_path, "one", factory, n_actors)
    delays = random.Random(1)
    slow: Factory = lambda: SlippingAsync(lambda: delays.choice((0.0, 0.0005)))  # noqa: E731
    second = await whole(tmp_path, "two", slow, n_actors, inference="thread", queue_capacity=1)
    assert list(unequal(first[0], second[0])) == []
    assert first[1] == second[1]
    assert len(first[1]) > 5


@pytest.mark.anyio
async def test_nested_observations_are_resumed_to_the_bit(tmp_path: Path) -> None:
    expected = await whole(tmp_path, "whole", Nested, 3)
    found = await in_pieces(tmp_path, Nested, 3, [("cancelled", 200), ("stop", 150)])
    assert list(unequal(expected[0], found[0])) == []
    assert expected[1] == found[1]


@settings(max_examples=4)
@given(
    endings=st.lists(
        st.tuples(st.sampled_from(["stop", "cancelled", "limit"]), st.integers(0, 600)),
        min_size=1,
        max_size=4,
    ),
    n_actors=st.sampled_from([1, 5]),
    backend=st.sampled_from(["asyncio", "trio"]),
    factory=st.sampled_from([inline, SlippingAsync]),
)
def test_ended_anywhere_and_resumed_it_is_the_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory,
    endings: list[tuple[str, int]],
    n_actors: int,
    backend: str,
    factory: Factory,
) -> None:
    root = tmp_path_factory.mktemp("runs")

    async def both() -> None:
        expected = await whole(root, "whole", factory, n_actors)
        found = await in_pieces(
            root, factory, n_actors, endings, journal_segment_bytes=1500, checkpoint_freq=50
        )
        assert list(unequal(expected[0], found[0])) == []
        assert expected[1] == found[1]

    anyio.run(both, backend=backend)


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["stop", "cancelled", "limit"])
@pytest.mark.parametrize(("stepping", "n_actors"), [("inline", 1), ("thread", 5)])
async def test_each_way_to_end_it(tmp_path: Path, ending: str, stepping: str, n_actors: int) -> None:
    factory: Factory = SlippingAsync if stepping == "thread" else inline
    expected = await whole(tmp_path, "whole", factory, n_actors)
    for after in (150, 153):
        endings = [(ending, after), (ending, after + 13)]
        root = tmp_path / f"{after}"
        found = await in_pieces(root, factory, n_actors, endings)
        assert list(unequal(expected[0], found[0])) == []
        assert expected[1] == found[1]


class Drifting(ChainEnv):
    """An environment that depends on more than its seed and actions."""

    n_steps = 0

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        Drifting.n_steps += 1
        return observation + np.float32(Drifting.n_steps * 1e-6), *rest


@pytest.mark.anyio
async def test_an_environment_that_is_not_deterministic_is_refused_by_actor_and_step(tmp_path: Path) -> None:
    run = await TrainingRun.create("drifting", root=tmp_path)
    settings: dict[str, Any] = {"lockstep": True}
    async with TrainingSession(agent_for(), run, max_steps=31, **settings) as session:
        await run_actors(session, lambda: Drifting(20), 1, seed=1)
    assert session.engine.parts.learner.actors.running == {0: 0}
    resumed = await TrainingRun.resume(run.directory)
    with pytest.raises(
        ConfigError,
        match=r"actor 0: step 1 of 31 of its episode had another outcome.*resume without lockstep",
    ):
        async with TrainingSession(agent_for(), resumed, max_steps=60, **settings) as session:
            await run_actors(session, lambda: Drifting(20), 1, seed=1)
    resumed = await TrainingRun.resume(run.directory)
    async with TrainingSession(agent_for(), resumed, max_steps=60) as session:
        await run_actors(session, lambda: Drifting(20), 1, seed=1)
    assert session.total_steps == 60


@pytest.mark.anyio
async def test_observe_returns_when_the_transition_is_learned_and_the_policy_published() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, lockstep=True) as session:
        for k in range(1, 6):
            decision = await session.decide(k)
            assert decision.policy_version == session.policy_version == k - 1
            await session.observe(Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING))
            assert session.total_steps == agent.total_steps == k
            assert agent.learned_at[-1] == k
            assert session.policy_version == session.opt_steps == k
        await session.observe_many(
            [Experience(k, 0, 1.0, k + 1, EpisodeStatus.CONTINUING) for k in range(20)]
        )
        assert session.total_steps == 25


@pytest.mark.parametrize("kind", [TrainingSession, SyncTrainingSession])
def test_it_needs_the_journal(kind: Any) -> None:
    with pytest.raises(ConfigError, match="lockstep=True needs journal=True"):
        kind(FakeAgent(), lockstep=True, journal=False)


@pytest.mark.anyio
async def test_a_checkpoint_from_before_lockstep_gives_its_episodes_up(tmp_path: Path) -> None:
    run = await TrainingRun.create("before", root=tmp_path)
    async with TrainingSession(agent_for(), run, max_steps=30) as session:
        await run_actors(session, inline, 2, seed=1)
    async with TrainingSession(
        agent_for(), await TrainingRun.resume(run.directory), max_steps=60, lockstep=True
    ) as session:
        assert session.take_resume_point().episodes == {}
        assert session.engine.parts.learner.actors.running == {}
        await run_actors(session, inline, 2, seed=1)
    assert session.total_steps == 60


@pytest.mark.anyio
async def test_a_turn_tells_where_each_episode_stood(tmp_path: Path) -> None:
    run = await TrainingRun.create("turn", root=tmp_path)
    steps = [Experience(k, k, 1.0, k + 1, EpisodeStatus.CONTINUING, k % 2) for k in range(7)]
    async with TrainingSession(FakeAgent(), run, lockstep=True) as session:
        await session.on_episode_start(0, seed=7)
        await session.on_episode_start(1, seed=8)
        for step in steps:
            await session.observe(step)
        await session.on_episode(4.0, 4, EpisodeStatus.TRUNCATED, actor_id=0)
        await session.on_episode_start(0, seed=9)
    async with TrainingSession(
        FakeAgent(), await TrainingRun.resume(run.directory), lockstep=True
    ) as session:
        turn = session.take_resume_point()
        assert turn.last_actor == 0
        assert turn.episodes.keys() == {0, 1}
        assert (turn.episodes[0].seed, turn.episodes[0].steps) == (9, ())
        assert turn.episodes[1].seed == 8
        assert [step.action for step in turn.episodes[1].steps] == [1, 3, 5]
        assert not turn.episodes[1].is_done


@pytest.mark.anyio
async def test_whose_turn_it_is_is_known_where_no_episode_runs(tmp_path: Path) -> None:
    run = await TrainingRun.create("turn", root=tmp_path)
    settings: dict[str, Any] = {"lockstep": True, "journal_segment_bytes": 1, "keep_checkpoints": 1}
    async with TrainingSession(FakeAgent(), run, **settings) as session:
        for actor_id in (0, 1):
            await session.on_episode_start(actor_id, seed=7)
            await session.observe(Experience(0, 0, 1.0, 1, EpisodeStatus.TERMINATED, actor_id))
            await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED, actor_id=actor_id)
    for _ in range(2):
        again = await TrainingRun.resume(run.directory)
        async with TrainingSession(FakeAgent(), again, **settings) as session:
            point = session.take_resume_point()
            assert (point.episodes, point.last_actor) == ({}, 1)
            await session.checkpoint()  # which prunes the journal


def sync_attempt(run: TrainingRun, agent: DQN, until: int, stop_at: int | None = None) -> Any:
    """A plain loop in lockstep; resumed, it brings its environment back by the steps that were done."""
    with SyncTrainingSession(agent, run, max_steps=until, lockstep=True, batch_size=8) as session:
        env = ChainEnv(4, slip=0.2)
        running = session.session.take_resume_point().episodes.get(0)
        while not session.is_done:
            total_reward, length, status = 0.0, 0, EpisodeStatus.CONTINUING
            if running is None:
                seed = session.total_episodes
                session.on_episode_start(seed=seed)
                observation, _ = env.reset(seed=seed)
            else:
                observation, _ = env.reset(seed=running.seed)
                for step in running.steps:
                    observation, reward, *flags, _ = env.step(step.action)
                    status = EpisodeStatus.of(*flags)
                    total_reward, length = total_reward + reward, length + 1
                running = None
            while not status.is_done and not session.is_done:
                action = session.act(observation)
                following, reward, terminated, truncated, _ = env.step(action)
                status = EpisodeStatus.of(terminated, truncated)
                if session.total_steps + 1 == stop_at:
                    session.stop()  # from elsewhere, say: this step is dropped, and done again after a resume
                before = session.total_steps
                session.observe(Experience(observation, action, reward, following, status))
                learned = 0 if session.is_stopped else 1
                assert session.total_steps == before + learned, "learned, though the batch is not full"
                observation, total_reward, length = following, total_reward + reward, length + 1
            if status.is_done:
                session.on_episode(total_reward, length, status)
    return bits(agent)


def test_a_plain_loop_in_lockstep_is_exact_too(tmp_path: Path) -> None:
    async def create(name: str) -> TrainingRun:
        return await TrainingRun.create(name, root=tmp_path)

    expected = sync_attempt(anyio.run(create, "whole"), agent_for(), 120)
    run = anyio.run(create, "pieces")
    sync_attempt(run, agent_for(), 37)
    sync_attempt(anyio.run(TrainingRun.resume, run.directory), agent_for(seed=8), 120, stop_at=70)
    found = sync_attempt(anyio.run(TrainingRun.resume, run.directory), agent_for(seed=9), 120)
    assert list(unequal(expected, found)) == []
    assert threading.active_count() < 20
