"""Small runs whose policies are taken out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import TrainingRun, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run of a config, trained once."""
    made: dict[str, Path] = {}

    def train_it(**config: Any) -> Path:
        async def main() -> Path:
            run = await TrainingRun.create("small", root=tmp_path_factory.mktemp("runs"))
            await train(config, run, view="none")
            return run.directory

        key = repr(config)
        if key not in made:
            made[key] = anyio.run(main)
        return made[key]

    return train_it


@pytest.fixture
def cartpole(trained: Callable[..., Path]) -> Path:
    """A DQN on CartPole: three evaluations, and checkpoints at 100, 200 and 300."""
    periods = {"checkpoint_freq": 100, "eval_freq": 100, "eval_episodes": 1}
    return trained(env="CartPole-v1", agent="dqn", total_timesteps=300, **periods)


@pytest.fixture
def pendulum(trained: Callable[..., Path]) -> Path:
    """A PPO on Pendulum, with normalized observations."""
    settings = {"rollout_steps": 64, "batch_size": 32, "normalize_observations": True}
    return trained(env="Pendulum-v1", agent="ppo", total_timesteps=256, eval_freq=0, agent_settings=settings)
