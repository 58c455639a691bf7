"""``kill -9`` in the middle of ``train_offline``: it ends with the weights of one that was left alone."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np

import launching
from stoker import (
    DQN,
    DQNConfig,
    EpisodeStatus,
    Experience,
    RunNotFound,
    Trainer,
    TrainerConfig,
    TrainingRun,
)  # fmt: skip
from stoker.nested import differences
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv

N_STEPS, N_OPTS = 1500, 900
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)


class Reporting(DQN):
    """A DQN that prints a line now and then, at which it may be killed."""

    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        print("observed", flush=True)

    def learn(self) -> dict[str, float] | None:
        if self.opt_steps % 50 == 49:
            print("learned", flush=True)
        return super().learn()


def agent() -> DQN:
    config = DQNConfig(
        hidden_sizes=(8,), batch_size=8, buffer_size=1200, learning_starts=50, n_step=3, prioritized=True,
        normalize_rewards=True, normalize_observations=True,
    )  # fmt: skip
    return Reporting(BOX, gymnasium.spaces.Discrete(2), config, seed=7)


def dataset() -> list[Experience]:
    """Of three actors in turn, the episodes of one of them long, and the last ones broken off."""
    rng = np.random.default_rng(0)
    ends = {0: 0.1, 1: 0.1, 2: 0.001}
    steps: list[Experience] = []
    for k in range(N_STEPS):
        before, after = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
        status = EpisodeStatus.TERMINATED if rng.random() < ends[k % 3] else EpisodeStatus.CONTINUING
        steps.append(Experience(before, int(rng.integers(2)), float(rng.normal()), after, status, k % 3))
    return steps


async def train(run: TrainingRun) -> None:
    config = TrainerConfig(max_opts=N_OPTS, save_interval=200, record_interval=70)
    settings: dict[str, Any] = {"flush_interval_s": 0.0, "keep_journal": "all", "keep_checkpoints": None}
    await Trainer(agent(), ChainEnv, config, run=run, **settings).train_offline(dataset())


async def begin_or_go_on(root: str) -> None:
    try:
        run = await TrainingRun.resume(f"{root}/killed")
    except RunNotFound:
        run = await TrainingRun.create("killed", root=root)
    await train(run)


def test_a_killed_offline_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    chance = random.Random(5)
    n_kills = 0
    while True:
        command = [sys.executable, __file__, str(tmp_path)]
        process = launching.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        n_lines = chance.randrange(1, 22)
        if len(list(itertools.islice(process.stdout, n_lines))) < n_lines or n_kills == 8:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_kills += 1
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert n_kills >= 3
    anyio.run(compare, tmp_path)


async def compare(root: Path) -> None:
    whole = await TrainingRun.create("whole", root=root)
    await train(whole)
    killed = await TrainingRun.open(root / "killed")
    states = [replayed_state(run) for run in (whole, killed)]
    assert list(differences(*states, "state")) == []
    rows = [(await run.read_metrics())["opt_steps"].tolist() for run in (whole, killed)]
    assert rows[0] == rows[1] == list(range(70, N_OPTS + 1, 70))


def replayed_state(run: TrainingRun) -> dict[str, Any]:
    """What a replay of the run ends with, which is what the run ended with."""
    again = agent()
    replayed = replay_run(run, again)
    assert [one for one in replayed.comparisons if one.differences] == []
    assert [one.step for one in replayed.comparisons] == run.checkpoint_steps()
    assert (replayed.from_steps, replayed.total_steps, replayed.opt_steps) == (0, N_STEPS, N_OPTS)
    return {"agent": again.state_dict(), "replay": again.replay.state_dict()}


if __name__ == "__main__":
    anyio.run(begin_or_go_on, sys.argv[1])
