"""``stoker train --actors ray``, resumed with other workers and with none, and replayed to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_parts import cluster_of, started_cluster

import launching

LONG_S = 900


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started_cluster(2, 2) as address:
        yield address


def stoker(*words: str) -> str:
    """What the command prints on standard output."""
    done = launching.run(
        [sys.executable, "-m", "stoker", *words],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


AS_JSON = ("--json", "--no-progress")


def trained(address: str, root: Path, n: int, *flags: str) -> dict[str, Any]:
    """The result of a training with two workers."""
    ray = ("--actors", "ray", "--cluster", address, "--envs-per-worker", "2", "--workers", "2")
    return json.loads(
        stoker("train", "CartPole-v1", "-n", str(n), "--runs-dir", str(root), *ray, *flags, *AS_JSON)
    )


def resumed(run: str, n: int, *moved: str) -> None:
    """Go on to ``n`` steps with other actors."""
    assert json.loads(stoker("resume", run, "-n", str(n), *moved, *AS_JSON))["total_steps"] == n


def is_replayed(run: str) -> bool:
    """Whether each checkpoint equals what the journal gives."""
    text = stoker("replay", run, "--verify")
    return "equal, bit by bit" in text and "differs" not in text


@pytest.mark.timeout(LONG_S)
def test_a_training_goes_on_with_another_number_of_workers(address: str, tmp_path: Path) -> None:
    result = trained(address, tmp_path, 300, "--eval-freq", "0")
    assert result["total_steps"] == 300
    resumed(result["run"], 500, "--workers", "1")
    assert is_replayed(result["run"])


@pytest.mark.learning
@pytest.mark.timeout(3 * LONG_S)
def test_cartpole_is_solved_on_a_cluster_and_goes_on_without(address: str, tmp_path: Path) -> None:
    result = trained(address, tmp_path, 50_000, "--stop-at-reward", "475")
    assert result["best_eval_reward"] >= 475
    run, n_steps = result["run"], result["total_steps"]
    resumed(run, n_steps + 1_000, "--workers", "1")
    resumed(run, n_steps + 2_000, "--actors", "tasks", "--num-envs", "3")
    shown = json.loads(stoker("show", run, "--json", "--events", "1000"))
    nodes = [row["details"] for row in shown["events"] if row["kind"] == "workers_changed"]
    assert {row["playing"] for row in nodes} >= {1, 2}
    assert is_replayed(run)


@pytest.mark.faults
@pytest.mark.timeout(LONG_S)
def test_a_learner_that_ray_ends_says_how_to_resume(tmp_path: Path) -> None:
    words = ("train", "CartPole-v1", "-n", "1000000", "--eval-freq", "0", "--runs-dir", "runs")
    with (
        cluster_of(1) as (address, tell),
        subprocess.Popen(
            [sys.executable, "-m", "stoker", *words, "--actors", "ray", "--cluster", address],
            env=os.environ | {"RAY_AUTH_MODE": "disabled"},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as learner,
    ):
        assert learner.stderr is not None
        said = learner.stderr.readline()
        assert said.startswith("training dqn on CartPole-v1"), said
        while "/1,000,000 steps" not in said:  # a line every few seconds, once it learns
            said = learner.stderr.readline()
            assert said, "it has ended"
        tell("head")
        *_, last = learner.stderr.read().splitlines()
        assert learner.wait() != 0
    (run,) = tmp_path.glob("runs/*/*/*")
    assert last.startswith("stoker: error: the training was ended from outside, as Ray does when")
    assert last.endswith(f"`stoker resume {run.relative_to(tmp_path)}`")
