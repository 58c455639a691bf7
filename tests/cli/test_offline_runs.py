"""``stoker train --offline``: what is said of a run on a data set, where steps are optimization steps."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from stoker import EpisodeStatus
from stoker.cli.main import main
from stoker.data import DatasetInfo, Episode, write_dataset

SMALL = ["--hidden-sizes", "8", "--batch-size", "8", "--no-progress"]


def test_a_run_on_a_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env, rng = gymnasium.make("CartPole-v1"), np.random.default_rng(0)
    episode = Episode(
        observations=rng.uniform(-0.1, 0.1, (51, 4)).astype(np.float32),
        actions=rng.integers(2, size=50),
        rewards=np.ones(50),
        status=EpisodeStatus.TRUNCATED,
    )
    info = DatasetInfo(
        source="",
        format="npz",
        observation_space=env.observation_space,
        action_space=env.action_space,
        ref_min_score=0.0,
        ref_max_score=200.0,
    )
    write_dataset([episode], info, "data.npz", "npz")
    words = ["--offline", "data.npz", "--agent", "bc", "-n", "100", "--eval-env", "CartPole-v1", "--json"]
    words += [*SMALL, "--eval-episodes", "1", "--record-freq", "50"]
    assert main(["train", *words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["best_normalized_score"] == pytest.approx(said["best_eval_reward"] / 2)
    assert main(["explain", "runs/CartPole-v1"]) == 0
    text = capsys.readouterr().out
    assert "optimization steps/s" in text
    assert not [word for word in ("--opt-interval", "--num-envs", ", 0 steps/s") if word in text]


def test_a_training_on_the_name_of_a_run_is_not_on_the_run_that_it_makes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ["--name", "before", "-n", "200", "--eval-freq", "0"]
    assert main(["train", "CartPole-v1", *before, "--hidden-sizes", "8", "--no-progress"]) == 0
    [played] = Path("runs/before/v1").iterdir()
    words = ["--offline", "runs/before", "--agent", "cql", "-n", "20", "--learning-starts", "8", *SMALL]
    assert main(["train", *words]) == 0
    [learned] = set(Path("runs/before/v1").iterdir()) - {played}
    assert json.loads((learned / "config.json").read_bytes())["offline"] == str(tmp_path / played)
