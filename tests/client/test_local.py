"""Actions chosen here, with a copy of the server's policy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from servers import ACTIONS, OBSERVATIONS, Service, served

from stoker import DQN, PPO, ActMode, ConfigError, DQNConfig, EpisodeStatus, Experience
from stoker.client import connect

pytestmark = pytest.mark.anyio


def dqn() -> DQN:
    return DQN(OBSERVATIONS, ACTIONS, DQNConfig(hidden_sizes=(16,), learning_starts=1000), seed=3)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with served(dqn) as service:
        yield service


async def test_actions_are_those_of_the_servers_policy(service: Service) -> None:
    seen = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    greedy = [int(action) for action in dqn().policy().act(seen, ActMode.EXPLOIT)[0]]
    async with connect(service.url, local_policy=True, epsilon=0.0) as session:
        for number, observation in enumerate(seen[:-1]):
            action = await session.act(observation)
            assert action == greedy[number]
            await session.observe(
                Experience(observation, action, 1.0, seen[number + 1], EpisodeStatus.CONTINUING)
            )
        await session.barrier()
        assert session.accepted_steps == 39


async def test_a_part_of_the_actions_is_random(service: Service) -> None:
    observation = np.zeros(2, np.float32)
    async with connect(service.url, local_policy=True, epsilon=1.0) as session:
        assert {await session.act(observation) for _ in range(60)} == {0, 1, 2}
        assert len({await session.act(observation, ActMode.EXPLOIT) for _ in range(20)}) == 1


async def test_what_cannot_act_here_is_refused(service: Service) -> None:
    with pytest.raises(ConfigError, match="epsilon=2"):
        async with connect(service.url, local_policy=True, epsilon=2.0):
            pytest.fail("it is open")
    with (
        served(lambda: PPO(OBSERVATIONS, ACTIONS, seed=1)) as picky,
        pytest.raises(ConfigError, match="own act"),
    ):
        async with connect(picky.url, local_policy=True):
            pytest.fail("it is open")
