"""What a session promises of its agents, with PPO: extras joined, journalled, and trained from again."""

from __future__ import annotations

from pathlib import Path

import anyio
import numpy as np
import pytest

from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.agents import PPO, PPOConfig
from stoker.errors import InvalidExperience
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv

pytestmark = pytest.mark.anyio


def chain_agent() -> PPO:
    env = ChainEnv()
    config = PPOConfig(
        rollout_steps=64, batch_size=32, n_epochs=2, hidden_sizes=(16,), normalize_observations=True,
        normalize_rewards=True,
    )  # fmt: skip
    return PPO(env.observation_space, env.action_space, config, seed=2)


async def play(session: TrainingSession, actor_id: int) -> None:
    env = ChainEnv()
    while not session.is_done:
        observation, _ = env.reset(seed=actor_id)
        status, total, steps = EpisodeStatus.CONTINUING, 0.0, 0
        while not (status.is_done or session.is_done):
            action = await session.act(observation, actor_id=actor_id)
            next_observation, reward, terminated, truncated, _ = env.step(action)
            status = EpisodeStatus.of(terminated, truncated)
            await session.observe(Experience(observation, action, reward, next_observation, status, actor_id))
            observation, total, steps = next_observation, total + reward, steps + 1
        if status.is_done:
            await session.on_episode(total, steps, status, actor_id=actor_id)


async def trained(run: TrainingRun, max_steps: int) -> PPO:
    agent = chain_agent()
    session = TrainingSession(agent, run, max_steps=max_steps, checkpoint_freq=150, keep_checkpoints=None)
    async with session, anyio.create_task_group() as actors:
        for actor_id in range(3):
            actors.start_soon(play, session, actor_id)
    return agent


async def test_a_resumed_training_is_learned_again_from_its_journal_bit_for_bit(tmp_path: Path) -> None:
    run = await TrainingRun.create("chain", root=tmp_path)
    first = await trained(run, 200)  # eight transitions into its fourth rollout
    second = await trained(await TrainingRun.resume(run.directory), 450)
    assert (first.opt_steps, second.total_steps, second.opt_steps) == (3, 450, 7)
    again = chain_agent()
    replayed = replay_run(await TrainingRun.open(run.directory), again)
    assert [comparison.step for comparison in replayed.comparisons] == [150, 200, 300, 450]
    assert [comparison.differences for comparison in replayed.comparisons] == [()] * 4
    assert again.opt_steps == 7


async def test_an_action_that_was_not_the_policys_is_refused_at_the_door() -> None:
    async with TrainingSession(chain_agent(), max_steps=10) as session:
        row = np.zeros(1, np.float32)
        unasked = Experience(row, 1, 0.0, row, EpisodeStatus.CONTINUING, "me")
        with pytest.raises(InvalidExperience, match=r"'me'.*session\.act\("):
            await session.observe(unasked)
        action = await session.act(row, actor_id="me")
        await session.observe(Experience(row, action, 0.0, row, EpisodeStatus.CONTINUING, "me"))
        await session.flush()
        assert session.total_steps == 1
