"""``kill -9`` in a training on a data set, also while it reads: it ends with the weights of one left alone.

The short form runs with all the tests; the long one is marked ``faults``. Each process dies at a random call
of the agent.
"""

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
import pytest

import launching
from stoker import DQN, DQNConfig, EpisodeStatus, RunNotFound, TrainConfig, TrainingRun, train
from stoker.data import DatasetInfo, Episode, write_dataset
from stoker.nested import differences
from stoker.session.replaying import replay_run
from stoker.trainer import parts
from stoker.trainer.preparing import prepared

N_STEPS = 1_500
OPTS_PER_KILL = 150
BOX, ACTIONS = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(2)
SETTINGS: dict[str, Any] = {
    "hidden_sizes": (8,), "batch_size": 8, "learning_starts": 50, "n_step": 3, "prioritized": True,
    "buffer_size": N_STEPS, "normalize_rewards": True, "normalize_observations": True,
}  # fmt: skip


class Reporting(DQN):
    """A DQN that prints a line now and then, at which it may be killed."""

    def __init__(self, observations: Any, actions: Any, *, seed: int, device: Any, **settings: Any) -> None:
        super().__init__(observations, actions, DQNConfig(**settings), seed=seed, device=device)

    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        print("observed", flush=True)

    def learn(self) -> dict[str, float] | None:
        if self.opt_steps % 50 == 49:
            print("learned", flush=True)
        return super().learn()


def write_data(path: Path) -> None:
    """Long and short episodes, some of which were broken off."""
    rng = np.random.default_rng(0)

    def episodes() -> Any:
        left = N_STEPS
        while left:
            n = min(left, int(rng.choice([1, 7, 40, 300])))
            left -= n
            yield Episode(
                observations=rng.uniform(-1, 1, (n + 1, 3)).astype(np.float32),
                actions=rng.integers(2, size=n),
                rewards=rng.normal(size=n),
                status=EpisodeStatus(rng.choice(list(EpisodeStatus))),
            )

    info = DatasetInfo(source="made", format="npz", observation_space=BOX, action_space=ACTIONS)
    write_dataset(episodes(), info, path, "npz")


def config(root: Path, n_opts: int) -> TrainConfig:
    here = TrainConfig(
        env="", offline=str(root / "data.npz"), agent=f"{__name__}:Reporting", agent_settings=SETTINGS,
        total_timesteps=n_opts, checkpoint_freq=200, record_freq=70, keep_journal="all",
        keep_checkpoints=None,
    )  # fmt: skip
    return prepared(here)[0]


async def begin_or_go_on(root: Path, name: str, n_opts: int) -> None:
    try:
        run = await TrainingRun.resume(root / name)
    except RunNotFound:
        run = await TrainingRun.create(name, root=root)
    agent = Reporting(BOX, ACTIONS, seed=7, device="cpu", **SETTINGS)
    await train(config(root, n_opts), run, agent=agent, view="none")


@pytest.mark.parametrize("n_kills", [4, pytest.param(20, marks=pytest.mark.faults)])
def test_a_killed_training_on_a_data_set_goes_on_to_the_same_weights(tmp_path: Path, n_kills: int) -> None:
    n_opts = OPTS_PER_KILL * n_kills
    write_data(tmp_path / "data.npz")
    chance = random.Random(n_kills)
    words = [*["observed"] * (n_kills // 2), *["learned"] * (n_kills // 2)]
    for k, word in enumerate([*words, None]):
        command = [sys.executable, __file__, str(tmp_path), str(n_opts)]
        process = launching.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if word is not None:
            assert process.stdout is not None
            said = (line for line in process.stdout if line.strip() == word)
            has_come = next(itertools.islice(said, chance.randrange(4), None), None)
            assert has_come, f"process {k} ended: {process.communicate()[1]}"
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    anyio.run(compare, tmp_path, n_opts)


async def compare(root: Path, n_opts: int) -> None:
    await begin_or_go_on(root, "whole", n_opts)
    runs = [await TrainingRun.open(root / name) for name in ("whole", "killed")]
    states = [replayed_state(run, n_opts) for run in runs]
    assert list(differences(*states, "state")) == []
    rows = [(await run.read_metrics())["opt_steps"].tolist() for run in runs]
    assert rows[0] == rows[1] == list(range(70, n_opts + 1, 70))


def replayed_state(run: TrainingRun, n_opts: int) -> dict[str, Any]:
    """What a replay of the run ends with, which is what the run ended with."""
    again = Reporting(BOX, ACTIONS, seed=7, device="cpu", **SETTINGS)
    replayed = replay_run(run, again)
    assert [one for one in replayed.comparisons if one.differences] == []
    assert [one.step for one in replayed.comparisons] == run.checkpoint_steps()
    assert (replayed.from_steps, replayed.total_steps, replayed.opt_steps) == (0, n_opts, n_opts)
    assert again.total_steps == N_STEPS
    return {"agent": again.state_dict(), "replay": again.replay.state_dict()}


if __name__ == "__main__":
    parts._N_ROWS = 128  # many parts, at each of which a process may die; their size changes no weights
    anyio.run(begin_or_go_on, Path(sys.argv[1]), "killed", int(sys.argv[2]))
