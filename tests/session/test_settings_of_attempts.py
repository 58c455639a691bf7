"""Attempts of one run with settings of their own: a resume and a replay learn each part with its own."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch
from training_parts import BOX, SMALL, bits, dqn, feed, transition, unequal

from stoker import DQN, PPO, ConfigError, DQNConfig, PPOConfig, SessionFailed, TrainingRun, TrainingSession
from stoker.agents.protocol import LearningAgent, settings_of
from stoker.session.replaying import replay_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
ALL: dict[str, Any] = {"keep_journal": "all", "checkpoint_freq": 30, "keep_checkpoints": None}


def differing(agent: LearningAgent, run: TrainingRun) -> list[str]:
    """Where a replay from the first event, with this new agent, differs from the checkpoints."""
    replayed = replay_run(run, agent)
    assert replayed.from_steps == 0
    assert [comparison.step for comparison in replayed.comparisons] == run.checkpoint_steps()
    return [path for comparison in replayed.comparisons for path in comparison.differences]


@pytest.mark.parametrize(
    "fixed",
    [{}, {"n_step": 3, "prioritized": True}, {"normalize_rewards": True, "normalize_observations": True}],
    ids=["plain", "n-step, prioritized", "normalized"],
)
async def test_each_attempt_of_dqn_is_replayed_with_its_own_settings(
    tmp_path: Path, fixed: dict[str, Any]
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    attempts: list[dict[str, Any]] = [
        {"learning_rate": 1e-2},
        {"learning_rate": 1e-3, "learning_starts": 5},
        {"learning_rate": 1e-4, "buffer_size": 30, "batch_size": 8},
        {"buffer_size": 70, "target_update_interval": 7, "priority_alpha": 0.3},
        {"learning_rate_schedule": "linear", "schedule_steps": 400, "hidden_sizes": (8,)},
    ]
    for number, settings in enumerate(attempts):
        run = await TrainingRun.resume(run.directory) if number else run
        agent = dqn(**fixed, **settings)
        async with TrainingSession(agent, run, **ALL, opt_interval=1 + number % 2) as session:
            assert session.agent is agent
            await feed(session, 75 * number, 75 * number + 75)
        assert session.total_steps == 75 * number + 75
    again = dqn(**fixed, **attempts[-1])
    assert differing(again, run) == []
    assert list(unequal(bits(again), bits(agent))) == []
    assert again.config == agent.config


async def test_a_tail_within_an_attempt_is_learned_as_that_attempt_did(tmp_path: Path) -> None:
    """Its segment begins before the checkpoint, and there are earlier ones with other settings."""
    run = await TrainingRun.create("within", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, **ALL) as session:
        await feed(session, 0, 10)
    run = await TrainingRun.resume(run.directory)
    async with TrainingSession(FakeAgent(), run, opt_interval=4, final_checkpoint=False, **ALL) as session:
        await feed(session, 10, 12)
        await session.checkpoint()
        await feed(session, 12, 20)
    agent = FakeAgent()
    async with TrainingSession(agent, await TrainingRun.resume(run.directory), **ALL) as session:
        assert session.total_steps == 20
    assert agent.learned_at == [12 + 4, 12 + 8]


@pytest.mark.parametrize(
    "fixed", [{}, {"n_step": 3, "prioritized": True}], ids=["plain", "n-step, prioritized"]
)
async def test_a_tail_is_learned_with_the_settings_that_it_was_recorded_with(
    tmp_path: Path, fixed: dict[str, Any]
) -> None:
    """Of a session that failed behind its last checkpoint, and of one that ended there with a checkpoint."""
    first, second = {"learning_rate": 1e-2, "buffer_size": 40}, {"learning_rate": 1e-4, "batch_size": 8}
    ended: list[DQN] = []
    for name in ("failed", "closed"):
        run = await TrainingRun.create(name, root=tmp_path)
        with pytest.raises(SessionFailed) if name == "failed" else contextlib.nullcontext():
            async with TrainingSession(dqn(**fixed, **first), run, **ALL) as session:
                await feed(session, 0, 85)
                await session.flush()
                if name == "failed":
                    session.fail("the test", OSError("as a kill would end it"))
                    await anyio.sleep_forever()
        run = await TrainingRun.resume(run.directory)
        agent = dqn(**fixed, **second)
        async with TrainingSession(agent, run, **ALL) as session:
            assert (session.agent, session.total_steps) == (agent, 85)
            await feed(session, 85, 150)
        ended.append(agent)
        again = dqn(**fixed, **second)
        assert differing(again, run) == []
        assert list(unequal(bits(again), bits(agent))) == []
    assert list(unequal(*map(bits, ended))) == []


class Threaded(DQN):
    """Notes with how many threads of torch it learned."""

    def learn(self) -> dict[str, float] | None:
        self.__dict__.setdefault("n_threads", []).append(torch.get_num_threads())
        return super().learn()


async def test_each_attempt_is_learned_again_with_its_number_of_threads(tmp_path: Path) -> None:
    def threaded() -> Threaded:
        return Threaded(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**SMALL), seed=3)

    run = await TrainingRun.create("r", root=tmp_path)
    before = torch.get_num_threads()
    try:
        for number, n_threads in enumerate((1, 3)):
            torch.set_num_threads(n_threads)
            run = await TrainingRun.resume(run.directory) if number else run
            async with TrainingSession(threaded(), run, **ALL) as session:
                await feed(session, 20 * number, 20 * number + 20)
        torch.set_num_threads(2)
        agent = threaded()
        assert differing(agent, run) == []
        assert agent.__dict__["n_threads"] == [1] * 20 + [3] * 20
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


async def play(agent: PPO, run: TrainingRun, n: int) -> None:
    async with TrainingSession(agent, run, **ALL) as session:
        for k in range(session.total_steps, session.total_steps + n):
            step = transition(k)
            decision = await session.decide(step.observation)
            extras, version = decision.policy_extras, decision.policy_version
            values = (step.observation, decision.action, step.reward, step.next_observation, step.status)
            await session.observe(type(step)(*values, step.actor_id, extras, version))
            await session.barrier()


def ppo(**settings: Any) -> PPO:
    shared: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 8, "n_epochs": 2}
    actions = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    return PPO(BOX, actions, PPOConfig(**{"rollout_steps": 32, **shared, **settings}), seed=4)


async def test_each_attempt_of_ppo_is_replayed_with_its_own_settings(tmp_path: Path) -> None:
    """A half-filled rollout goes over to the next attempt, also to one with shorter rollouts."""
    run = await TrainingRun.create("r", root=tmp_path)
    attempts: list[dict[str, Any]] = [
        {"learning_rate_schedule": "linear", "schedule_steps": 100},
        {"learning_rate_schedule": "linear", "schedule_steps": 200, "rollout_steps": 16},
        {"clip_range": 0.1, "gamma": 0.9},
    ]
    for number, settings in enumerate(attempts):
        run = await TrainingRun.resume(run.directory) if number else run
        await play(ppo(**settings), run, 75)
    assert differing(ppo(**attempts[-1]), run) == []


async def test_a_run_with_equal_settings_makes_no_second_agent(tmp_path: Path) -> None:
    class Counted(DQN):
        made = 0

        def _made_with(self, config: DQNConfig) -> Any:
            Counted.made += 1
            return super()._made_with(config)

    def counted(**settings: Any) -> Counted:
        return Counted(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**{**SMALL, **settings}), seed=3)

    run = await TrainingRun.create("r", root=tmp_path)
    for number in range(2):
        async with TrainingSession(counted(), run, **ALL, journal_segment_bytes=1000) as session:
            await feed(session, 40 * number, 40 * number + 40)
        run = await TrainingRun.resume(run.directory)
    assert len(run.journal.headers()) > 4
    assert differing(counted(), run) == []
    assert Counted.made == 0
    assert differing(counted(learning_rate=1.0), run) == []
    assert Counted.made == 1, "both attempts have equal settings"


async def test_two_agents_share_a_replay_where_both_would_keep_the_same() -> None:
    agent = dqn(prioritized=True)
    slower = agent.with_settings({**(settings_of(agent) or {}), "learning_rate": 1e-5})
    assert slower is not None
    assert slower.replay is agent.replay
    assert (slower.config.buffer_size, slower.config.learning_rate) == (agent.config.buffer_size, 1e-5)
    for changes in ({"buffer_size": 51}, {"priority_alpha": 0.1}):
        other = agent.with_settings({**(settings_of(agent) or {}), **changes})
        assert other is not None
        assert other.replay is not agent.replay
        assert other.replay.capacity == other.config.buffer_size


class Own(DQN):
    """An agent of a user's that is made in a way of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**{**SMALL, **settings}), seed=3)


async def test_an_agent_that_cannot_be_made_with_other_settings_goes_on_with_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with TrainingSession(Own(), run, **ALL, journal_segment_bytes=1000) as session:
        await feed(session, 0, 60)
    with caplog.at_level(logging.WARNING):
        replayed = replay_run(run, Own(learning_rate=0.5))
    [warning] = [record.getMessage() for record in caplog.records]
    assert "recorded with other settings of Own (learning_rate)" in warning
    assert replayed.total_steps == 60
    assert any(comparison.differences for comparison in replayed.comparisons)


async def test_another_kind_of_agent_than_the_journals_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with TrainingSession(dqn(), run, **ALL) as session:
        await feed(session, 0, 20)
    with pytest.raises(ConfigError, match="trained by the agent DQN, this is Own"):
        replay_run(run, Own())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"hidden_sizes": (9,)}, r"hidden_sizes does not fit: saved \(8,\), here \(9,\)"),
        ({"n_step": 2}, "n_step=2: this run's replay was made with 1"),
    ],
)
async def test_settings_that_do_not_fit_are_refused_before_anything_is_learned(
    tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    async with TrainingSession(dqn(), run, **ALL) as session:
        await feed(session, 0, 40)
    agent = dqn(**settings)
    with pytest.raises(ConfigError, match=problem):
        await TrainingSession(agent, await TrainingRun.resume(run.directory), **ALL).open()
    assert agent.total_steps == 0
    with pytest.raises(ConfigError, match=problem):
        replay_run(run, agent)
    assert agent.total_steps == 0
