"""Do the presets learn their environments? Each by its command, over five seeds; by ``make learning``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOALS = {
    ("dqn", "CartPole-v1"): 475.0,
    ("ppo", "CartPole-v1"): 475.0,
    ("dqn", "Acrobot-v1"): -100.0,
    ("ppo", "Acrobot-v1"): -100.0,
    ("ppo", "MountainCarContinuous-v0"): 90.0,
    ("ppo", "Pendulum-v1"): -250.0,
    ("iqn", "CartPole-v1"): 475.0,
    ("dqn", "LunarLander-v3"): 200.0,
    ("ppo", "LunarLander-v3"): 200.0,
    ("ppo", "BipedalWalker-v3"): 250.0,
}


def stoker(*args: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "stoker", *args, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def judged(run: str, checkpoint: str) -> float:
    """The mean reward over 100 episodes that the training has not seen."""
    flags = ["--checkpoint", checkpoint, "--episodes", "100", "--seed", "1000000"]
    return stoker("eval", run, *flags)["mean_reward"]


@pytest.mark.learning
def test_ppo_gets_better_within_seconds(tmp_path: Path) -> None:
    """A random policy balances the pole for about 22 steps."""
    flags = ["-n", "6000", "--seed", "3", "--eval-freq", "2000", "--no-progress", "--runs-dir", str(tmp_path)]
    result = stoker("train", "CartPole-v1", "--agent", "ppo", *flags)
    assert result["total_steps"] == 6000
    assert result["best_eval_reward"] >= 60


@pytest.mark.learning
@pytest.mark.parametrize(("agent", "env"), GOALS, ids=[f"{agent}-{env}" for agent, env in GOALS])
def test_the_median_of_five_seeds_reaches_the_goal(tmp_path: Path, agent: str, env: str) -> None:
    """The policy that the training ends with, and the best one, over 100 episodes that it has not seen."""
    scores: dict[str, list[float]] = {"latest": [], "best": []}
    for seed in range(5):
        flags = ["--seed", str(seed), "--runs-dir", str(tmp_path), "--no-progress"]
        run = stoker("train", env, "--agent", agent, *flags)["run"]
        for name, found in scores.items():
            found.append(judged(run, name))
        print(
            f"{agent} on {env}, seed {seed}: latest {scores['latest'][-1]:.1f}, best {scores['best'][-1]:.1f}"
        )
    assert statistics.median(scores["latest"]) >= GOALS[agent, env], scores
    assert statistics.median(scores["best"]) >= GOALS[agent, env], scores


@pytest.mark.learning
@pytest.mark.parametrize(("n_steps", "n_seeds"), [(20_000, 8), (30_000, 9), (50_000, 9)])
def test_most_of_ten_seeds_end_with_a_policy_that_balances(
    tmp_path: Path, n_steps: int, n_seeds: int
) -> None:
    final: list[float] = []
    for seed in range(10):
        flags = ["-n", str(n_steps), "--seed", str(seed), "--runs-dir", str(tmp_path), "--no-progress"]
        final.append(judged(stoker("train", "CartPole-v1", "--agent", "dqn", *flags)["run"], "latest"))
        print(f"dqn on CartPole-v1 for {n_steps} steps, seed {seed}: {final[-1]:.1f}", flush=True)
    assert sum(reward >= 475 for reward in final) >= n_seeds, final
