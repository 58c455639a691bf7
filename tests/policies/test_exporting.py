"""``export_policy``: files that act as the agent does, or none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import onnx
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from stoker import DQN, TrainingRun, TrainingSession, export_policy, load_policy
from stoker.errors import ConfigError, ExportFailed, RunBroken
from stoker.policies.exported import FILES, policy_from_bytes
from stoker.policies.exporting import export_trained, exported_files
from stoker.policies.of_runs import policy_in, trained_policy
from stoker.session import PolicySnapshot


def test_every_file_acts_as_the_agent_does(cartpole: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    description = export_policy(cartpole, out, ("onnx", "numpy"), stochastic=True)
    names = {"policy.json", "policy.onnx", "policy.npz", "numpy_policy.py", "vectors.npz"}
    assert {path.name for path in out.iterdir()} == names
    assert set(description.files) == names - {"policy.json"}
    assert description.vectors == "journal"
    assert (description.mean_reward, description.checkpoint) != (None, "latest.pt")
    vectors = np.load(out / "vectors.npz")
    observations, actions = vectors["observation:observation"], vectors["action"]
    assert observations.shape == (256, 4)
    assert len(np.unique(observations, axis=0)) > 200  # real ones
    own = load_policy(cartpole)
    assert own.act(observations).tolist() == actions.tolist()
    for name in ("policy.onnx", "policy.npz"):
        policy = load_policy(out / name)
        assert policy.act(observations).tolist() == actions.tolist()
        assert type(policy.act(observations[0])) is int
        for n in (1, 1024):
            assert policy.act(np.resize(observations, (n, 4))).tolist() == np.resize(actions, n).tolist()
        values = policy.outputs(observations)["values"]
        assert values.argmax(axis=1).tolist() == actions.tolist()
    assert load_policy(out).form == "numpy"
    for form in ("onnx", "numpy"):
        assert described_alone(out, form) == {**msgspec.to_builtins(description), "files": {}}


def described_alone(directory: Path, form: str) -> Any:
    """What a file says of itself, without the others and under another name."""
    alone = directory.with_name("alone").with_suffix(Path(FILES[form]).suffix)
    shutil.copy(directory / FILES[form], alone)
    return load_policy(alone).description


def test_the_model_describes_itself(pendulum: Path, tmp_path: Path) -> None:
    export_policy(pendulum, tmp_path / "policy", stochastic=True)
    model = onnx.load(tmp_path / "policy" / "policy.onnx")
    about = {prop.key: prop.value for prop in model.metadata_props}
    assert (about["env"], about["agent"]) == ("Pendulum-v1", "PPO")
    assert json.loads(about["action"])["high"] == [2.0]
    assert "normalized" in about["preprocessing"]
    assert [each.name for each in model.graph.input] == ["observation"]
    assert [each.name for each in model.graph.output] == ["action", "mean", "std"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "stoker", "gymnasium", "msgspec"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
vectors = np.load("vectors.npz")
observations, actions = vectors["observation:observation"], vectors["action"]

from numpy_policy import NumpyPolicy
policy = NumpyPolicy("policy.npz")
assert np.allclose(policy.act(observations), actions, atol=1e-5)
assert np.allclose(policy.act(observations[0]), actions[0], atol=1e-5)
try:
    policy.act(np.zeros(7))
except ValueError as error:
    assert "give float32 [3]" in str(error)

import onnxruntime
session = onnxruntime.InferenceSession("policy.onnx", providers=["CPUExecutionProvider"])
[found] = session.run(["action"], {"observation": observations})
assert np.allclose(found, actions, atol=1e-5)
print("alone")
"""


def test_the_files_run_without_stoker_and_torch(pendulum: Path, tmp_path: Path) -> None:
    export_policy(pendulum, tmp_path / "policy", ("onnx", "numpy"))
    run: Any = {"cwd": tmp_path / "policy", "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", ALONE], **run, check=False)
    assert (done.stdout, done.stderr) == ("alone\n", "")


def test_a_file_for_torch(pendulum: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    export_policy(pendulum, out, ("pt2",), stochastic=True)
    vectors, policy = np.load(out / "vectors.npz"), load_policy(out)
    observations = vectors["observation:observation"]
    assert policy.form == "pt2"
    assert {*policy.outputs(observations)} == {"action", "mean", "std"}
    assert described_alone(out, "pt2") == {**policy.description, "files": {}}
    for n in (1, 256):
        np.testing.assert_allclose(policy.act(observations[:n]), vectors["action"][:n], atol=1e-5)


def test_the_policy_of_a_session_that_runs(tmp_path: Path) -> None:
    """Its snapshot holds all that is needed, with a run or without."""

    async def main(run: TrainingRun | None) -> tuple[PolicySnapshot, Any]:
        agent = DQN(Box(-1.0, 1.0, (4,), np.float32), Discrete(3), seed=0)
        async with TrainingSession(agent, run) as session:
            snapshot = await session.snapshot()
            return snapshot, policy_in(snapshot.state, session.run)

    for run in (None, anyio.run(partial(TrainingRun.create, "live", root=tmp_path))):
        snapshot, trained = anyio.run(main, run)
        description, contents = exported_files(trained, ("numpy",))
        policy = policy_from_bytes(contents["policy.npz"], "numpy")
        observations = np.random.default_rng(0).normal(0, 1, (50, 4)).astype(np.float32)
        assert policy.act(observations).tolist() == list(snapshot.act(observations))
        assert description.vectors == "sampled"
        assert (description.run == "") is (run is None)


class Wrong(nn.Module):
    """Takes the action that its agent does not."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return 1 - self.module(observations)


class WrongAgent(DQN):
    def policy_module(self) -> Any:
        return Wrong(super().policy_module())


class NoModule(DQN):
    policy_module: Any = None


def with_agent(run: Path, kind: type[DQN]) -> Any:
    trained = trained_policy(run)
    agent = kind(Box(-1.0, 1.0, (4,), np.float32), Discrete(2), trained.agent.config)  # type: ignore[attr-defined]
    agent.load_state_dict(trained.agent.state_dict())
    return trained._replace(agent=agent)


def test_a_file_that_acts_otherwise_is_not_published(cartpole: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportFailed, match=r"gives the action \d for observation \d+, the policy \d; nothing was"
    ):
        export_trained(with_agent(cartpole, WrongAgent), tmp_path / "policy", ("numpy",))
    assert list(tmp_path.iterdir()) == []


def test_an_agent_without_a_module_is_told_what_to_add(cartpole: Path, tmp_path: Path) -> None:
    trained = with_agent(cartpole, NoModule)
    with pytest.raises(ConfigError, match=r"NoModule cannot be exported: give it a method policy_module\(\)"):
        export_trained(trained, tmp_path / "policy", ("numpy",))
    assert trained.compute(None)(np.zeros((3, 4), np.float32))["action"].shape == (3,)


def test_an_exported_policy_is_replaced_and_nothing_else(cartpole: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    export_policy(cartpole, out, ("numpy",), which=100)
    assert export_policy(cartpole, out, ("onnx",), which=200).total_steps == 200
    assert not (out / "policy.npz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds notes.txt, which is no part of an exported policy"):
        export_policy(cartpole, out, ("onnx",))
    with pytest.raises(ConfigError, match=r"notes.txt is a file: name a directory"):
        export_policy(cartpole, out / "notes.txt", ("onnx",))


def test_a_damaged_file_is_named(cartpole: Path, tmp_path: Path) -> None:
    out = tmp_path / "policy"
    export_policy(cartpole, out, ("onnx", "numpy"))
    for name in ("policy.onnx", "policy.npz"):
        (out / name).write_bytes(b"damaged")
        with pytest.raises(RunBroken, match=rf"{name}: is no policy"):
            load_policy(out / name)
