"""Do agents that share one policy learn to spread out? By ``make learning``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpe2 import simple_spread_v3

from stoker.envs import episode_seed

SETTINGS = [
    "--agent",
    "ppo",
    "--gamma",
    "0.9",
    "--learning-rate",
    "0.001",
    "--num-envs",
    "8",
    "--no-progress",
]
N_EPISODES = 100
SEED = 1_000_000
"""Of the evaluations, which the training has not seen."""


def stoker(*args: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "stoker", *args, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def random_score() -> float:
    """The mean total reward of an agent that acts at random, in the episodes of the evaluations."""
    env = simple_spread_v3.parallel_env(max_cycles=25)
    generator = np.random.default_rng(0)
    total = 0.0
    for index in range(N_EPISODES):
        env.reset(seed=episode_seed(SEED, index, 0, stream="evaluation"))
        while env.agents:
            _, rewards, *_ = env.step({agent: int(generator.integers(5)) for agent in env.agents})
            total += statistics.fmean(rewards.values())
    return total / N_EPISODES


def learned_score(runs_dir: Path, n_steps: int, seed: int) -> float:
    flags = [
        *SETTINGS,
        "-n",
        str(n_steps),
        "--seed",
        str(seed),
        "--eval-freq",
        "0",
        "--runs-dir",
        str(runs_dir),
    ]
    env = ["pettingzoo:mpe2.simple_spread_v3", "--env-kwargs", "max_cycles=25"]
    run = stoker("train", *env, *flags)["run"]
    flags = ["--checkpoint", "latest", "--episodes", str(N_EPISODES), "--seed", str(SEED)]
    return stoker("eval", run, *flags)["mean_reward"]


@pytest.mark.learning
def test_a_shared_policy_gets_better_within_a_minute(tmp_path: Path) -> None:
    assert learned_score(tmp_path, 30_000, 3) >= random_score() + 2.0


@pytest.mark.learning
def test_the_median_of_three_seeds_is_above_random_by_the_margin(tmp_path: Path) -> None:
    scores = [learned_score(tmp_path, 60_000, seed) for seed in range(3)]
    print(f"simple_spread: {scores}, at random {random_score():.1f}")
    assert statistics.median(scores) >= random_score() + 4.0
