"""Environments that write all observations into one array: in vectors, and evaluated."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from stoker import ConfigError, TrainingSession, evaluate, run_vector_actors
from stoker.envs import played
from stoker.testing import FakeAgent

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
    ),
]


class Overwriting(gymnasium.Env[Any, Any]):
    """Episodes of three steps, all in one array."""

    observation_space = spaces.Box(0, 9, (1,), np.float32)
    action_space = spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self) -> None:
        self.seen = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seen[0] = 0
        return self.seen, {}

    def step(self, action: Any) -> Any:
        action *= 5
        self.seen[0] += 1
        return self.seen, 1.0, bool(self.seen[0] == 3), False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
async def test_each_step_is_learned_as_it_was(mode: AutoresetMode) -> None:
    agent = FakeAgent(action=np.ones(1, np.float32))
    async with TrainingSession(agent, max_steps=200) as session:
        await run_vector_actors(session, lambda: SyncVectorEnv([Overwriting] * 2, autoreset_mode=mode))
    assert agent.total_steps == 200
    for actor_id in range(2):
        for k, e in enumerate(e for e in agent.experiences if e.actor_id == actor_id):
            assert (e.observation[0], e.next_observation[0], e.action[0]) == (k % 3, k % 3 + 1, 1.0)


async def test_an_evaluation_shares_no_environment_with_an_actor_and_may_use_its_own_again() -> None:
    env = Overwriting()
    async with TrainingSession(FakeAgent(action=np.ones(1, np.float32)), max_steps=10) as session:
        snapshot = await session.snapshot()
        actor = played(env, name="env of actor 0")
        with pytest.raises(
            ConfigError, match="evaluation env 0 is the same Overwriting object that env of actor 0"
        ):
            await evaluate(snapshot, lambda: env, 1)
        await actor.close()
        with pytest.raises(
            ConfigError, match="evaluation env 1 is the same Overwriting object that evaluation"
        ):
            await evaluate(snapshot, lambda: env, 2)
        for _ in range(2):
            found = await evaluate(snapshot, lambda: env, 3, concurrency=1)
            assert [record.length for record in found.records] == [3, 3, 3]
