"""``stoker train`` from the words to the run directory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import launching

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4", "--eval-freq", "0")


def config_of(root: Path) -> dict[str, Any]:
    [path] = root.glob("*/*/*/config.json")
    return json.loads(path.read_bytes())


def test_json_leaves_one_line_on_standard_output(trained: Any) -> None:
    assert len(trained.stdout.splitlines()) == 1
    assert list(trained.line) == [
        "run", "total_steps", "total_episodes", "steps_per_sec", "best_eval_reward"
    ]  # fmt: skip
    assert trained.line["total_steps"] == 1200
    rows = (trained.run / "train_episodes.jsonl").read_bytes().splitlines()
    assert trained.line["total_episodes"] == len(rows)
    assert trained.line["steps_per_sec"] > 0


def test_the_best_evaluation_is_that_of_the_rows(trained: Any) -> None:
    by_step: dict[int, list[float]] = {}
    for line in (trained.run / "eval_episodes.jsonl").read_bytes().splitlines():
        row = json.loads(line)
        by_step.setdefault(row["total_steps_at_eval"], []).append(row["total_reward"])
    means = {step: sum(rewards) / len(rewards) for step, rewards in by_step.items()}
    assert 1200 in means
    assert trained.line["best_eval_reward"] == pytest.approx(max(means.values()))


def test_a_run_directory_is_complete(trained: Any) -> None:
    names = {path.name for path in trained.run.rglob("*") if path.is_file()}
    assert names == {
        "metadata.json", "config.json", "train_episodes.jsonl", "eval_episodes.jsonl", "metrics.jsonl",
        "events.jsonl",
        "step_800.pt", "step_1200.pt", "latest.pt", "best.pt",
        "0001-000000000000.journal", ".lease.1", ".lock", ".published",
    }  # fmt: skip
    assert trained.run.parent == trained.root / "CartPole-v1" / "v1"


def test_without_a_terminal_progress_is_plain_lines(trained: Any) -> None:
    assert "\x1b" not in trained.stderr
    lines = [line for line in trained.stderr.splitlines() if "/1,200 steps" in line]
    assert lines, trained.stderr
    for word in ("1,200/1,200 steps", "/s", "reward ", "length ", "eval ", "(best ", "exploration ", "loss "):
        assert word in lines[-1]


def test_the_end_names_the_run_and_the_command_for_the_curve(trained: Any) -> None:
    assert "Done: 1,200 steps" in trained.stderr
    assert f"stoker plot {trained.run} -o curve.png" in trained.stderr
    assert "stoker resume" not in trained.stderr


def test_flags_win_over_toml_over_preset_over_defaults(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("""
        env = "CartPole-v1"
        total-timesteps = 5000
        seed = 7
        run_version = "v3"
        learning_rate = 0.5
        keep_checkpoints = "none"
        [agent_settings]
        hidden-sizes = [8]
        learning-starts = 50
        batch-size = 16
    """)
    done = stoker(
        "train", "--config", "settings.toml", "-n", "150", "--hidden_sizes", "4", "5", "--runs-dir", "here",
        "--num-envs", "3", "--eval-freq", "0", "--tau", "none", "--no-progress",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = config_of(tmp_path / "here")
    settings = config["agent_settings"]
    assert (config["total_timesteps"], config["num_envs"], settings["hidden_sizes"]) == (150, 3, [4, 5])
    assert (config["seed"], settings["batch_size"], settings["learning_rate"]) == (7, 16, 0.5)
    assert (config["keep_checkpoints"], settings["learning_starts"]) == (None, 50)
    assert settings["max_grad_norm"] is None  # CartPole's preset; the default is 10
    assert (settings["n_step"], settings["gamma"]) == (4, 0.99)  # the preset's
    assert [path.name for path in (tmp_path / "here/CartPole-v1").iterdir()] == ["v3"]


def test_without_progress_and_evaluation_there_is_a_summary_and_no_more(stoker: Any, tmp_path: Path) -> None:
    done = stoker("train", "CartPole-v1", "-n", "150", *SMALL, "--name", "mine", "--no-progress")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "steps" in line] == []
    assert done.stdout.startswith("Done: 150 steps")
    assert "evaluation" not in done.stdout
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_a_reward_to_stop_at_ends_it(stoker: Any) -> None:
    done = stoker(
        "train", "CartPole-v1", "-n", "100000", *SMALL[:-2], "--eval-freq", "100", "--eval-episodes", "1",
        "--stop-at-reward", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0
    line = json.loads(done.stdout)
    assert line["total_steps"] < 100_000
    assert line["best_eval_reward"] >= 1
    assert "Reached 1: " in done.stderr


def test_an_environment_of_ones_own_by_module(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "own_envs.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('own/Pole-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
    )
    done = stoker(
        "train", "own_envs:own/Pole-v0", "-n", "150", *SMALL, "--json", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / json.loads(done.stdout)["run"]
    assert run.parent.parent.name == "own_envs-own-Pole-v0"
    rows = [json.loads(line) for line in (run / "train_episodes.jsonl").read_bytes().splitlines()]
    assert max(row["length"] for row in rows) <= 9


@pytest.mark.parametrize("place", ["a-file", "/proc/nowhere"])
def test_a_runs_directory_that_cannot_be_written_is_one_line(stoker: Any, tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").write_text("in the way")
    done = stoker("train", "CartPole-v1", "-n", "150", *SMALL, "--runs-dir", place)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"stoker: error: cannot write {tmp_path / place}/CartPole-v1/v1/")
    assert done.stdout == ""


WRONG_ENV = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Wrong(CartPoleEnv):
    steps = 0

    def __init__(self, right_steps=0):
        super().__init__()
        self.right_steps = right_steps

    def step(self, action):
        Wrong.steps += 1
        result = super().step(action)
        return result if Wrong.steps <= self.right_steps else result[:4]

gym.register("Wrong-v0", Wrong)
gym.register("WrongLater-v0", Wrong, kwargs={"right_steps": 200})
"""
MAIN_WITHOUT_WANDB = """
import sys
from stoker.cli.main import main
sys.modules["wandb"] = None  # as if it was not installed
sys.exit(main(sys.argv[1:]))
"""


def test_a_training_that_cannot_begin_leaves_nothing(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong_envs.py").write_text(WRONG_ENV)
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = stoker("train", "wrong_envs:Wrong-v0", *SMALL, env=path)
    assert done.returncode == 2
    assert "returned 4 values" in done.stderr
    assert not (tmp_path / "runs").exists()
    done = stoker("train", "wrong_envs:WrongLater-v0", *SMALL, env=path)
    assert done.returncode == 1, "it had begun: this is a failure"
    assert "continue from what was saved with `stoker resume runs/wrong_envs-WrongLater-v0/" in done.stderr
    assert list((tmp_path / "runs").rglob("metadata.json"))


def test_a_tracker_without_its_package_leaves_nothing(tmp_path: Path) -> None:
    done = launching.run(
        [sys.executable, "-c", MAIN_WITHOUT_WANDB, "train", "CartPole-v1", "--track", "wandb"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "stoker: error: wandb is not installed: run `pip install 'stoker[wandb]'`\n"
    assert not list(tmp_path.iterdir())


def test_the_best_policy_is_exported_when_the_training_is_done(stoker: Any, tmp_path: Path) -> None:
    words = ("train", "CartPole-v1", "-n", "300", *SMALL, "--export-best", "numpy", "onnx", "--json")
    done = stoker(*words)
    assert done.returncode == 0, done.stderr
    directory = Path(json.loads(done.stdout)["run"]) / "policy"
    assert {"policy.npz", "policy.onnx", "policy.json"} <= {path.name for path in directory.iterdir()}
    assert f"/{directory.parent.name}/policy (" in done.stderr
    assert stoker("verify", str(directory.parent)).returncode == 0
    again = stoker("resume", str(directory.parent), "-n", "400", "--export-best", "numpy", "--no-progress")
    assert again.returncode == 0, again.stderr
    assert json.loads((directory / "policy.json").read_bytes())["total_steps"] == 400


def test_an_agent_that_cannot_be_exported_is_refused_before_it_is_trained(
    stoker: Any, tmp_path: Path
) -> None:
    parts = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    words = (
        "train",
        "CartPole-v1",
        "-n",
        "300",
        "--agent",
        "own_parts:RandomAgent",
        "--export-best",
        "numpy",
    )
    done = stoker(*words, env={"PYTHONPATH": parts})
    assert done.returncode == 2
    assert "--export-best numpy: a RandomAgent has no policy_module()" in done.stderr
    assert not (tmp_path / "runs").exists()


COUNTED = """
import gc, sys
from stoker.cli.main import main

gc.unfreeze()
code = main(sys.argv[1:])
print(code, gc.get_freeze_count() > 10_000)
"""


def test_what_is_there_when_it_begins_stays_out_of_full_garbage_collections(tmp_path: Path) -> None:
    words = ("train", "CartPole-v1", "-n", "100", *SMALL, "--no-progress")
    done = launching.run(
        [sys.executable, "-c", COUNTED, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.splitlines()[-1] == "0 True", done.stderr
