"""``load_policy``: the policy of a run, by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from stoker import DQN, ActMode, TrainingRun, TrainingSession, export_policy, load_policy
from stoker.agents import make_agent
from stoker.errors import CheckpointNotFound, ConfigError, InvalidExperience, RunBroken, RunNotFound
from stoker.trainer import agent_for, config_from


def agent_of(run: Path, checkpoint: str) -> Any:
    """The run's agent, restored as a program would do it by hand."""

    async def read() -> Any:
        return await (await TrainingRun.open(run)).read_config(dict[str, Any])

    agent = agent_for(config_from(anyio.run(read)))
    state = torch.load(run / "checkpoints" / checkpoint, weights_only=True)
    agent.load_state_dict(state["agent"])
    return agent


@pytest.mark.parametrize(
    ("which", "checkpoint"),
    [(None, "best.pt"), ("latest", "latest.pt"), (100, "step_100.pt"), ("200", "step_200.pt")],
)
def test_it_acts_as_the_agent_does(cartpole: Path, which: Any, checkpoint: str) -> None:
    policy = load_policy(cartpole, which)
    observations = np.random.default_rng(0).normal(0, 1, (200, 4)).astype(np.float32)
    actions, _ = agent_of(cartpole, checkpoint).policy().act(observations, ActMode.EXPLOIT)
    assert policy.act(observations).tolist() == actions.tolist()
    singles = [policy.act(observation) for observation in observations[:5]]
    assert singles == actions[:5].tolist()
    assert type(singles[0]) is int
    assert policy.description["env"] == "CartPole-v1"


def test_a_program_with_its_own_session_needs_no_config(tmp_path: Path) -> None:
    """The checkpoint of one of stoker's agents holds its spaces and settings."""

    async def main() -> TrainingRun:
        run = await TrainingRun.create("own", root=tmp_path)
        agent = DQN(
            gymnasium.spaces.Dict({"b": Box(-1.0, 1.0, (2,)), "a": Discrete(3)}), Discrete(2, start=5)
        )
        async with TrainingSession(agent, run):
            pass
        return run

    run = anyio.run(main)
    assert not (run.directory / "config.json").exists()
    policy = load_policy(run.directory)
    assert policy.act({"a": 1, "b": [0.5, 0.5]}) in (5, 6)
    assert policy.act({"a": [1, 2], "b": np.zeros((2, 2))}).shape == (2,)
    with pytest.raises(InvalidExperience, match=r"b is missing from the observation: give float32 \[2\]"):
        policy.act({"a": 1})
    with pytest.raises(InvalidExperience, match=r"the parts are of \[2, None\] observations"):
        policy.act({"a": [1, 2], "b": np.zeros(2)})


LIGHT = """
import sys
from stoker import load_policy
policy = load_policy(sys.argv[1])
assert policy.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
print(sorted({"torch", "gymnasium", "anyio", "stoker.session"} & {*sys.modules}))
"""


def test_an_exported_policy_needs_no_torch_and_no_gymnasium(cartpole: Path, tmp_path: Path) -> None:
    export_policy(cartpole, tmp_path / "policy", ("numpy",))
    words = [sys.executable, "-c", LIGHT, str(tmp_path / "policy")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


BARE = """
import sys

class NoGymnasium:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "gymnasium":
            raise ModuleNotFoundError("there is no gymnasium here")

sys.meta_path.insert(0, NoGymnasium())
from stoker import load_policy
print(load_policy(sys.argv[1]).act(eval(sys.argv[2])), "stoker.session" in sys.modules)
"""


MIXED = Dict(
    a=Discrete(3), b=MultiBinary(2), c=Tuple([MultiDiscrete([2, 3])]), d=Box(0, 255, (1, 16), np.uint8)
)


@pytest.mark.parametrize(
    ("agent", "seen", "acted", "observation"),
    [
        ("dqn", Box(-1.0, 1.0, (2,)), Discrete(3, start=2), [0.5, -0.5]),
        ("sac", Box(-1.0, 1.0, (2,)), Box(np.float32([-1, 0]), np.float32([1, 2])), [0.5, -0.5]),
        ("ppo", MIXED, MultiDiscrete([3, 4]), {"a": 1, "b": [0, 1], "c": ([1, 2],), "d": [[7] * 16]}),
    ],
)
def test_the_policy_of_a_run_needs_no_gymnasium(
    tmp_path: Path, agent: str, seen: Any, acted: Any, observation: Any
) -> None:
    async def main() -> TrainingRun:
        run = await TrainingRun.create("own", root=tmp_path)
        async with TrainingSession(make_agent(agent, seen, acted), run):
            pass
        return run

    run = anyio.run(main).directory
    words = [sys.executable, "-c", BARE, str(run), repr(observation)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{load_policy(run).act(observation)} False\n", "")


def test_it_plays_an_environment(pendulum: Path) -> None:
    policy, env = load_policy(pendulum.parents[1]), gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        action = policy.act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(3), r"observation is float64 \[3\]: give float32 \[4\], or N of them as \[N, 4\]"),
        (np.zeros((2, 2, 4)), r"observation is float64 \[2, 2, 4\]"),
        (["left"], r"observation is <U4 \[1\]"),
    ],
)
def test_a_wrong_observation_is_refused(cartpole: Path, observation: Any, message: str) -> None:
    with pytest.raises(InvalidExperience, match=message):
        load_policy(cartpole).act(observation)


def test_what_is_not_there_is_named(cartpole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="no run there"):
        load_policy(tmp_path)
    with pytest.raises(CheckpointNotFound, match="has no checkpoint 7: it has best, latest, 100, 200, 300"):
        load_policy(cartpole, 7)
    with pytest.raises(ConfigError, match="'first': give best, latest or a step"):
        load_policy(cartpole, "first")
    file = tmp_path / "policy.txt"
    file.write_text("")
    with pytest.raises(RunNotFound, match="is no exported policy: name its directory, or policy.npz"):
        load_policy(file)
    (tmp_path / "policy.json").write_text("{}")
    with pytest.raises(RunBroken, match=r"has none of policy.npz, policy.onnx, policy.pt2"):
        load_policy(tmp_path)
    (tmp_path / "policy.npz").write_bytes(b"")
    with pytest.raises(RunBroken, match=r"policy.json: cannot be read"):
        load_policy(tmp_path)
