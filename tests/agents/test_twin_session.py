"""A stopped and resumed training of twin critics ends with the bits of one in one go, as does its replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker import (
    AWAC,
    IQL,
    SAC,
    TD3,
    AWACConfig,
    EpisodeStatus,
    Experience,
    IQLConfig,
    SACConfig,
    TD3Config,
    TrainingRun,
    TrainingSession,
    make_gym,
    run_actors,
)
from stoker.nested import difference
from stoker.session.replaying import replay_run
from stoker.testing.agent_driving import state_of

pytestmark = pytest.mark.anyio
SMALL: dict[str, Any] = {
    "hidden_sizes": (8, 8), "batch_size": 4, "learning_starts": 30, "buffer_size": 60, "n_step": 3,
    "prioritized": True, "normalize_observations": True,
}  # fmt: skip


def pendulum() -> Any:
    return make_gym("Pendulum-v1", max_episode_steps=13)


def sac(seed: int = 5) -> SAC:
    env = pendulum()
    return SAC(env.observation_space, env.action_space, SACConfig(**SMALL, gradient_steps=2), seed=seed)


def td3(seed: int = 5) -> TD3:
    env = pendulum()
    return TD3(env.observation_space, env.action_space, TD3Config(**SMALL), seed=seed)


def iql(seed: int = 5) -> IQL:
    env = pendulum()
    return IQL(env.observation_space, env.action_space, IQLConfig(**SMALL), seed=seed)


def awac(seed: int = 5) -> AWAC:
    env = pendulum()
    return AWAC(env.observation_space, env.action_space, AWACConfig(**SMALL), seed=seed)


def warm_sac(seed: int = 5) -> SAC:
    agent, env, steps = sac(seed), pendulum(), list[Experience]()
    env.action_space.seed(0)
    seen, _ = env.reset(seed=0)
    for _ in range(13):
        action = env.action_space.sample()
        after, reward, *_ = env.step(action)
        steps.append(Experience(seen, action, float(reward), after, EpisodeStatus.CONTINUING))
        seen = after
    agent.use_prior([steps], 13, 0.5)
    return agent


async def trained(run: TrainingRun, agent: Any, max_steps: int) -> Any:
    session = TrainingSession(
        agent, run, max_steps=max_steps, lockstep=True, checkpoint_freq=30, keep_checkpoints=None,
        keep_journal="all",
    )  # fmt: skip
    async with session:
        await run_actors(session, pendulum, 3, seed=1)
    return agent


@pytest.mark.parametrize("make", [sac, td3, iql, awac, warm_sac])
async def test_a_lockstep_training_in_pieces_equals_one_in_one_go_and_its_replay(
    tmp_path: Path, make: Any
) -> None:
    whole = await trained(await TrainingRun.create("whole", root=tmp_path), make(), 90)
    run = await TrainingRun.create("pieces", root=tmp_path)
    await trained(run, make(), 47)
    resumed = await trained(await TrainingRun.resume(run.directory), make(seed=99), 90)
    assert whole.opt_steps > 50
    assert difference(state_of(whole), state_of(resumed)) is None
    replayed = replay_run(await TrainingRun.open(run.directory), make())
    assert [comparison.step for comparison in replayed.comparisons] == [30, 47, 60, 90]
    assert [comparison.differences for comparison in replayed.comparisons if comparison.differences] == []
