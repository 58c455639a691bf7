"""Fitted Q evaluation on a chain whose values are known, and ``stoker eval --offline``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    ConfigError,
    DatasetInfo,
    DQNConfig,
    Episode,
    EpisodeStatus,
    TrainingRun,
    TrainingSession,
    export_policy,
    fitted_q_evaluation,
    run_actors,
    write_dataset,
)
from stoker.cli.evaluate import Evaluate
from stoker.policies.description import FORMAT, PolicyDescription, action_of, parts_of
from stoker.policies.exported import LoadedPolicy
from stoker.protocol import Spaces
from stoker.testing import ChainEnv

CELLS, SLIP, GAMMA = 3, 0.2, 0.8
SEEN: Any = gymnasium.spaces.Discrete(CELLS + 1)
BOX: Any = gymnasium.spaces.Box(0, CELLS, (1,), np.float32)
ACTED: Any = gymnasium.spaces.Discrete(2)


def policy(action: int) -> LoadedPolicy:
    """Takes one action, whatever it sees."""
    description = PolicyDescription(
        format=FORMAT, env="", agent="", run="", checkpoint="", total_steps=0, opt_steps=0, mean_reward=None,
        spaces=msgspec.to_builtins(Spaces.of(SEEN, ACTED)), observation=parts_of(SEEN),
        action=action_of(ACTED), frame_stack=1, preprocessing=(),
    )  # fmt: skip
    return LoadedPolicy(lambda cells: {"action": np.full(len(cells), action)}, description, "numpy")


def true_value(action: int) -> float:
    """Of cell 0, by the Bellman equation: ``v = P (r + gamma v)``; the last cell ends the episode."""
    right = 1 - SLIP if action else SLIP
    system, reward = np.eye(CELLS), np.zeros(CELLS)
    for cell in range(CELLS):
        for after, chance in ((cell + 1, right), (max(cell - 1, 0), 1 - right)):
            if after == CELLS:
                reward[cell] += chance
            else:
                system[cell, after] -= GAMMA * chance
    return float(np.linalg.solve(system, reward)[0])


class Walks:
    """A data set of random walks along the chain; half of those that take long are truncated."""

    info: DatasetInfo
    n_dropped = 0

    def __init__(self, n_episodes: int, action: Any = None) -> None:
        self._n, self._action = n_episodes, action

    def episodes(self) -> Iterator[Episode]:
        rng = np.random.default_rng(1)
        for _ in range(self._n):
            cells, actions = [0], list[int]()
            while cells[-1] < CELLS and len(actions) < 12:
                actions.append(int(rng.integers(2)))
                step = 1 if bool(actions[-1]) != bool(rng.random() < SLIP) else -1
                cells.append(max(cells[-1] + step, 0))
            is_over = cells[-1] == CELLS
            rewards = np.zeros(len(actions))
            rewards[-1] = is_over
            status = EpisodeStatus.TERMINATED if is_over else EpisodeStatus.TRUNCATED
            yield Episode(
                observations=np.array(cells), actions=np.array(actions), rewards=rewards, status=status
            )


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_interval_holds_the_true_value_and_a_better_policy_is_worth_more() -> None:
    watched: list[int] = []
    data: Any = Walks(120)
    found = [
        fitted_q_evaluation(
            policy(action), data, gamma=GAMMA, n_updates=600, watch=lambda done, _: watched.append(done)
        )
        for action in (0, 1)
    ]
    for action, each in enumerate(found):
        assert each.low < true_value(action) < each.high
        assert each.high - each.low < 0.25
    assert found[0].high < found[1].low
    assert watched == [500, 500]
    episodes = list(data.episodes())
    assert found[0].n_episodes == 120
    assert found[0].n_steps == sum(map(len, episodes))
    assert found[0].data_return == pytest.approx(np.mean([each.total_reward for each in episodes]))
    ends = [GAMMA ** (len(each) - 1) * each.total_reward for each in episodes]
    assert found[0].data_value == pytest.approx(np.mean(ends))


def test_what_cannot_be_estimated_is_refused() -> None:
    some: Any = Walks(20)
    with pytest.raises(ConfigError, match=r"gamma=1: \d+ of 20 episodes did not terminate"):
        fitted_q_evaluation(policy(1), some, gamma=1.0)
    with pytest.raises(ConfigError, match="the data set is empty"):
        fitted_q_evaluation(policy(1), Walks(0))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="gamma=1.5"):
        fitted_q_evaluation(policy(1), some, gamma=1.5)
    one, *_ = some.episodes()
    wide: Any = Walks(1)
    wide.episodes = lambda: iter([msgspec.structs.replace(one, observations=np.zeros((len(one) + 1, 2)))])
    with pytest.raises(ConfigError, match=r"episode 0 does not fit the policy: observation is float64"):
        fitted_q_evaluation(policy(1), wide)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
async def test_the_command_estimates_the_policy_of_a_run_or_an_exported_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent = DQN(BOX, ACTED, DQNConfig(hidden_sizes=(8,), learning_starts=64))
    async with TrainingSession(agent, run, max_steps=80) as session:
        await run_actors(session, lambda: ChainEnv(CELLS), 1, seed=0)
    export_policy(run.directory, tmp_path / "policy", ("numpy",))
    boxes = [msgspec.structs.replace(each, observations=np.float32(each.observations)[:, None])
             for each in Walks(30).episodes()]  # fmt: skip
    info = DatasetInfo(source="walks", format="npz", observation_space=BOX, action_space=ACTED)
    data = tmp_path / "walks.npz"
    write_dataset(boxes, info, data, "npz")
    found: list[Any] = []
    for named in (run.directory, tmp_path / "policy"):
        words = [str(named), "--offline", str(data), "--updates", "20", "--gamma", "0.8"]
        assert await Evaluate.from_words("eval", [*words, "--json"])() == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert (found[0]["n_episodes"], found[0]["n_updates"], found[0]["gamma"]) == (30, 20, 0.8)
    assert found[0]["low"] <= found[0]["value"] <= found[0]["high"]
    assert await Evaluate.from_words("eval", words)() == 0
    assert "30 episodes" in capsys.readouterr().out
    for more in (["--render"], ["--list"]):
        with pytest.raises(ConfigError, match=f"{more[0]} --offline: nothing is played"):
            await Evaluate.from_words("eval", [*words, *more])()
    with pytest.raises(ConfigError, match="--gamma 0.8 is about a data set"):
        await Evaluate.from_words("eval", [str(named), "--gamma", "0.8"])()
