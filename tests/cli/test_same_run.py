"""A run that was trained from Python is to the command line what one of ``stoker train`` is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import launching
from stoker.cli.main import main

SETTINGS = {
    "env": "CartPole-v1", "total_timesteps": 300, "num_envs": 2, "learning_starts": 64, "hidden_sizes": [16],
    "checkpoint_freq": 100, "eval_freq": 150, "eval_episodes": 2, "record_freq": 100, "lockstep": True,
}  # fmt: skip

PROGRAM = f"""
import anyio
from stoker import TrainingRun, train
from stoker.trainer import config_from

async def main():
    run = await TrainingRun.create("program", root="runs")
    await train(config_from({SETTINGS!r}), run)

anyio.run(main)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs directory with one run of each kind, ``program`` and ``command``."""
    root = tmp_path_factory.mktemp("same")
    flags = [
        word
        for name, value in SETTINGS.items()
        if name not in ("env", "lockstep")
        for word in (f"--{name}", str(value).strip("[]"))
    ]
    lines = [
        ["-c", PROGRAM],
        ["-m", "stoker", "train", "CartPole-v1", *flags, "--lockstep", "--name", "command"],
    ]
    for line in lines:
        done = launching.run(
            [sys.executable, *line], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    return root / "runs"


def run_named(runs: Path, name: str) -> Path:
    [run] = runs.glob(f"{name}/v1/*")
    return run


def test_both_leave_the_same_on_disk(runs: Path) -> None:
    files, configs, rows = [], [], []
    for name in ("program", "command"):
        run = run_named(runs, name)
        files.append({str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()})
        configs.append(json.loads((run / "config.json").read_bytes()))
        written = [json.loads(line) for line in (run / "train_episodes.jsonl").read_text().splitlines()]
        rows.append([(row["total_steps"], row["total_reward"], row["extras"]) for row in written])
    assert files[0] == files[1]
    assert configs[0] == configs[1]
    assert rows[0] == rows[1], "torch computes with the threads of the config in both"


def test_every_command_takes_a_run_of_a_program(
    runs: Path, stoker: Any, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_named(runs, "program"))
    assert main(["ls", str(runs), "--json"]) == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["done", "done"]
    for line in (
        ["eval", run, "--episodes", "2"],
        ["replay", run, "--verify"],
        ["resume", run, "-n", "400", "--no-progress"],
    ):
        done = (stoker if line[0] == "resume" else command)(*line)
        assert done.returncode == 0, (line, done.stderr)
    assert json.loads((Path(run) / "config.json").read_bytes())["total_timesteps"] == 400
