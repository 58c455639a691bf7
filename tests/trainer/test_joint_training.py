"""Trainings and evaluations of agents that share one policy: scores, resumes, replays, refusals."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from stoker import ConfigError, EpisodeStatus, Trainer, TrainerConfig, TrainingRun, evaluate, train
from stoker.cli.train import Train
from stoker.envs import JointStep, Outcome
from stoker.session import PolicySnapshot
from stoker.session.replaying import replay_run
from stoker.testing import FakeAgent
from stoker.trainer import TrainConfig, agent_for, config_from
from stoker.trainer.making import plays_jointly

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
SPREAD = "pettingzoo:mpe2.simple_spread_v3"


class Auction:
    """Two bidders in turn; at the end the first one, and one who has not bid, are paid."""

    agents = ("first", "second", "idle")

    def __init__(self, end_of_second: EpisodeStatus = EpisodeStatus.TERMINATED) -> None:
        self._ends = {"first": EpisodeStatus.TERMINATED, "second": end_of_second}

    def spaces(self, agent: str) -> Any:
        return spaces.Box(0.0, 9.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None) -> JointStep:
        return JointStep({"first": np.zeros(1, np.float32)})

    def step(self, actions: Any) -> JointStep:
        now = np.ones(1, np.float32)
        if "first" in actions:
            return JointStep({"second": now})
        last = {
            agent: Outcome(pay, now, self._ends[agent]) for agent, pay in (("first", 4.0), ("second", -1.0))
        }
        return JointStep({}, last, is_over=True, unearned={"idle": 3.0})


@on_asyncio
@pytest.mark.parametrize("end", [EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED])
async def test_the_score_of_an_episode_is_the_mean_over_its_agents(end: EpisodeStatus) -> None:
    snapshot = PolicySnapshot(FakeAgent(), total_steps=0, state={})
    found = await evaluate(snapshot, partial(Auction, end), 3)
    for record in found.records:
        assert record.total_reward == 2.0
        assert record.length == 2
        assert record.status is end, "truncated if one of its agents was"
        assert record.extras == {"reward_first": 4.0, "reward_second": -1.0, "reward_idle": 3.0}


@on_asyncio
async def test_a_training_by_its_config_resumes_and_replays(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "env": SPREAD, "env_kwargs": {"N": 2, "max_cycles": 5}, "num_envs": 2, "total_timesteps": 150,
        "checkpoint_freq": 50, "eval_freq": 100, "eval_episodes": 2, "learning_starts": 32,
        "hidden_sizes": [16], "batch_size": 16,
    }  # fmt: skip
    run = await TrainingRun.create("spread", root=tmp_path)
    await train(config, run, view="none")
    run = await TrainingRun.resume(run.directory)
    result = await train({**config, "total_timesteps": 210}, run, view="none")
    assert result.total_steps == 210
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_bytes().splitlines()]
    assert {row["actor_id"] for row in rows} == {f"{env}/agent_{agent}" for env in (0, 1) for agent in (0, 1)}
    assert {row["length"] for row in rows} == {5}
    row = json.loads((run.directory / "eval_episodes.jsonl").read_bytes().splitlines()[0])
    by_agent = row["extras"]["reward_agent_0"], row["extras"]["reward_agent_1"]
    assert row["total_reward"] == pytest.approx(sum(by_agent) / 2)
    stored = json.loads((run.directory / "config.json").read_bytes())
    replayed = replay_run(run, agent_for(config_from(stored)))
    assert replayed.comparisons
    assert not [found.differences for found in replayed.comparisons if found.differences]


def test_the_command_line_finds_the_agent_by_the_shared_spaces() -> None:
    training = Train.from_words("train", [SPREAD, "--env-kwargs", "N=2"]).training
    assert (training.agent, training.env_kwargs, plays_jointly(training)) == ("dqn", {"N": 2}, True)
    with pytest.raises(ConfigError, match="agents 'adversary_0' and 'agent_0' .* different observations"):
        Train.from_words("train", ["pettingzoo:mpe2.simple_tag_v3"])


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        (
            "lockstep",
            True,
            "use lockstep=False: a resume learns all of the journal, .* begins new ones$",
        ),
        ("vectorize", "sync", "use vectorize='none'$"),
        ("actors", "threads", "use actors='tasks'$"),
        ("frame_stack", 2, "use frame_stack=1; to wrap it name a function"),
        ("sync_interval", 3, "use sync_interval=None$"),
    ],
)
def test_settings_of_single_environments_are_refused(name: str, value: Any, advice: str) -> None:
    refused = re.escape(f"{name}={value!r} does not work with env={SPREAD!r}, whose agents act together: ")
    with pytest.raises(ConfigError, match=refused + advice):
        agent_for(TrainConfig(env=SPREAD, **{name: value}))


NAMES = {
    "pettingzoo:nowhere.at_all": "the module 'nowhere.at_all' cannot be imported",
    "pettingzoo:mpe2.simple_spread_v3:parallel": "has no 'parallel'; did you mean",
    "pettingzoo:stoker.testing:ChainEnv": "a ChainEnv is not an environment of several agents",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_makes_no_joint_environment_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=NAMES[name]):
        agent_for(TrainConfig(env=name))


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'M'; see env_kwargs"):
        agent_for(TrainConfig(env=SPREAD, env_kwargs={"M": 2}))


@on_asyncio
async def test_joint_environments_cannot_be_stepped_one_by_one() -> None:
    trainer = Trainer(FakeAgent(), Auction, TrainerConfig(max_steps=9), is_joint=True)
    with pytest.raises(ConfigError, match="async with trainer: joint environments cannot be stepped one by"):
        await trainer.__aenter__()
