"""A policy that has only played against its own past beats an opponent that moves at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker import TrainingRun
from stoker.multi.standings import standings_in
from stoker.trainer import train

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.learning,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning"),
]

STEPS = 200_000


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_connect_four_against_a_random_opponent(tmp_path: Path) -> None:
    run = await TrainingRun.create("four", root=tmp_path)
    config = {
        "env": "pettingzoo:pettingzoo.classic.connect_four_v3",
        "self_play": True,
        "agent": "ppo",
        "total_timesteps": STEPS,
        "num_envs": 32,
        "pool_freq": STEPS // 20,
        "eval_freq": STEPS // 10,
        "eval_episodes": 200,
        "hidden_sizes": (256, 256),
        "activation": "relu",
        "rollout_steps": 2048,
        "batch_size": 256,
        "n_epochs": 4,
        "ent_coef": 0.01,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "linear",
        "schedule_steps": STEPS,
    }
    result = await train(config, run)
    standings = standings_in(run.directory)
    assert standings is not None
    print(f"\n{result.best_eval_reward=} {result.last_eval_reward=} {standings.rating=:.0f}")
    assert result.best_eval_reward is not None
    assert result.best_eval_reward >= 0.90, "wins minus losses: 95 % of 200 games"
    ratings = [one.rating for one in standings.opponents]
    assert ratings[-1] > ratings[0] + 300, "each later policy does better against the earlier ones"
