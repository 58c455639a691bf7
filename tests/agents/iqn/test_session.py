"""A stopped and resumed training with IQN ends with the bits of one in one go, and so does its replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker import IQN, IQNConfig, TrainingRun, TrainingSession, run_actors
from stoker.nested import difference
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv
from stoker.testing.agent_driving import state_of

pytestmark = pytest.mark.anyio


def chain() -> ChainEnv:
    return ChainEnv(4, slip=0.2)


def agent_for(seed: int = 5) -> IQN:
    config = IQNConfig(
        hidden_sizes=(8, 8), batch_size=4, learning_starts=8, buffer_size=60, epsilon_decay_steps=200,
        n_step=3, prioritized=True, dueling=True, n_quantiles=3,
    )  # fmt: skip
    return IQN(chain().observation_space, chain().action_space, config, seed=seed)


async def trained(run: TrainingRun, agent: IQN, max_steps: int) -> IQN:
    session = TrainingSession(
        agent, run, max_steps=max_steps, lockstep=True, checkpoint_freq=50, keep_checkpoints=None,
        keep_journal="all",
    )  # fmt: skip
    async with session:
        await run_actors(session, chain, 3, seed=1)
    return agent


async def test_a_lockstep_training_in_pieces_equals_one_in_one_go_and_its_replay(tmp_path: Path) -> None:
    whole = await trained(await TrainingRun.create("whole", root=tmp_path), agent_for(), 150)
    run = await TrainingRun.create("pieces", root=tmp_path)
    await trained(run, agent_for(), 67)
    resumed = await trained(await TrainingRun.resume(run.directory), agent_for(seed=99), 150)
    assert whole.opt_steps > 100
    assert difference(state_of(whole), state_of(resumed)) is None
    replayed = replay_run(await TrainingRun.open(run.directory), agent_for())
    assert [comparison.step for comparison in replayed.comparisons] == [50, 67, 100, 150]
    assert [comparison.differences for comparison in replayed.comparisons if comparison.differences] == []
