"""Agents that learn from data: a training in pieces, and a replay, end with the bits of one in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from stoker import (
    BC,
    BCConfig,
    ConfigError,
    DiscreteCQL,
    DiscreteCQLConfig,
    TrainConfig,
    Trainer,
    TrainerConfig,
    TrainingRun,
)
from stoker.nested import difference
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv
from stoker.testing.agent_driving import state_of
from stoker.trainer import train

pytestmark = pytest.mark.anyio
SEEN = Box(-1, 1, (3,), np.float32)
SMALL: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 8, "normalize_observations": True}
AGENTS: dict[str, Any] = {
    "bc": lambda seed: BC(SEEN, Discrete(2), BCConfig(**SMALL), seed),
    "bc-box": lambda seed: BC(SEEN, Box(-2, 2, (2,)), BCConfig(**SMALL), seed),
    "cql": lambda seed: DiscreteCQL(
        SEEN, Discrete(2), DiscreteCQLConfig(n_step=3, prioritized=True, learning_starts=50, **SMALL), seed
    ),
}


def columns(space: Any, n: int = 120) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    space.seed(0)
    ends = np.arange(n) % 20 == 19
    return {
        "observations": rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        "actions": np.array([space.sample() for _ in range(n)]),
        "rewards": rng.normal(size=n),
        "next_observations": rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        "terminated": ends & (np.arange(n) < 60),
        "truncated": ends & (np.arange(n) >= 60),
    }


async def trained(run: TrainingRun, agent: Any, max_opts: int) -> Any:
    config = TrainerConfig(max_opts=max_opts, save_interval=20)
    trainer = Trainer(agent, ChainEnv, config, run=run, keep_journal="all", keep_checkpoints=None)
    await trainer.train_offline(columns(agent.env_spaces[1]))
    return agent


def learned(agent: Any) -> Any:
    """All of its state but the losses of the running episode, which a resume ends."""
    state = state_of(agent)
    del state["agent"]["losses"]
    return state


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
@pytest.mark.parametrize("name", AGENTS)
async def test_a_training_in_pieces_equals_one_in_one_go_and_its_replay(tmp_path: Path, name: str) -> None:
    make = AGENTS[name]
    whole = await trained(await TrainingRun.create("whole", root=tmp_path), make(5), 60)
    run = await TrainingRun.create("pieces", root=tmp_path)
    await trained(run, make(5), 25)
    resumed = await trained(await TrainingRun.resume(run.directory), make(99), 60)
    assert whole.opt_steps == 60
    assert difference(learned(whole), learned(resumed)) is None
    again = make(5)
    replayed = replay_run(await TrainingRun.open(run.directory), again)
    assert [comparison.differences for comparison in replayed.comparisons if comparison.differences] == []
    assert difference(learned(again), learned(whole)) is None


async def test_an_agent_that_learns_from_data_alone_is_not_trained_without() -> None:
    with pytest.raises(ConfigError, match=r"agent='bc' learns from a data set alone.*--offline DATA"):
        await train(TrainConfig(env="CartPole-v1", agent="bc"))
