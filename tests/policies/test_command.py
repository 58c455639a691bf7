"""``stoker export`` on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker import load_policy
from stoker.cli.main import main
from stoker.writer import load_checkpoint, publish_checkpoint


def test_it_writes_a_policy_that_is_named(
    cartpole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    assert main(["export", str(cartpole), "-o", str(out), "--format", "numpy", "--which", "200"]) == 0
    said = capsys.readouterr().out
    assert "step_200.pt: step 200" in said
    assert "every file acts as the agent does" in said
    assert load_policy(out).description["total_steps"] == 200
    assert main(["export", str(cartpole), "-o", str(out), "--json"]) == 0
    assert {*json.loads(capsys.readouterr().out)["files"]} == {"policy.onnx", "vectors.npz"}


def test_a_whole_number_is_observed(trained: Callable[..., Path], tmp_path: Path) -> None:
    """FrozenLake's observations are one number each, which the policy turns into a vector."""
    run = trained(env="FrozenLake-v1", agent="dqn", total_timesteps=60, eval_freq=0)
    assert main(["export", str(run), "-o", str(tmp_path / "lake"), "--format", "onnx", "numpy"]) == 0
    for name in ("policy.onnx", "policy.npz"):
        policy = load_policy(tmp_path / "lake" / name)
        assert policy.act(0) in range(4)
        assert policy.act(np.arange(16)).shape == (16,)


def test_a_run_of_a_program_needs_no_config(cartpole: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/CartPole-v1/v1/20260101_000000"
    shutil.copytree(cartpole, run, ignore=shutil.ignore_patterns("config.json"))
    assert main(["export", str(run), "-o", str(tmp_path / "policy"), "--format", "numpy"]) == 0
    assert load_policy(tmp_path / "policy").act(np.zeros(4, np.float32)) in (0, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--out: name where to write the policy"),
        (["-o", "policy", "--format", "tflite"], "--format tflite: give"),
        (["-o", "policy", "--which", "first"], "'first': give best, latest or a step"),
    ],
)
def test_a_mistake_is_one_line(
    cartpole: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(cartpole), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("age", "code", "message"),
    [
        (lambda state: state["agent"].pop("opt_steps"), 2, "is incomplete: it lacks opt_steps"),
        (lambda state: state["agent"].update(optimizer={}), 1, "cannot be restored here (KeyError: 'mean')"),
        (lambda state: state.pop("session"), 1, "cannot be restored here (KeyError: 'session')"),
    ],
)
def test_a_checkpoint_of_another_version_is_named_in_one_line(
    cartpole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    age: Callable[[dict[str, Any]], object],
    code: int,
    message: str,
) -> None:
    run = shutil.copytree(cartpole, tmp_path / "runs/CartPole-v1/v1/20260101_000000")
    path = run / "checkpoints/step_100.pt"
    age(state := load_checkpoint(path))
    publish_checkpoint(state, path)
    for words in (
        ["eval", str(run), "--checkpoint", "100"],
        ["export", str(run), "--which", "100", "-o", str(tmp_path / "policy")],
    ):
        assert main(words) == code
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"stoker: error: {path}: ")
        assert message in line
