"""``--warm-data``: named in the run's config, needed by whoever goes on with the run, and not to score it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from stoker import EpisodeStatus
from stoker.data import DatasetInfo, Episode, write_dataset

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
Command = Callable[..., subprocess.CompletedProcess[str]]


def write(path: Path, n_steps: int = 90, env_id: str = "CartPole-v1") -> Path:
    env, rng = gymnasium.make(env_id), np.random.default_rng(0)
    shape = env.observation_space.shape
    assert shape is not None
    episode = Episode(
        observations=rng.uniform(-0.1, 0.1, (n_steps + 1, *shape)).astype(np.float32),
        actions=rng.integers(2, size=n_steps),
        rewards=np.ones(n_steps),
        status=EpisodeStatus.TRUNCATED,
    )
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    write_dataset([episode], DatasetInfo(source="", format="npz", **spaces), path, "npz")
    return path


TRAIN: Sequence[Any] = (
    "train",
    "CartPole-v1",
    *SMALL,
    "--no-progress",
    "--lockstep",
    "--eval-freq",
    "0",
    "--warm-data",
)


def test_a_run_is_resumed_replayed_and_scored_and_its_data_may_move(tmp_path: Path, command: Command) -> None:
    data = write(tmp_path / "data.npz")
    trained = command(*TRAIN, data.name, "--mix", "0.25", "-n", "150")
    assert trained.returncode == 0, trained.stderr
    assert "prior data: 90 transitions, 0.25 of each batch" in trained.stderr
    config = json.loads(next(tmp_path.glob("runs/*/*/*/config.json")).read_text())
    assert (config["warm_data"], config["mix"]) == (str(data), 0.25)

    moved = data.rename(tmp_path / "moved.npz")
    for words in (("resume", "runs", "-n", "200"), ("replay", "runs")):
        missing = command(*words)
        assert missing.returncode == 2
        assert str(data) in missing.stderr
        assert "--warm-data" in missing.stderr
    other = write(tmp_path / "other.npz", 80)
    refused = command("resume", "runs", "-n", "200", "--warm-data", str(other))
    assert refused.returncode == 2
    assert "other prior data than the run's" in refused.stderr
    assert command("eval", "runs", "--episodes", "1").returncode == 0  # needs none

    resumed = command("resume", "runs", "-n", "200", "--warm-data", moved.name)
    assert resumed.returncode == 0, resumed.stderr
    config = json.loads(next(tmp_path.glob("runs/*/*/*/config.json")).read_text())
    assert config["warm_data"] == str(moved)
    replayed = command("replay", "runs", "--verify")
    assert replayed.returncode == 0, replayed.stdout
    assert "equal, bit by bit" in replayed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.npz",), "nowhere.npz"),
        (("acrobot.npz",), "acrobot.npz have observations of Box"),
        (("data.npz", "--mix", "1"), "mix"),
        (("data.npz", "--batch-size", "1"), "batch_size=1"),
        (("data.npz", "--agent", "ppo"), "ppo learns from what it plays alone"),
    ],
)
def test_what_cannot_be_used_leaves_no_run_behind(
    tmp_path: Path, command: Command, words: tuple[str, ...], message: str
) -> None:
    write(tmp_path / "data.npz")
    write(tmp_path / "acrobot.npz", env_id="Acrobot-v1")
    small = () if "ppo" in words else SMALL
    refused = command("train", "CartPole-v1", *small, "-n", "100", "--no-progress", "--warm-data", *words)
    assert refused.returncode == 2, refused.stderr
    assert message in refused.stderr
    assert "training dqn" not in refused.stderr
    assert not (tmp_path / "runs").exists()
