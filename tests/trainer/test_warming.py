"""Offline to online: trainers that mix prior data into their batches."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import gymnasium
import msgspec
import numpy as np
import pytest

from stoker import PPO, ConfigError, EpisodeStatus, Experience, Trainer, TrainerConfig, TrainingRun
from stoker.agents import DQN, DQNConfig
from stoker.data import DatasetInfo, Episode
from stoker.testing import ChainEnv
from stoker.trainer import config_from
from stoker.trainer.warming import warmed_up

pytestmark = pytest.mark.anyio
ENV = ChainEnv(3)
TINY: dict[str, Any] = {
    "env": "StokerChain-v0", "num_envs": 2, "vectorize": "none", "total_timesteps": 100, "seed": 1,
    "checkpoint_freq": 50, "eval_freq": 0, "learning_starts": 16, "batch_size": 8, "buffer_size": 1000,
    "hidden_sizes": [8],
}  # fmt: skip


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("StokerChain-v0", lambda: ChainEnv(3))
    yield
    del gymnasium.registry["StokerChain-v0"]


def dqn() -> DQN:
    small = DQNConfig(hidden_sizes=(8,), batch_size=8, learning_starts=16, buffer_size=1000)
    return DQN(ENV.observation_space, ENV.action_space, small, seed=2)


def episodes(n: int = 4, length: int = 5) -> list[Episode]:
    """The last one breaks off."""
    rng = np.random.default_rng(0)
    statuses = [*([EpisodeStatus.TERMINATED] * (n - 1)), EpisodeStatus.CONTINUING]
    shape = ENV.observation_space.shape
    assert shape is not None
    return [
        Episode(
            observations=rng.uniform(0, 1, (length + 1, *shape)).astype(np.float32),
            actions=rng.integers(2, size=length),
            rewards=rng.normal(size=length),
            status=status,
        )
        for status in statuses
    ]


class Recorded:
    """A data set in memory."""

    n_dropped = 0

    def __init__(self, found: list[Episode], **changes: Any) -> None:
        known = {"source": "recorded", "format": "npz", "n_steps": sum(map(len, found))}
        spaces = {"observation_space": ENV.observation_space, "action_space": ENV.action_space}
        self.info = DatasetInfo(**{**known, **spaces, **changes})
        self.found = found

    def episodes(self) -> Iterator[Episode]:
        return iter(self.found)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


async def test_a_trainer_reads_prior_data_when_its_first_training_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stoker.session.resume")
    run = await TrainingRun.create("r", root=tmp_path)
    agent = dqn()
    trainer = Trainer(agent, ChainEnv, TrainerConfig(max_steps=60, num_envs=2), run=run,
                      warm_data=Recorded(episodes()), mix=0.25)  # fmt: skip
    assert agent.prior is None
    await trainer.train()
    assert agent.prior is not None
    assert (agent.prior.size, agent.prior.share) == (20, 0.25)
    assert agent.total_steps == 60  # what is played alone
    journal = run.journal
    assert sum(isinstance(event, Experience) for _, event in journal.read(0, journal.n_events())) == 60
    assert "prior data: 20 transitions, 0.25 of each batch" in caplog.text
    await trainer.train()  # they are there
    assert agent.total_steps == 120


def test_all_forms_of_the_same_data_are_equal() -> None:
    found = episodes()
    closed = [*found[:-1], msgspec.structs.replace(found[-1], status=EpisodeStatus.TRUNCATED)]
    steps = [step for episode in closed for step in episode.experiences()]
    columns = {
        "observations": np.stack([step.observation for step in steps]),
        "actions": np.array([step.action for step in steps]),
        "rewards": np.array([step.reward for step in steps]),
        "next_observations": np.stack([step.next_observation for step in steps]),
        "terminated": np.array([step.status.is_terminal for step in steps]),
        "truncated": np.array([step.status.is_truncated for step in steps]),
    }
    given = [Recorded(found), Recorded(found, n_steps=None), Recorded(found, n_steps=30), steps, columns]
    agents = [dqn() for _ in given]
    for agent, data in zip(agents, given, strict=True):
        warmed_up(agent, data, 0.5)
    assert len({agent.prior for agent in agents}) == 1


async def test_a_cancelled_training_stops_reading_at_the_next_part_and_the_next_one_reads_again() -> None:
    scope, agent, n_read = anyio.CancelScope(), dqn(), 0

    class Long(Recorded):
        def episodes(self) -> Iterator[Episode]:
            nonlocal n_read
            for _ in range(3 if n_read else 2_000):
                yield self.found[0]
                n_read += 1
                if n_read == 1:
                    anyio.from_thread.run_sync(scope.cancel)

    data = Long(episodes(), n_steps=10_000)
    trainer = Trainer(agent, ChainEnv, TrainerConfig(max_steps=10), warm_data=data)
    with scope:
        await trainer.train()
    assert scope.cancelled_caught
    assert 5 * n_read < 5_000
    assert agent.prior is None
    await trainer.train()
    assert agent.prior is not None
    assert agent.prior.size == 3 * 5


BOX5 = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "observations": (
        {"observation_space": BOX5},
        "have observations of Box(-1.0, 1.0, (5,), float32), and the agent",
    ),
    "actions": ({"action_space": gymnasium.spaces.Discrete(7)}, "have actions of Discrete(7), and the agent"),
}


@pytest.mark.parametrize("what", WRONG)
def test_data_of_other_spaces_are_refused_with_both(what: str) -> None:
    changes, message = WRONG[what]
    with pytest.raises(ConfigError, match=re.escape(message)):
        warmed_up(dqn(), Recorded(episodes(), **changes), 0.5)


def test_a_transition_that_does_not_fit_is_named_with_the_spaces() -> None:
    found = episodes()
    found[1].observations[2] = np.nan
    with pytest.raises(
        ConfigError, match=r"which observes Box.* and acts in Discrete.*: transition 6: next_obs"
    ):
        warmed_up(dqn(), Recorded(found), 0.5)
    with pytest.raises(ConfigError, match="the prior data are empty"):
        warmed_up(dqn(), Recorded([]), 0.5)


def test_what_cannot_be_mixed_is_refused_before_anything_is_begun() -> None:
    ppo = PPO(ENV.observation_space, ENV.action_space)
    with pytest.raises(
        ConfigError, match="warm_data: PPO learns from what it plays alone: leave it out, or use"
    ):
        Trainer(ppo, ChainEnv, warm_data=Recorded(episodes()))
    with pytest.raises(ConfigError, match="mix=1.0: give the share"):
        Trainer(dqn(), ChainEnv, warm_data=Recorded(episodes()), mix=1.0)
    with pytest.raises(
        ConfigError, match="ppo learns from what it plays alone: leave it out, or use dqn, iqn"
    ):
        config_from({"env": "StokerChain-v0", "agent": "ppo", "warm_data": "x.npz"})
    with pytest.raises(ConfigError, match="mix=1"):
        config_from({**TINY, "mix": 1})
